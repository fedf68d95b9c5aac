"""Checks of what a release is worth: truth, noise, what is shown, intervals, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.harness.alternatives import Alternative, guessed, kept
from mpc_engine.harness.alternatives import curator as by_curator
from mpc_engine.harness.answers import (
    COUNTS,
    KEYS,
    labels_of,
    one_row,
    opened_of,
    pool,
    question_of,
    releases_of,
    sums_of,
    variables_of,
)
from mpc_engine.harness.checks import checks
from mpc_engine.harness.noise_tests import (
    Comparison,
    Shown,
    between,
    compare,
    error_tests,
    publication_tests,
    so_few,
    together,
)
from mpc_engine.harness.numerals import in_runs, short
from mpc_engine.harness.record import Asked, Run, Verdict
from mpc_engine.scenario.expectations import (
    Coverage,
    Curator,
    Keeps,
    Noise,
    Pooled,
    Published,
    Truth,
)
from mpc_engine.statistics.tidy import NUMBERS

MOST_VARIATION: Final = 0.001
"""Greatest total variation distance of a noise table from the ideal noise, and difference in proportion of
its standard deviation."""

DRAWS: Final = 40
"""Releases of a trusted curator, by which intervals are judged."""

STATED: Final = (0.25, 4.0)
"""Bounds of the mean square of errors in stated standard errors of the noise, where these are right.

It is 1 but for suppression, and nearly 1 for statistics that are no sums of counts."""


def shown_of(run: Run, asked: Asked) -> Shown:
    """Return what a release shows, with the true sums. Raises EngineError where nothing was released."""
    question = question_of(run, asked)
    sites = sums_of(run, asked, question)
    return Shown(question, pool(sites), question.values(opened_of(asked)), sites)


def true_table(run: Run, asked: Asked) -> pd.DataFrame:
    """Return the statistics of the pooled records, without noise and with nothing hidden."""
    question = question_of(run, asked)
    return question.finish(question.true(pool(sums_of(run, asked, question)).records))


def released_table(run: Run, asked: Asked) -> pd.DataFrame:
    """Return the statistics of a release."""
    return question_of(run, asked).finish(opened_of(asked))


def compared(run: Run, ask: str | None) -> Comparison:
    """Return how a question's releases compare with OpenDP's noise, which is drawn once for a run."""
    answered = releases_of(run, ask)
    return run.once(
        ("compared", *((each.name, each.ticket) for each in answered)),
        lambda: compare([shown_of(run, each) for each in answered], len(run.silos)),
    )


def curators(run: Run, asked: Asked, times: int) -> list[Alternative]:
    """Return so many releases of a trusted curator in place of one; a run's are always the same."""
    drawn: list[Alternative] = run.once(("curators", asked.name, asked.ticket), list)
    question = question_of(run, asked)
    sites = sums_of(run, asked, question)
    drawn += [by_curator(question, sites) for _ in range(times - len(drawn))]
    return drawn[:times]


def beside(truth: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that two tables share, ``found`` with the truth's value as the column ``truth``."""
    keys = [*variables_of(truth), *KEYS]
    return found.merge(truth[[*keys, "value"]].rename(columns={"value": "truth"}), on=keys)


@checks(Truth)
def truth(run: Run, expectation: Truth) -> Sequence[Verdict]:
    """Return whether a statistic of the release is near the truth."""
    asked = run.released(expectation.ask)
    found = one_row(released_table(run, asked), expectation.where)
    value = expectation.value
    if value is None:
        value = float(one_row(true_table(run, asked), expectation.where)["value"])
    got = float(found["value"])
    away = 0.0 if got == value else abs(got - value)  # of what is not reached there is no difference
    if expectation.tolerance is not None:
        allowed, words = expectation.tolerance, f"{expectation.tolerance:g}"
    else:
        errors = [found["se_noise"]]
        if expectation.value is not None and str(found["statistic"]) not in COUNTS:
            errors.append(found["se_sampling"])
        error = float(np.hypot.reduce(np.nan_to_num(np.array(errors, np.float64))))
        allowed = (expectation.errors or 0.0) * error
        words = f"{expectation.errors:g} standard errors, {allowed:.4g}"
    name = labels_of(found.to_frame().T)[0]
    return [
        Verdict(
            f"{name} is {_told(value)}, to within {words}.",
            bool(away <= allowed),
            f"It is {_told(got)}, {away:.3g} away."
            if away == away
            else f"It is not shown: flag {found['flag']}.",
        )
    ]


def _told(value: float) -> str:
    return "not reached" if value == math.inf else f"{value:.6g}"


@checks(Pooled)
def pooled(run: Run, expectation: Pooled) -> Sequence[Verdict]:
    """Return whether the pooled records' statistics are a reference's, row by row.

    Beside ``value`` a reference may hold ``lcl``, ``ucl`` and standard errors. Numbers beyond 1 may differ by
    the tolerance in proportion.
    """
    path = run.scenario.path(expectation.file)
    try:
        reference = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        raise DocumentError(f"{path.name} cannot be read as a CSV file") from None
    columns = [name for name in reference.columns if name in NUMBERS and name != "time"]
    keys = [name for name in reference.columns if name not in columns]
    table = true_table(run, run.released(expectation.ask))
    worst, rows = 0.0, 0
    where = ""
    for row in reference.to_dict("records"):
        found = one_row(table, {str(name): row[name] for name in keys if row[name] != "" or name != "time"})
        for name in columns:
            if row[name] == "":
                continue
            wanted, rows = float(row[name]), rows + 1
            off = _off(float(found[name]), wanted)
            if off > worst:
                worst, where = off, f"{labels_of(found.to_frame().T)[0]} ({name})"
    return [
        Verdict(
            f"Without noise the pooled records give the {rows} numbers of {path.name}, to within "
            f"{expectation.tolerance:g}.",
            rows > 0 and worst <= expectation.tolerance,
            f"The greatest difference is {worst:.2g}{', ' + where if where else ''}.",
        )
    ]


def _off(found: float, wanted: float) -> float:
    """Return how far a number is off, in proportion beyond 1; infinitely if only one of them is a number."""
    if found == wanted or (found != found and wanted != wanted):
        return 0.0
    off = abs(found - wanted) / max(1.0, abs(wanted))
    return off if off == off else math.inf


@checks(Noise)
def noise(run: Run, expectation: Noise) -> Sequence[Verdict]:
    """Return whether errors and publication are as the noise tables say, and if no noise would be found."""
    answered = releases_of(run, expectation.ask)
    for asked in answered:
        _same_tables(run, asked)
    releases = [shown_of(run, asked) for asked in answered]
    errors, published = error_tests(releases), publication_tests(releases)
    bare = error_tests([each.bare for each in releases])
    return [
        Verdict(
            "Published values err as the noise tables say, given that they are shown.",
            bool(errors.values) and errors.least >= expectation.p_least,
            f"{errors.values:,} values; root mean square error {errors.measured:.3f} of the noise's standard "
            f"deviation, {errors.expected:.3f} expected; chance gives so unlikely a result "
            f"{in_runs(errors.least)} ({errors.words}).",
        ),
        Verdict(
            "Cells are shown as often as the rule and the noise tables say.",
            bool(published.values) and published.least >= expectation.p_least,
            f"{published.measured:,.0f} of {published.values:,} are shown, {published.expected:,.1f} "
            f"expected; chance gives so unlikely a result {in_runs(published.least)} ({published.words}).",
        ),
        Verdict(
            "Errors could have shown more: without any noise chance would hardly ever explain them (p < "
            f"{short(expectation.p_least)}).",
            bare.least < expectation.p_least,
            f"It would do so {in_runs(bare.least)} (p = {short(bare.least, '.2g')}, of {bare.values:,} "
            "values).",
        ),
    ]


def _same_tables(run: Run, asked: Asked) -> None:
    """Raise EngineError unless a release states the noise tables that its query leads to."""
    question = question_of(run, asked)
    stated = [] if asked.release is None else [x["noise_table"] for x in asked.release["parameters"]["split"]]
    if stated != [line.allotment.table.digest() for line in question.lines]:
        raise EngineError("the release states other noise tables than its query leads to")


@checks(Published)
def published(run: Run, expectation: Published) -> Sequence[Verdict]:
    """Return whether so many cells are shown."""
    release = shown_of(run, run.released(expectation.ask))
    shown = below = 0
    k = release.question.guarantee.threshold
    for at, line in enumerate(release.question.lines):
        if line.guard:
            seen = ~np.isnan(release.values[at])
            shown += int(seen.sum())
            below += int((seen & (release.pooled.patients[line.group] < k)).sum())
    found = f"{shown} are shown, {below} of them with fewer than {k} patients."
    verdicts = []
    for bound, holds, words in (
        (expectation.least, shown >= (expectation.least or 0), "At least {} cells are shown."),
        (expectation.most, shown <= (expectation.most or 0), "At most {} cells are shown."),
        (
            expectation.most_below_threshold,
            below <= (expectation.most_below_threshold or 0),
            f"At most {{}} cells of fewer than {k} patients are shown.",
        ),
    ):
        if bound is not None:
            verdicts.append(Verdict(words.format(bound), holds, found))
    return verdicts


@checks(Coverage)
def coverage(run: Run, expectation: Coverage) -> Sequence[Verdict]:
    """Return whether stated intervals hold the pooled truth often enough, and stated errors are neither more
    nor less than the noise, in all releases and in many draws.

    Intervals of one release depend on each other, as those of one curve do. How much their number varies is
    therefore taken from releases that a trusted curator would make with noise of his own, whose intervals are
    looked at themselves too. That they may allow for sampling makes intervals wider by right; what they
    allow for noise is judged by itself, by the errors' mean square, whose expectation no law of noise alters.
    (A single cell at ε = 2 and more, whose noise is mostly 0, has too little to be judged so.)
    """
    stated, statistic = expectation.stated, expectation.statistic
    name = statistic.replace("_", " ")
    answered = releases_of(run, expectation.ask)
    question, true = question_of(run, answered[0]), true_table(run, answered[0])
    counted = [_held(true, released_table(run, each), statistic) for each in answered]
    tables = [question.finish(each.opened) for each in curators(run, answered[0], DRAWS)]
    drawn = [_held(true, each, statistic) for each in tables]
    held, intervals = (sum(each) for each in zip(*counted, strict=True))
    right, number = (sum(each) for each in zip(*drawn, strict=True))
    alike = together(drawn, stated)
    p, of_draws = so_few(held, intervals, stated, alike), so_few(right, number, stated, alike)
    squares = np.array([_mean_square(true, each, statistic) for each in tables])
    squares = squares[~np.isnan(squares)]
    of_noise = between(squares, *STATED) if 2 * squares.size >= DRAWS else 0.0
    return [
        Verdict(
            f"Intervals of {name} hold the truth in at least {stated:.0%} of cases.",
            p >= expectation.p_least,
            f"{held} of {intervals} do; so few or fewer come {in_runs(p)} (p = {short(p, '.2g')}).",
        ),
        Verdict(
            f"With the noise drawn anew {DRAWS} times intervals of {name} hold it at least as often.",
            of_draws >= expectation.p_least,
            f"{right:,} of {number:,} do, {right / max(1, number):.1%}; so few or fewer come "
            f"{in_runs(of_draws)} (p = {short(of_draws, '.2g')}).",
        ),
        Verdict(
            f"In these draws the stated errors of the noise of {name} are right to within a factor of "
            f"{STATED[1] ** 0.5:g}.",
            of_noise >= expectation.p_least,
            f"Errors are {squares.mean() ** 0.5:.3g} times what is stated, in root mean square (p = "
            f"{short(of_noise, '.2g')})."
            if squares.size
            else "None is stated.",
        ),
    ]


def _rows(true: pd.DataFrame, table: pd.DataFrame, statistic: str) -> pd.DataFrame:
    rows = beside(true, table)
    return rows[rows["statistic"] == statistic]


def _held(true: pd.DataFrame, table: pd.DataFrame, statistic: str) -> tuple[int, int]:
    """Return how many intervals of a statistic hold the truth, of how many there are."""
    rows = _rows(true, table, statistic).dropna(subset=["lcl", "ucl", "truth"])
    return int(((rows["lcl"] <= rows["truth"]) & (rows["truth"] <= rows["ucl"])).sum()), len(rows)


def _mean_square(true: pd.DataFrame, table: pd.DataFrame, statistic: str) -> float:
    """Return the mean square of a statistic's errors in stated standard errors of the noise; NaN for none."""
    rows = _rows(true, table, statistic).dropna(subset=["value", "truth", "se_noise"])
    error, stated = (rows["value"] - rows["truth"]).to_numpy(), rows["se_noise"].to_numpy()
    some = (stated > 0) | (error != 0)
    with np.errstate(divide="ignore"):
        return float(np.mean((error[some] / stated[some]) ** 2)) if some.any() else math.nan


@checks(Curator)
def curator(run: Run, expectation: Curator) -> Sequence[Verdict]:
    """Return whether the release errs as a trusted curator with OpenDP, and noise at each site errs more."""
    found = compared(run, expectation.ask)
    variation = None if found.variation is None else float(found.variation)
    of_curator, of_release = (
        found.local / each if found.draws and each else np.nan for each in (found.curator, found.release)
    )
    return [
        Verdict(
            "The errors do not differ from those of a trusted curator with OpenDP at the same ε.",
            bool(found.values)
            and found.p_alike >= expectation.p_least
            and variation is not None
            and variation <= MOST_VARIATION,
            f"Root mean square {found.release:.3f} against {found.curator:.3f} ({found.values:,} values, "
            f"{found.draws:,} draws), p = {short(found.p_alike, '.2g')}; chance alone makes them differ so "
            f"much {in_runs(found.p_alike)}. Exact total variation distance of the noise "
            f"table from discrete Laplace {'not summed' if variation is None else short(variation)}.",
        ),
        Verdict(
            f"Noise at each of {found.silos} sites is √{found.silos} = {found.factor:.4f} times larger.",
            found.draws > 0
            and found.p_local >= expectation.p_least
            and abs(found.exact / found.factor - 1) <= MOST_VARIATION,
            f"Drawn by OpenDP, its root mean square is {of_curator:.3f} times a curator's and "
            f"{of_release:.3f} times the release's (p = {short(found.p_local, '.2g')} for the draws); its "
            f"exact standard deviation is "
            f"{found.exact:.4f} times that of the release's noise table.",
        ),
    ]


@checks(Keeps)
def keeps(run: Run, expectation: Keeps) -> Sequence[Verdict]:
    """Return whether pooling keeps so many more cells, or so much more precision, than masking at sites."""
    asked = run.released(expectation.ask)
    question = question_of(run, asked)
    sites = sums_of(run, asked, question)
    ways, read = kept(question, sites), guessed(question, sites)
    masked, whole, mpc = ways[0], ways[1], ways[4]
    k = question.guarantee.threshold
    verdicts = []
    if expectation.cells is not None:
        if not masked.enough:
            raise LookupError(
                f"masking shows no cell of {k} patients or more, so there is nothing to compare"
            )
        verdicts.append(
            Verdict(
                f"Pooling shows {expectation.cells:g} times as many cells of {k} patients or more as masking "
                "at each site.",
                mpc.enough >= expectation.cells * masked.enough,
                f"Under MPC {mpc.enough:.1f} of these cells are shown, noise included, against "
                f"{masked.enough:.0f} after masking, of which {whole.enough:.0f} with nobody left out.",
            )
        )
    if expectation.precision is not None:
        if not mpc.total:
            raise LookupError("the table has no error, so there is nothing to compare")
        verdicts.append(
            Verdict(
                f"The absolute error of the table is {expectation.precision:g} times smaller than after "
                "masking at each site, what is hidden being taken as 0.",
                masked.total >= expectation.precision * mpc.total,
                f"Under MPC the table's absolute error is {mpc.total:.1f}, noise included and "
                f"what is hidden taken as 0, against {masked.total:.0f} after masking (the rest summed), "
                f"{whole.total:.0f} (whole cells), and {read.total:.1f} if each count that a site "
                f"withholds is read as k / 2 = {k / 2:g}.",
            )
        )
    return verdicts
