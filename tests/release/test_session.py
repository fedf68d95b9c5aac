"""Whole sessions: every number of parties, input-only silos, every rule; values within the noise's reach."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpc_engine.dp.accounting import Rule, publication_probability
from mpc_engine.errors import EngineError, MismatchError, PolicyError
from mpc_engine.party.publish import Finished
from mpc_engine.party.session import Policy
from mpc_engine.runtime.link import Section
from tests.release.truth import check
from tests.world import TABLE, release

COUNTS = np.array([0, 1, 2, 4, 5, 6, 18, 40, 700, 1446, 0, 3])


@pytest.mark.parametrize("n", [3, 5, 7, 9])
@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("cap", [1, 2])
def test_every_number_of_parties_rule_and_cap(n: int, rule: Rule, cap: int) -> None:
    """Two silos and helpers; with several records per patient the rules that need it get patients too."""
    silos = [COUNTS, COUNTS[::-1]]
    patients = sum(silos)
    if cap == 2:
        silos = [np.vstack([s + s // 2, s]) for s in silos]
    outcome = release([*silos, *[None] * (n - 2)], n, rule=rule, cap=cap)
    records = sum(np.atleast_2d(s)[0] for s in silos)
    check(outcome, [records], [patients])


@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
def test_sizes(cells: int) -> None:
    counts = np.random.default_rng(cells).integers(0, 12, (2, cells))
    check(release([*counts, None]), [counts.sum(axis=0)])


@pytest.mark.parametrize("n", [3, 9])
def test_twenty_silos_most_of_them_input_only(n: int) -> None:
    counts = np.random.default_rng(n).integers(0, 4, (20, 65))
    outcome = release(list(counts), n)
    check(outcome, [counts.sum(axis=0)])
    assert len(outcome.releases) == 20 and outcome.releases[0].plan.input_only == list(range(n + 1, 21))


def test_helpers_compute_and_all_data_are_input_only() -> None:
    counts = np.random.default_rng(1).integers(0, 9, (3, 65))
    check(release([None, None, None, *counts]), [counts.sum(axis=0)])


def test_several_blocks_of_a_large_table() -> None:
    """More than one block, with the last one short; 13 true counts, 20,000 cells each."""
    count = np.arange(260_000) % 13
    outcome = release([count, np.zeros_like(count), None], seed=40)
    plan = outcome.releases[0].plan
    assert len(plan.blocks) == 4 and plan.blocks[-1].cells % 64
    check(outcome, [count])
    shown = outcome.releases[0].published.pattern[0]
    for c in range(13):
        p = float(publication_probability(plan.guarantee, c))
        seen = int(shown[count == c].sum())
        assert stats.binomtest(seen, 20_000, p).pvalue > 1e-5, (c, seen / 20_000, p)
    noise = outcome.noisy_values() - count
    assert abs(noise.mean()) < 5 * (float(TABLE.variance) / noise.size) ** 0.5


def test_cost_of_the_usual_release() -> None:
    """At n = 3, ε = 1, rule noisy: rounds, and payload per cell and party; measured equals declared."""
    count = np.full(1 << 14, 50)  # all shown
    outcome = release([count, count, None], seed=41)
    plan = outcome.releases[0].plan
    assert plan.rounds <= 17 and plan.rounds_online <= 9
    assert sum(s.meter.total_bytes for s in outcome.sessions) == plan.sent_bytes <= 200 * 3 * count.size
    for section, cost in plan.costs.items():
        assert outcome.sent_bytes(section) == cost.sent_bytes
        assert outcome.rounds(section) == cost.rounds
    control = [m for m in outcome.network.transcript if m.key.section is Section.CONTROL]
    assert {m.key.round for m in control} == {0, 1, 2, 3, 4} and len(control) == 5 * 6


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("outside", [0, 2])
def test_declared_costs_are_met_in_every_section(n: int, rule: Rule, outside: int) -> None:
    outcome = release([np.full(65, 500)] * (n + outside), n, rule=rule)
    plan = outcome.releases[0].plan
    for section, cost in plan.costs.items():
        found = outcome.rounds(section), outcome.sent_bytes(section)
        assert found == (cost.rounds, cost.sent_bytes), section


def test_all_cells_suppressed_opens_no_values() -> None:
    outcome = release([np.zeros(5), np.zeros(5), None], threshold=80)
    ((_, _, values),) = outcome.releases[0].tallies()
    assert values == [None] * 5
    assert outcome.releases[0].as_csv().splitlines()[1:] == [f"cells,records,{i},,c" for i in range(5)]
    assert not [m for m in outcome.network.transcript if m.key.section is Section.VALUES]


def test_a_party_with_other_documents_stops_all_before_anything_is_shared() -> None:
    other = {"digests": {"query": "ff" * 32, "codebook": "c0" * 32}}
    outcome = release([COUNTS, COUNTS, None], differing={2: other})
    assert any(isinstance(r, MismatchError) and "`query`" in str(r) for r in outcome.results)
    assert all(isinstance(r, EngineError) for r in outcome.results)
    assert {(m.key.section, m.key.round) for m in outcome.network.transcript} == {(Section.CONTROL, 0)}


def test_epsilon_beyond_a_partys_policy_stops_all() -> None:
    outcome = release([COUNTS, COUNTS, None], epsilon="11")
    assert all(isinstance(r, EngineError) and "at most ε = 10" in str(r) for r in outcome.results)
    assert any(isinstance(r, PolicyError) for r in outcome.results)
    assert {(m.key.section, m.key.round) for m in outcome.network.transcript} == {(Section.CONTROL, 0)}


def test_a_k_that_makes_the_test_too_wide_names_the_party_that_asks_for_it() -> None:
    outcome = release([np.ones(9), np.ones(9), None], policies={2: Policy("10", 5000)})
    assert not any(isinstance(result, Finished) for result in outcome.results)
    assert any(
        isinstance(r, PolicyError) and "party2 accepts no k below 5000" in str(r) for r in outcome.results
    )


def test_a_rule_that_a_party_does_not_accept_stops_all() -> None:
    outcome = release([np.ones(9), np.ones(9), None], rule=Rule.EXACT, policies={3: Policy("10", 1)})
    assert not any(isinstance(result, Finished) for result in outcome.results)
    refused = [r for r in outcome.results if isinstance(r, PolicyError)]
    assert ["party3 accepts only noisy, strict" in str(r) for r in refused] == [True]


def test_counts_that_do_not_fit_the_plan_stop_all_and_are_not_told() -> None:
    for wrong in (np.array([-1] * 9), np.array([1 << 21] * 9), np.ones((1, 8), np.int64)):
        outcome = release([np.ones(9), np.ones(9), None], replaced_counts={1: [np.atleast_2d(wrong)]})
        assert not any(isinstance(result, Finished) for result in outcome.results)
        for told in map(str, outcome.results[1:]):
            assert told == (
                "party 1 ended the session: LOCAL_COMPUTE_FAILED: party1 cannot count: see its own message"
            )
