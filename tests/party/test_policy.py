"""What a party's own policy refuses: presets, and guards so weak that k means little."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc_engine.documents import parse
from mpc_engine.dp import Rule, publication_probability
from mpc_engine.errors import DocumentError, PolicyError
from mpc_engine.party.policy import Policy, PolicyDocument
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


LEAST = {"greatest_epsilon": "1", "least_threshold": 5}


def document(**keys: object) -> Policy:
    """Return the policy of a table with these keys beside the required ones."""
    return parse(LEAST | keys, PolicyDocument, "policy").policy()


def test_presets_are_a_list_or_a_table_and_approval_holds_for_the_rest() -> None:
    assert document().approval_of("mean") == "auto"
    assert document(approval="manual").approval_of("mean") == "manual"
    listed = document(presets=["count", "mean"])
    assert [listed.approval_of(name) for name in ("count", "mean", "survival")] == ["auto", "auto", "never"]
    assert document(presets=["count"], approval="manual").approval_of("count") == "manual"
    table = document(presets={"count": "auto", "mean": "manual", "survival": "never"}, approval="manual")
    found = [table.approval_of(name) for name in ("count", "mean", "survival", "crosstab")]
    assert found == ["auto", "manual", "never", "never"]


def test_columns_make_the_others_unusable_unless_it_says_otherwise() -> None:
    assert document().columns is None and document().other_columns
    assert not document(columns={"age": ["group"]}).other_columns
    assert document(columns={"age": []}, other_columns="all").other_columns


def test_budgets_are_exact_and_none_gives_nothing() -> None:
    budget = document(
        budget={
            "epsilon": "10",
            "delta": "1e-5",
            "per_analyst": "0.1",
            "projects": {"wilms": "3.000001"},
            "other_projects": "none",
        }
    ).budget
    assert (budget.epsilon, budget.delta) == (Fraction(10), Fraction(1, 10**5))
    assert budget.per_analyst == Fraction(1, 10)
    assert budget.projects == {"wilms": Fraction(3_000_001, 10**6)}
    assert budget.other_projects == 0
    assert document().budget.epsilon is None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"presets": "count"}, "list of presets"),
        ({"presets": {"count": "maybe"}}, "presets.count"),
        ({"presets": [["count"]]}, "list of presets"),
        ({"columns": {"age": ["by"]}}, "columns.age[0]"),
        ({"other_columns": "never"}, "other_columns"),
        ({"budget": {"epsilon": 10}}, "budget.epsilon"),
        ({"budget": {"epsilon": "0.0000001"}}, "amount of ε"),
        ({"budget": {"epsilon": "-1"}}, "amount of ε"),
        ({"budget": {"projects": {"a b": "1"}}}, "budget.projects"),
        ({"finest_bin": {"age": 0}}, "finest_bin.age"),
        ({"most_cells": 0}, "most_cells"),
        ({"engines": ["1.0"]}, "engines[0]"),
        ({"analysts": "all"}, "analysts"),
        ({"aproval": "manual"}, "aproval"),
    ],
)
def test_a_broken_rule_is_named(keys: dict[str, object], words: str) -> None:
    with pytest.raises(DocumentError) as refused:
        document(**keys)
    assert words in str(refused.value)


def test_whose_requests_are_taken_depends_on_the_role_unless_stated() -> None:
    assert document().accepts_of(silo=True) == "enrolled"
    assert document().accepts_of(silo=False) == "any"
    assert document(analysts="any").accepts_of(silo=True) == "any"


def test_a_policy_survives_being_written_down() -> None:
    keys: dict[str, object] = {
        "presets": {"count": "auto", "mean": "manual", "survival": "never"},
        "columns": {"age": ["group"]},
        "finest_bin": {"age": 5},
        "budget": {"epsilon": "10", "projects": {"wilms": "3"}},
    }
    for given in ({}, {"presets": ["count"]}, keys):
        read = parse(LEAST | given, PolicyDocument, "policy")
        assert parse(read.model_dump(), PolicyDocument, "policy").policy() == read.policy()
