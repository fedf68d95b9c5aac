"""The harness's own safety: each broken engine fails a shipped scenario that the right one passes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mpc_engine.harness.checks import judge
from mpc_engine.harness.play import play
from mpc_engine.harness.record import Verdict
from mpc_engine.scenario.document import load_scenario
from tests.harness import broken_engines
from tests.harness.broken_engines import Change, broken

SCENARIOS = Path(__file__).parents[2] / "scenarios"

MUTANTS: list[tuple[Callable[[], list[Change]], str, str, str]] = [
    (broken_engines.no_noise, "own_data", "attack", "root mean square error"),
    (broken_engines.no_noise, "own_data", "noise", "err as the noise tables say"),
    (broken_engines.noise_known_to_one_party, "coalition", "attack", "drew themselves"),
    (broken_engines.threshold_at_one_site, "coalition", "noise", "err as the noise tables say"),
    (broken_engines.budget_not_debited, "averaging_analyst", "outcome", "fourth-title"),
    (broken_engines.budget_not_debited, "averaging_analyst", "attack", "was paid for"),
    (broken_engines.budget_not_debited, "averaging_analyst", "budget", "costs every silo"),
    (broken_engines.no_zero_sharing, "coalition", "attack", "sharing of zero"),
    (broken_engines.stream_used_twice, "coalition", "attack", "No pad was used twice"),
]
"""A mutant, the scenario that it fails, the expectation that catches it, and words of its claim."""


@cache
def verdicts(scenario: str, mutant: Callable[[], list[Change]] | None) -> list[Verdict]:
    document = load_scenario(SCENARIOS / f"{scenario}.toml")
    with broken(mutant() if mutant else []), play(document, "memory") as run:
        return judge(run)


@pytest.mark.parametrize("scenario", sorted({scenario for _, scenario, _, _ in MUTANTS}))
def test_the_right_engine_passes(scenario: str) -> None:
    assert [verdict for verdict in verdicts(scenario, None) if not verdict.holds] == []


@pytest.mark.parametrize(
    ("mutant", "scenario", "kind", "words"),
    MUTANTS,
    ids=[f"{mutant.__name__}-{scenario}-{kind}" for mutant, scenario, kind, _ in MUTANTS],
)
def test_a_broken_engine_fails(
    mutant: Callable[[], list[Change]], scenario: str, kind: str, words: str
) -> None:
    failed = [verdict for verdict in verdicts(scenario, mutant) if not verdict.holds]
    for verdict in failed:
        print(verdict)
    assert any(verdict.kind == kind and words in verdict.claim for verdict in failed)
