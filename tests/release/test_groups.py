"""Groups in whole sessions: members are opened with their guard, carry noise of their own, and never else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.dp.accounting import Rule, publication_probability
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.errors import DataError, EngineError
from mpc_engine.field.mersenne import COUNTS, WIDE
from mpc_engine.party.publish import Finished
from mpc_engine.release.execute import Execution
from mpc_engine.release.groups import Groups
from mpc_engine.runtime.link import Section
from tests.release.truth import BOUND, KINDS, STRATA, check, session, sums_of
from tests.sampling import epsilon_lower_bound
from tests.world import proposal, release, tally

# --- what is shown ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 7])
@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("cap", [1, 3])
def test_every_number_of_parties_rule_and_cap(n: int, rule: Rule, cap: int) -> None:
    outcome, _ = session(KINDS, n, seed=n, rule=rule, cap=cap, epsilon="9", threshold=12)
    lines = outcome.releases[0].plan.lines
    assert [line.field for line in lines] == [COUNTS, COUNTS, COUNTS, WIDE, COUNTS, COUNTS]
    assert [line.per_group for line in lines] == [1, 4, 1, 2, 1, 1]
    shown = outcome.releases[0].published.pattern[0]
    assert 0 < shown.sum() < shown.size or (rule, cap) == (Rule.STRICT, 3)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("rule", [Rule.NOISY, Rule.STRICT])
def test_silos_that_only_bring_sums(n: int, rule: Rule) -> None:
    outcome, _ = session(KINDS, n, silos=1, outside=4, rule=rule, cap=2, epsilon="9", threshold=3)
    assert len(outcome.releases) == n + 4


@pytest.mark.parametrize("bound", [1 << 20, 1 << 24])
def test_a_sum_of_either_sign_in_either_field(bound: int) -> None:
    groups = (Groups("g", tally("records", 40), (tally("sum", 40, 2, step=120, signed=True),)),)
    outcome, sums = session(groups, count_bound=bound, threshold=1)
    line = outcome.releases[0].plan.lines[1]
    assert line.field == (COUNTS if bound == 1 << 20 else WIDE)
    assert sums[1].min() < 0 < sums[1].max()
    values = outcome.releases[0].published.values[1]
    assert values.min() < -100 * bound and values.max() > 100 * bound


def test_nobody_in_a_group_hides_its_members_whatever_they_hold() -> None:
    groups = (Groups("g", tally("records", 9), (tally("sum", 9, 3, step=120),)),)
    none, much = np.zeros(9), np.full(27, BOUND * 120)
    outcome = release([[none, much], [none, much], None], groups=groups, rule=Rule.EXACT)
    check(outcome, [none, 2 * much])
    assert not [m for m in outcome.network.transcript if m.key.section is Section.VALUES]
    assert [entry["opened"] for entry in outcome.releases[0].openings()[-2:]] == [0, 0]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_groups(data: st.DataObject) -> None:
    """Grids of up to three axes, members of any step and sign, any weights, rule and cap."""
    groups = []
    for number in range(data.draw(st.integers(1, 3), "kinds")):
        sizes = data.draw(st.lists(st.integers(1, 5), max_size=3), "guard")
        members = []
        for index in range(data.draw(st.integers(0, 2), "members")):
            more = data.draw(st.lists(st.integers(1, 4), max_size=2), "member")
            step, signed = data.draw(st.sampled_from([1, 7, 14400])), data.draw(st.booleans())
            weight = data.draw(st.integers(1, 3))
            members.append(tally(f"member{index}", *sizes, *more, weight=weight, step=step, signed=signed))
        groups.append(Groups(f"kind{number}", tally("records", *sizes), tuple(members)))
    session(
        tuple(groups),
        silos=data.draw(st.integers(1, 3), "silos"),
        seed=data.draw(st.integers(0, 1000), "seed"),
        rule=data.draw(st.sampled_from(list(Rule)), "rule"),
        cap=data.draw(st.integers(1, 2), "cap"),
        epsilon="9",
    )


# --- the noise of each line ---------------------------------------------------------------------------


def fits(x: np.ndarray, table: NoiseTable, bins: int = 24) -> float:
    """Return the p-value of a sample against an exact table, in about so many bins of equal chance."""
    edges = sorted({int(v) for v in np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1])})
    tails = [1.0, *(float(table.tail(edge)) for edge in edges), 0.0]
    seen = np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1)
    expected = np.maximum(-np.diff(tails) * x.size, 1e-9)
    statistic = float(((seen - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, len(edges)))


def test_every_line_has_the_noise_of_its_own_epsilon() -> None:
    """χ² against the line's exact table; and against the table of another line it fails."""
    groups = (
        Groups(
            "g",
            tally("records", 64, 64, weight=5),
            (
                tally("counts", 64, 64, 4, weight=3),
                tally("sums", 64, 64, 2, weight=2, step=120, signed=True),
                tally("days", 64, 64, weight=2, step=14400),
            ),
        ),
        Groups("cells", tally("records", 64, 64, weight=1)),
    )
    held = [np.zeros(tally.grid.cells) for each in groups for tally in each.tallies]
    outcome = release([held, held, None], groups=groups, seed=7, epsilon="6")
    lines = outcome.releases[0].plan.lines
    noise = [outcome.noisy_values(index) for index in range(len(lines))]
    for index, line in enumerate(lines):
        table = line.allotment.table
        assert fits(noise[index], table) > 1e-4, line.tally.name
        for other in lines:
            if other.allotment.table != table:
                assert fits(noise[index], other.allotment.table) < 1e-9, (line.tally.name, other.tally.name)
    for one in range(len(lines)):  # and they are drawn independently
        for two in range(one):
            size = min(noise[one].size, noise[two].size)
            r = stats.spearmanr(noise[one][:size], noise[two][:size])
            assert r.pvalue > 1e-5, (one, two)


def test_guard_and_member_together_spend_what_both_are_given_and_no_more() -> None:
    """Groups of 8 and of 9 patients, 2^15 each, ε ½ + ½: an audit of joint events finds nearly 1."""
    size = 1 << 16
    count = 8 + np.arange(size) % 2
    groups = (Groups("g", tally("records", size), (tally("half", size),)),)
    outcome = release([[count, count], [0 * count, 0 * count], None], groups=groups, seed=11)
    shown = outcome.releases[0].published.pattern[0]
    guard, member = (np.where(shown, v, -1000) for v in outcome.releases[0].published.values)
    p = float(publication_probability(outcome.releases[0].plan.guarantee, 8))
    assert stats.binomtest(int(shown[count == 8].sum()), size // 2, p).pvalue > 1e-5

    def code(threshold: int) -> np.ndarray:
        """Joint events as one number each: 0 for suppressed, and whether guard and member exceed it."""
        return np.where(shown, 1 + (guard > threshold) * 2 + (member > threshold), 0)

    def audit(x: np.ndarray) -> float:
        return epsilon_lower_bound(x[count == 8], x[count == 9] - 1, 0, 1)

    joint = max(audit(code(t)) for t in (7, 8, 9))
    alone = max(audit(np.where(shown, 1 + (v > t), 0)) for v in (guard, member) for t in (7, 8, 9))
    print(f"audit: ε >= {joint:.4f} jointly, {alone:.4f} of one alone")
    assert alone <= 0.5 and 0.9 <= joint <= 1.0


# --- refusals -----------------------------------------------------------------------------------------


def test_sums_that_do_not_fit_are_refused_and_not_told() -> None:
    made = proposal((STRATA,), [True, True, False], 3, rule=Rule.STRICT, cap=2).plan()
    good = sums_of((STRATA,), 1, 1)[0]

    def execution(sums: Any, me: int = 1) -> Execution:
        return Execution(made, me, None, None, sums)  # type: ignore[arg-type]

    execution(good)
    execution(None, me=3)
    execution([good[0].astype(np.int32), *good[1:]])

    def changed(line: int, array: Any) -> list[Any]:
        return [*good[:line], np.asarray(array), *good[line + 1 :]]

    def spoilt(line: int, value: int) -> list[Any]:
        array = good[line].copy()
        array[0, -1] = value
        return changed(line, array)

    wrong: list[tuple[str, Any]] = [
        ("too few lines", good[:3]),
        ("too many lines", [*good, good[0]]),
        ("none", []),
        ("patients are missing", changed(0, good[0][:1])),
        ("one cell less", changed(1, good[1][:, 1:])),
        ("one cell more", changed(2, np.pad(good[2], ((0, 0), (0, 1))))),
        ("flat", changed(3, good[3][0])),
        ("another line's", [good[1], good[0], *good[2:]]),
        ("floats", changed(1, good[1].astype(float))),
        ("booleans", changed(1, good[1] > 0)),
        ("negative count", spoilt(0, -1)),
        ("negative member", spoilt(1, -1)),
        ("above the bound", spoilt(1, BOUND + 1)),
        ("above the signed bound", spoilt(2, 120 * BOUND + 1)),
        ("below the signed bound", spoilt(2, -120 * BOUND - 1)),
        ("above the bound of days", spoilt(3, 14400 * BOUND + 1)),
        ("more patients than records", changed(0, np.vstack([good[0][0], good[0][0] + 1]))),
        ("negative patients", changed(0, np.vstack([good[0][0], -1 - good[0][0]]))),
    ]
    for name, sums in wrong:
        with pytest.raises(DataError) as error:
            execution(sums)
        assert not any(ch.isdigit() for ch in str(error.value)), name
    for me, sums in ((1, None), (3, good)):
        with pytest.raises(DataError, match="a silo brings"):
            execution(sums, me)


def test_sums_that_do_not_fit_stop_all_parties() -> None:
    held = sums_of(KINDS, 2, 1)
    outcome = release([*held, None], groups=KINDS, replaced_counts={2: held[1][:-1]})
    assert not any(isinstance(result, Finished) for result in outcome.results)
    assert all(isinstance(result, EngineError) for result in outcome.results)
    assert Section.INPUT not in {m.key.section for m in outcome.network.transcript}


def test_a_wrong_share_of_a_member_stops_all() -> None:
    """In either field; nobody holds a release although the guard was opened well."""
    held = sums_of((STRATA,), 2, 1)
    for mine in held:
        mine[0][:] = 500
    for line, size in ((1, 4), (3, 8)):

        def spoil(source: int, receiver: int, key: Any, content: bytearray, chunk: int = line) -> None:
            if (source, key.section, key.chunk) == (2, Section.VALUES, chunk):
                content[3 * size] ^= 1  # noqa: B023

        outcome = release([*held, None], groups=(STRATA,), network={"intercept": spoil})
        assert not any(isinstance(result, Finished) for result in outcome.results)
