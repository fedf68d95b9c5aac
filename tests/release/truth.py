"""Made-up groups, and what a session of them must publish, from true sums and what parties committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc_engine.dp.accounting import Rule
from mpc_engine.release.groups import Groups
from mpc_engine.runtime.link import Section
from tests.world import Outcome, release, tally

STRATA = Groups(
    "strata",
    tally("records", 3, 7, weight=4),
    (
        tally("exits", 3, 7, 4, weight=2),
        tally("months", 3, 7, weight=2, step=120, signed=True),
        tally("days", 3, 7, 2, step=14400),
    ),
)
TOTALS = (Groups("a totals", tally("records", 3, weight=2)), Groups("total", tally("records", weight=3)))
KINDS = (STRATA, *TOTALS)
BOUND = 1 << 20


def sums_of(
    groups: Sequence[Groups], silos: int, seed: int, cap: int = 1, bound: int = BOUND
) -> list[list[np.ndarray]]:
    """Return every silo's sums, one array for each line: guards about the threshold, members anywhere."""
    draw = np.random.default_rng(seed)
    held = []
    for _ in range(silos):
        mine: list[np.ndarray] = []
        for each in groups:
            patients = draw.integers(0, 30 // silos, each.guard.grid.cells)
            mine.append(np.vstack([patients * draw.integers(1, cap + 1, patients.size), patients]))
            for member in each.members:
                top = bound * member.step
                drawn = draw.integers(-top if member.signed else 0, top, member.grid.cells, endpoint=True)
                drawn[0], drawn[-1] = -top if member.signed else 0, top  # the ends themselves
                mine.append(drawn[None])
        held.append(mine)
    return held


def whole(
    groups: Sequence[Groups], held: Sequence[Sequence[np.ndarray]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the sums of all silos for each line, and the patients of each guard."""
    lines = [sum(parts) for parts in zip(*held, strict=True)]
    guards = [tally is each.guard for each in groups for tally in each.tallies]
    patients = [np.asarray(x)[1] for x, guard in zip(lines, guards, strict=True) if guard]
    return [np.asarray(x)[0] for x in lines], patients


def session(
    groups: Sequence[Groups], n: int = 3, silos: int = 2, outside: int = 0, seed: int = 1, **terms: Any
) -> tuple[Outcome, list[np.ndarray]]:
    """Run a session with computing and input-only silos, check what it published; return it and the sums."""
    held = sums_of(groups, silos + outside, seed, terms.get("cap", 1), terms.get("count_bound", BOUND))
    counts = [*held[:silos], *[None] * (n - silos), *held[silos:]]
    outcome = release(counts, n, groups=groups, **terms)
    sums, patients = whole(groups, held)
    check(outcome, sums, patients)
    return outcome, sums


def check(outcome: Outcome, sums: Sequence[Any], patients: Sequence[Any] | None = None) -> None:
    """All hold one result; it follows from the noisy values by the rule; noise is within its range.

    Args:
        sums: the true sums of each line, over all silos.
        patients: of each line that is a guard the true patients, by default its sums.
    """
    releases = outcome.releases
    first = releases[0].published
    for other in releases:
        for mine, theirs in zip(other.published.pattern, first.pattern, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        for mine, theirs in zip(other.published.values, first.values, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert other.as_fields() == releases[0].as_fields()
    plan = releases[0].plan
    guarantee, k = plan.guarantee, plan.guarantee.threshold
    shown = np.zeros(0, bool)
    guards = iter(patients if patients is not None else [s for s, x in zip(sums, plan.lines) if x.guard])  # noqa: B905
    listed = list(releases[0].tallies())
    opened = iter([entry for entry in releases[0].openings() if entry["section"] == "VALUES"])
    for index, (line, true) in enumerate(zip(plan.lines, sums, strict=True)):
        noisy, true = outcome.noisy_values(index), np.asarray(true)
        table = guarantee.allotments[index].table
        assert np.abs(noisy - true).max() <= table.limit
        if line.guard:
            held = np.asarray(next(guards))
            shown = held >= k if guarantee.rule is not Rule.NOISY else np.ones(true.size, bool)
            if guarantee.rule is not Rule.EXACT:
                shown = shown & (noisy >= guarantee.allotments[index].least_shown)
            np.testing.assert_array_equal(first.pattern[line.group], shown)
        visible = np.repeat(shown, true.size // shown.size)
        np.testing.assert_array_equal(first.values[index], np.where(visible, noisy, 0))
        assert listed[index][2] == [int(v) if s else None for v, s in zip(noisy, visible, strict=True)]
        assert next(opened)["opened"] == visible.sum()
    assert outcome.sent_bytes(Section.VALUES) <= plan.costs[Section.VALUES].sent_bytes
    assert sum(s.meter.total_bytes for s in outcome.sessions) <= plan.sent_bytes
    assert max(s.meter.total_rounds for s in outcome.sessions) <= plan.rounds
