"""A result in plain words: a paragraph for whoever reads the table, and the notation of its flags."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.dp.accounting import NOT_PRIVATE, Rule
from mpc_engine.dp.rationals import decimal_text
from mpc_engine.release.opened import Opened, OpenedGroups
from mpc_engine.result.layouts import SIZES
from mpc_engine.result.vocabulary import methods, words
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.tidy import (
    LARGEST_RELATIVE_ERROR,
    NOT_APPLICABLE,
    NOT_AVAILABLE,
    OUTSIDE,
    SUPPRESSED,
    TRUNCATED,
    UNRELIABLE,
)
from mpc_engine.statistics.wording import conditions, listed

FLAGS: Final = {
    SUPPRESSED: "suppressed: did not pass the threshold",
    TRUNCATED: "beyond the reliable range: too few at risk",
    UNRELIABLE: "unreliable: a large relative error",
    NOT_APPLICABLE: "not applicable",
    NOT_AVAILABLE: "not available",
}
"""What each flag but ``ok`` means, in the order in which a legend lists them."""
WHY: Final = {
    TRUNCATED: "beyond the reliable range, because too few are at risk for k or for the noise",
    UNRELIABLE: f"unreliable, because the standard error is above {LARGEST_RELATIVE_ERROR:.0%} of the value",
    NOT_AVAILABLE: "not available, because there is too little to compute them from, such as nobody at risk",
    NOT_APPLICABLE: "not applicable, as what lies outside the filters",
}
"""Why a row of the table has a flag other than ``ok`` and ``c``."""
PRIMARIES: Final = {
    "first": "Of several tumours of a patient only the first takes part.",
    "iarc": "Of several tumours of a patient one of each kind takes part, by the international rules for "
    "multiple primaries.",
    "all": "All tumours of a patient may take part.",
}
"""Which tumours of a patient take part, in words."""
FILES: Final = {"life_table": "Life table", "population": "Population", "ratio": "Reference rates"}
"""Keys of queries that name a public file of the codebook."""
WARNINGS: Final = ("too high", "too low")
"""How notes begin that warn of a value."""
WIDTH: Final = 100
"""Columns of a text file."""


def notation(table: pd.DataFrame) -> dict[str, str]:
    """Return the flags that a table uses, but ``ok``, with their meaning."""
    return meanings(set(table["flag"].astype(str)))


def meanings(flags: Collection[str]) -> dict[str, str]:
    """Return these flags, but ``ok``, with their meaning."""
    return {flag: text for flag, text in FLAGS.items() if flag in flags}


def explain(
    release: Mapping[str, Any], query: Query, codebook: Codebook, opened: Opened, table: pd.DataFrame
) -> str:
    """Return one paragraph: what was asked, of whom, what is hidden and why, what the noise does."""
    return " ".join(
        [
            *_asked(release, query, codebook),
            *_counted(release, query, codebook),
            *_sources(query, codebook),
            *_methods(query, table),
            *_hidden(release, opened, table),
            *_raised(release, query),
            *_flagged(table),
            *_noted(query, table),
            *_noise(release),
            *_spent(release),
        ]
    )


def text_file(title: str, paragraph: str, legend: Sequence[str], promise: Sequence[str]) -> str:
    """Return title, explanation, notation and promises as a text of lines that fit a page."""
    blocks = [title, textwrap.fill(paragraph, WIDTH)]
    if legend:
        blocks.append("\n".join(["Notation:", *(f"  {line}" for line in legend)]))
    points = [textwrap.fill(line, WIDTH, initial_indent="- ", subsequent_indent="  ") for line in promise]
    blocks.append("\n".join(["What is promised:", *points]))
    return "\n\n".join(blocks) + "\n"


def parameters_line(release: Mapping[str, Any]) -> str:
    """Return rule, k, ε and the silos in one line, for the head of a picture."""
    given = release["parameters"]
    line = f"ε = {given['epsilon']}, k = {given['k']} (rule {given['rule']}); {listed(_silos(release))}"
    return line if given["differentially_private"] else f"{line}; {NOT_PRIVATE}"


def _silos(release: Mapping[str, Any]) -> list[str]:
    return [str(party["name"]) for party in release["parties"] if party["role"] != "helper"]


def _asked(release: Mapping[str, Any], query: Query, codebook: Codebook) -> list[str]:
    only = f", among records with {conditions(codebook, query.where)}" if query.where else ""
    return [
        f"The question was {query.question()}{only}.",
        *_window(query),
        f"The records of {listed(_silos(release))} were added up on secret shares, so no party saw another's "
        "numbers.",
    ]


def _window(query: Query) -> list[str]:
    """Say which days of diagnosis or follow-up count, where not all of them do."""
    window, diagnosed = getattr(query, "window", None), getattr(query, "diagnosed", None)
    if window is None:
        return []
    if getattr(query, "approach", "") == "period":
        return [f"Follow-up from {window[0]} to {window[1]} counts, whenever {diagnosed} was."]
    until = getattr(query, "followed_until", None)
    whole = f"; all of them could be followed to the end of the grid by {until}" if until else ""
    return [f"Patients with {diagnosed} from {window[0]} to {window[1]} take part{whole}."]


def _counted(release: Mapping[str, Any], query: Query, codebook: Codebook) -> list[str]:
    """Say which tumours and how many records of a patient count, and whose records are left out."""
    cap = release["parameters"]["cap"]
    most = "one patient at one silo counts once"
    if cap > 1:
        most = f"of one patient at one silo at most {cap} records count"
    lines = [PRIMARIES[query.multiple_primaries], f"{most[:1].upper()}{most[1:]}."]
    extra = query.selections(codebook, [])[len(query.where) :]
    names = [
        each.variable
        for each in extra
        if not each.unknown and getattr(codebook.variables[each.variable], "unknown", None) is not None
    ]
    if names:
        lines.append(f"Records of unknown {listed(list(dict.fromkeys(names)), 'or')} are left out.")
    return lines


def _sources(query: Query, codebook: Codebook) -> list[str]:
    """Name the codebook and the public files that statistics are made of."""
    parts = [f"Codebook: {codebook.name}, version {codebook.version}."]
    for key, what in FILES.items():
        file = codebook.files.get(getattr(query, key, None) or "")
        if file is not None:
            described = f"{file.description}, " if file.description else ""
            parts.append(f"{what}: {getattr(query, key)} ({described}{Path(file.path).name}).")
    return parts


def _methods(query: Query, table: pd.DataFrame) -> list[str]:
    """Name the methods of statistics and their intervals: the headlines first, then the others."""
    names = table["statistic"].astype(str)
    order = dict.fromkeys([*(each for each in query.headlines if (names == each).any()), *names.unique()])
    found: dict[str, list[str]] = {}
    for name in order:
        method = methods(table[names == name])
        if method and name not in SIZES and not name.startswith("funnel_"):
            called = "test" if name.startswith("log_rank_") else _lower(words(name))
            found.setdefault(method, []).append(called)
    parts = [f"{listed(list(dict.fromkeys(called)))} – {method}" for method, called in found.items()]
    return [f"Methods: {'; '.join(parts)}."] if parts else []


def _lower(text: str) -> str:
    """Return a name for the middle of a sentence; abbreviations stay as they are."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def hidden(opened: Opened, table: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Return for each kind of groups its name, how many are hidden, and how many the filters leave."""
    counts = []
    for name, groups in opened.groups.items():
        inside = _inside(groups, table)
        counts.append((name, int((inside & ~groups.shown).sum()), int(inside.sum())))
    return counts


def _hidden(release: Mapping[str, Any], opened: Opened, table: pd.DataFrame) -> list[str]:
    counts, lines = hidden(opened, table), []
    if any(number for _, number, _ in counts):
        parts = listed([f"{number:,} of {total:,} {name}" for name, number, total in counts if number])
        verb = "is" if sum(number for _, number, _ in counts) == 1 else "are"
        lines.append(f"{parts} {verb} hidden, marked [c], because {_why(release['parameters'])}.")
    else:
        every = listed([f"{total:,} {name}" for name, _, total in counts])
        lines.append(f"Nothing is hidden of {every}.")
    whole = [name for name, groups in opened.groups.items() if groups.members and groups.shown.any()]
    if whole:
        k = release["parameters"]["k"]
        lines.append(
            f"What is shown of {listed(whole)} is shown with all its cells, those with fewer than {k} too."
        )
    return lines


def _raised(release: Mapping[str, Any], query: Query) -> list[str]:
    """Say that the parties answered with a larger k than was asked for, if they did."""
    k, asked = release["parameters"]["k"], query.privacy.threshold
    return [f"The query asked for k = {asked}; the parties' policies made it {k}."] if k > asked else []


def _inside(groups: OpenedGroups, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which groups the filters leave: what they leave out is no more hidden than it is shown."""
    inside = np.ones(groups.shown.shape, np.bool_)
    outside = (table["flag"].astype(str) == NOT_APPLICABLE) & (table["note"].astype(str) == OUTSIDE)
    if not outside.any():
        return inside
    for position, axis in enumerate(groups.guard.grid.axes):
        left = set(table.loc[~outside, axis.variable].astype(str))
        kept = np.array([label in left for label in axis.categories], np.bool_)
        inside &= kept.reshape([-1 if at == position else 1 for at in range(inside.ndim)])
    return inside


def _why(given: Mapping[str, Any]) -> str:
    k, rule = given["k"], given["rule"]
    if rule == Rule.NOISY:
        return f"the count with its noise was below k = {k} (rule noisy)"
    if rule == Rule.EXACT:
        return f"fewer than k = {k} patients were counted (rule exact)"
    least = sorted({part["least_shown"] for part in given["split"] if part["guard"]})
    levels = " or ".join(map(str, least))
    return f"patients were fewer than k = {k}, or the count with its noise was below {levels} (rule strict)"


def _flagged(table: pd.DataFrame) -> list[str]:
    """Say how many rows of the table have which flag, and why."""
    flags = table["flag"].astype(str).value_counts()
    parts = []
    for flag, why in WHY.items():
        number = int(flags.get(flag, 0))
        if number:
            parts.append(f"{number:,} {'row' if number == 1 else 'rows'} marked [{flag}] ({why})")
    return [f"The table has {listed(parts)}."] if parts else []


def _noted(query: Query, table: pd.DataFrame) -> list[str]:
    """Repeat the warnings that headline rows carry: what is said of some of a statistic's rows only."""
    lines = []
    names = table["statistic"].astype(str)
    for name in query.headlines:
        rows = table[(names == name) & table["time"].notna() & table["value"].notna()]
        pieces = rows["note"].astype(str).str.split("; ").explode().value_counts()
        for piece, number in pieces.items():
            if str(piece).startswith(WARNINGS):
                verb = "is" if number == 1 else "are"
                what = f"{number:,} of {len(rows):,} values of {_lower(words(name))}"
                lines.append(f"{what} {verb} noted as {piece}.")
    return lines


def _noise(release: Mapping[str, Any]) -> list[str]:
    split = release["parameters"]["split"]
    deviations = [f"{float(part['noise_standard_deviation']):.{_decimals(part)}f}" for part in split]
    if len(split) == 1:
        spread = f"standard deviation {deviations[0]}"
    else:
        on = [" on ".join((size, part["part"])) for size, part in zip(deviations, split, strict=True)]
        spread = f"standard deviation {listed(on)}"
    return [
        f"Every published number carries random noise that nobody knows, with {spread}; so numbers do not "
        "add up exactly, and one below 0 is printed as 0. Intervals include this noise besides the play of "
        "chance, and their standard errors are given apart."
    ]


def _decimals(part: Mapping[str, Any]) -> int:
    return 2 if float(part["noise_standard_deviation"]) < 10 else 1


def _spent(release: Mapping[str, Any]) -> list[str]:
    given = release["parameters"]
    epsilon = given["epsilon"]
    twice = decimal_text(2 * Fraction(epsilon))
    if not given["differentially_private"]:
        return [f"This is {NOT_PRIVATE}; ε = {epsilon} describes the noise only."]
    parts = ""
    if len(given["split"]) > 1:
        shares = [" ".join((part["part"], part["epsilon"])) for part in given["split"]]
        parts = f" ({listed(shares)})"
    return [
        f"The release spends ε = {epsilon}{parts} of the privacy of each patient at one silo; a patient with "
        f"records at two silos counts at both and costs twice that, ε = {twice}."
    ]
