"""What a party's own policy refuses: presets, and guards so weak that k means little."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc_engine.documents import parse
from mpc_engine.dp import Rule, publication_probability
from mpc_engine.errors import DocumentError, PolicyError
from mpc_engine.party.config import PolicyDocument
from mpc_engine.party.session import Policy
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from tests.world import release

STRATA = Axis("stratum", ("a", "b", "c"))
OUTCOMES = Axis("outcome", ("event", "censored", "beyond"))


def groups(guard: int, members: int) -> tuple[Groups, ...]:
    """Return strata whose guard and members have these weights."""
    member = Tally("outcomes", Grid((STRATA, OUTCOMES)), members)
    return (Groups("strata", Tally("patients", Grid((STRATA,)), guard), (member,)),)


COUNTS = [np.full((2, 3), 30), np.full((1, 9), 10)]


def errors(policy: Policy, **terms: object) -> list[object]:
    """Return what became of a session in which the second of three parties has a policy of its own."""
    outcome = release([COUNTS, COUNTS, None], policies={2: policy}, **terms)  # type: ignore[arg-type]
    return list(outcome.results)


def test_a_guard_with_little_of_epsilon_is_refused() -> None:
    strict = Policy("10", 1, greatest_chance_for_nobody=Fraction(35, 100))
    accepted = errors(strict, groups=groups(1, 3))
    assert not any(isinstance(result, BaseException) for result in accepted)
    refused = errors(strict, groups=groups(1, 22))
    assert all(isinstance(result, BaseException) for result in refused)
    (own,) = [result for result in refused if isinstance(result, PolicyError)]
    assert "patients gets so little of ε" in str(own) and "0.35" in str(own)
    assert "No count was shared" in str(own)


def test_the_chance_is_that_of_the_agreed_threshold() -> None:
    terms = {"groups": groups(1, 22)}
    plan = release([COUNTS, COUNTS, None], **terms).plan  # type: ignore[arg-type]
    assert plan is not None
    chance = publication_probability(plan.guarantee, 0)
    assert not any(
        isinstance(result, BaseException)
        for result in errors(Policy("10", 1, greatest_chance_for_nobody=chance), **terms)
    )
    just_below = Policy("10", 1, greatest_chance_for_nobody=chance - Fraction(1, 10**30))
    assert any(isinstance(result, PolicyError) for result in errors(just_below, **terms))
    larger_k = Policy("10", 40, greatest_chance_for_nobody=chance - Fraction(1, 10**30))
    assert not any(isinstance(result, PolicyError) for result in errors(larger_k, **terms))


@pytest.mark.parametrize("rule", [Rule.STRICT, Rule.EXACT])
def test_other_rules_show_nobody_and_pass(rule: Rule) -> None:
    policy = Policy("10", 1, tuple(Rule), greatest_chance_for_nobody=Fraction(0))
    found = errors(policy, groups=groups(1, 3), rule=rule)
    assert not any(isinstance(result, BaseException) for result in found)


def test_only_the_presets_named_are_answered() -> None:
    found = errors(Policy("10", 1, presets=("count", "crosstab")), groups=groups(1, 3))
    (own,) = [result for result in found if isinstance(result, PolicyError)]
    assert "accepts only count, crosstab" in str(own)


def test_a_policy_document_names_presets_that_exist_and_a_chance(tmp_path: Path) -> None:
    fields = {"greatest_epsilon": "1", "least_threshold": 5}
    policy = parse(fields | {"presets": ["count"]}, PolicyDocument, "policy").policy()
    assert policy.presets == ("count",)
    assert policy.greatest_chance_for_nobody == Fraction(35, 100)
    for wrong in ({"presets": ["kaplan"]}, {"presets": []}, {"greatest_chance_for_nobody": "1.5"}):
        with pytest.raises(DocumentError):
            parse(fields | wrong, PolicyDocument, "policy")
