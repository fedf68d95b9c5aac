"""`mpc-engine plan`: what a query would lay out, spend, show and send, before anything is spent."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.outlook import Outlook, look_ahead, show_outlook
from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import SECTIONS, out, show_points
from mpc_engine.client.plans import chances, plan_fields, spent_by
from mpc_engine.codebook import load_codebook
from mpc_engine.dp import Guarantee, Rule
from mpc_engine.dp.rationals import ceil_log2, decimal_text
from mpc_engine.errors import DocumentError
from mpc_engine.party.config import load_config
from mpc_engine.party.proposal import propose
from mpc_engine.release.grid import Grid
from mpc_engine.release.opened import Opened, read_opened
from mpc_engine.release.plan import Member, Plan
from mpc_engine.release.table import promise
from mpc_engine.statistics.presets import load_query
from mpc_engine.statistics.query import Query


def plan(
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="The query.")],
    codebook: Annotated[
        Path | None, typer.Option(help="The codebook; by default codebook.toml beside the query.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A party's configuration, for its codebook and roster.")
    ] = None,
    parties: Annotated[
        int, typer.Option(help="Computing parties, without a configuration: two silos and helpers.")
    ] = 3,
    cases: Annotated[
        int | None,
        typer.Option(min=1, max=10**9, help="Cases to expect in all, for the expected error of each result."),
    ] = None,
    cells: Annotated[
        Path | None,
        typer.Option(help="A release.json of dummy data, whose cells are the cohort to expect."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Print what a query would open, spend and send, and the errors to expect, without touching records."""
    if cases is not None and cells is not None:
        raise typer.BadParameter("--cases and --cells both state a cohort; give one of them")
    if config is not None:
        party, roster = load_config(config)
        codebook = codebook or party.path(party.codebook)
        members = party.directory(roster).members
        least = party.accepted().least_threshold
    else:
        least = 1
        members = tuple(
            Member(f"party-{number}", True, number <= 2, "unknown", 1 << 24)
            for number in range(1, parties + 1)
        )
    book = load_codebook(codebook or query.parent / "codebook.toml")
    asked = load_query(query)
    asked.validate_on(book)
    made = propose(asked, book, members).plan(max(least, asked.privacy.threshold))
    cohort = None if cells is None else _cohort(cells)
    ahead = look_ahead(asked, book, made, cases, cohort)
    if as_json:
        typer.echo(
            json.dumps(plan_fields(made) | ahead.as_fields(), indent=1, ensure_ascii=False, allow_nan=False)
        )
        return
    show_plan(asked, made, ahead)


def show_plan(asked: Query, made: Plan, ahead: Outlook) -> None:
    """Print what is laid out, how ε is split, what is shown, what to expect, what is opened and sent."""
    say(f"Asked: {asked.question()}.")
    _show_layout(made)
    _show_split(made)
    _show_chances(made)
    show_outlook(asked, ahead)
    _show_openings(made)
    _show_costs(made)
    show_points(promise(made))


def _cohort(path: Path) -> Opened:
    """Return the cells of a release document, or of that in a folder."""
    file = path / "release.json" if path.is_dir() else path
    try:
        release = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DocumentError(f"{file}: is not valid JSON") from None
    return read_opened(release)


# --- what is laid out ---------------------------------------------------------------------------------


def _show_layout(made: Plan) -> None:
    for groups in made.groups:
        name = f"{groups.name}: " if len(made.groups) > 1 or groups.members else ""
        cells = groups.guard.grid.cells
        if not groups.members:
            say(f"{name}{_number(cells, 'cell')}: {_axes(groups.guard.grid)}", style="bold")
            continue
        say(f"{name}{_number(cells, 'group')}: {_axes(groups.guard.grid)}", style="bold")
        say(f"  guard: {groups.guard.name}, 1 cell in each group")
        for member in groups.members:
            inner = Grid(member.grid.axes[len(groups.guard.grid.axes) :])
            held = f" by {_axes(inner)}" if inner.axes else ""
            say(
                f"  shown with it: {member.name}, {_number(inner.cells, 'cell')} in each group{held}; "
                f"{member.grid.cells:,} in all"
            )
    out.print()


def _axes(grid: Grid) -> str:
    named = (f"{axis.variable} ({len(axis.categories):,})" for axis in grid.axes)
    return " × ".join(named) or "no variables"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- how ε is spent -----------------------------------------------------------------------------------


def _show_split(made: Plan) -> None:
    guarantee = made.guarantee
    show(
        "How ε is split, and the noise of each part",
        ("part", "weight", "ε", "change", "cap", "ε per unit", "noise SD", "largest"),
        [
            (
                each.part.name,
                str(each.part.weight),
                decimal_text(each.epsilon),
                f"{each.part.step:,}",
                str(guarantee.cap),
                decimal_text(each.table.epsilon),
                _digits(float(each.table.variance) ** 0.5),
                f"{each.table.limit:,}",
            )
            for each in guarantee.allotments
        ],
        left=("part",),
    )
    parts = " + ".join(decimal_text(each.epsilon) for each in guarantee.allotments)
    spent = decimal_text(spent_by(guarantee))
    lines = [
        "Change: the most by which one record changes the part; cap: records of one patient. The part's "
        "ε over both is its ε per unit, which sets the noise.",
    ]
    if len(guarantee.allotments) > 1:
        lines.append(f"ε in all: {parts} = {spent}, exactly. {_composition(made)}")
    else:
        lines.append(f"ε in all: {spent}.")
    if guarantee.delta is None:
        lines.append("δ: none is promised; rule exact is not differential privacy.")
    else:
        lines.append(
            f"δ in all: {_delta(guarantee.delta)}, from the finite range of the noise{_strict(guarantee)}."
        )
        twice, delta = guarantee.at_silos(2)
        if len(made.silos) > 1 and delta is not None:
            lines.append(
                f"A patient with records at two silos: 2ε = {decimal_text(twice)}, δ {_delta(delta)}; "
                "silos do not compare identities."
            )
    show_points(lines)
    out.print()


def _composition(made: Plan) -> str:
    if len(made.groups) > 1:
        return (
            "The parts add up, for a patient's record is in one cell of each of them; within a part "
            "the cells do not overlap, so that one cell is all it costs."
        )
    return "The parts add up, for a patient's record is in one cell of each of them, in one group only."


def _delta(delta: Fraction) -> str:
    return f"≤ 2^{ceil_log2(delta)}"


def _strict(guarantee: Guarantee) -> str:
    given = guarantee.strict_delta
    return f", with {decimal_text(given)} asked for by rule strict" if given else ""


# --- what is shown ------------------------------------------------------------------------------------


def _show_chances(made: Plan) -> None:
    found = chances(made)
    patients = "patients" if made.guarantee.cap == 1 else "patients with one record each"
    by_counts: dict[tuple[int, ...], list[tuple[str, ...]]] = {}
    for name, _, _, chance, _ in found:
        cells = tuple("100" if p == 1 else "0" if p == 0 else f"{100 * p:.1f}" for _, p in chance)
        by_counts.setdefault(tuple(count for count, _ in chance), []).append((name, *cells))
    for counts, rows in by_counts.items():
        show(
            f"Chance in % of being shown, by the true number of {patients}",
            ("guard", *map(str, counts)),
            rows,
            left=("guard",),
        )
    lines = []
    for name, groups, _, _, false in found:
        what = "If every cell were empty" if len(found) == 1 else f"{name}: if all were empty"
        lines.append(f"{what}, {_digits(false)} of {groups:,} would be shown with nobody in it, on average.")
    if made.guarantee.rule is Rule.NOISY:
        show_points(lines)
    else:
        k, members = made.guarantee.threshold, any(groups.members for groups in made.groups)
        what = "group" if members else "cell"
        say(f"No {what} of fewer than {k} patients, counted at each silo, is shown.")
        if members:
            say(f"Within a group that is shown all numbers are, those below {k} too.")
    out.print()


# --- what is opened and what it takes -----------------------------------------------------------------


def _show_openings(made: Plan) -> None:
    show(
        "What will be opened, at most",
        ("when", "what", "values"),
        [
            (SECTIONS[str(opening["section"])], str(opening["what"]), f"{opening['values']:,}")
            for opening in made.openings()
        ],
        left=("when", "what"),
    )


def _show_costs(made: Plan) -> None:
    rows = [
        (SECTIONS[section.name], str(cost.rounds), f"{cost.sent_bytes:,}")
        for section, cost in made.costs.items()
    ]
    show(
        "What it takes",
        ("section", "rounds", "bytes, all parties"),
        [*rows, ("together", str(made.rounds), f"{made.sent_bytes:,}")],
        left=("section",),
    )
    control = "six" if made.input_only else "five"
    say(
        f"{made.rounds_online} of the rounds follow the sharing of counts; {control} control rounds come on "
        "top, the signing of the receipt among them."
    )
    out.print()


def _digits(value: float) -> str:
    """Return a positive number with three digits or so, and thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.1g}"
    )
