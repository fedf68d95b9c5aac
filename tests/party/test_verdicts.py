"""What a party would say of a question, as far as others can tell from what it publishes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from mpc_engine.dp import Rule
from mpc_engine.errors import PresetError
from mpc_engine.identity import Identity, throwaway_identity
from mpc_engine.ledger.charge import Charge
from mpc_engine.party.judgement import Judgement
from mpc_engine.party.lines import Notice
from mpc_engine.party.messages import Amounts, publish_policy
from mpc_engine.party.policy import BudgetLimits, Policy
from mpc_engine.party.published import published
from mpc_engine.party.verdicts import verdict
from tests.party.questions import COUNT, query

ONE = Charge(10**6, 1 << 36)
POLICY = Policy("1", 5, rules=(Rule.NOISY,), budget=BudgetLimits(Fraction(10), None, Fraction(2)))
APPROVED = "would be approved automatically"


@pytest.fixture(scope="module")
def us() -> Identity:
    """A party."""
    return throwaway_identity("us", address="us.example:8470")


def left(epsilon: str | None, delta: int | None = None) -> Amounts:
    """Return what is left of a budget."""
    micro = None if epsilon is None else int(Fraction(epsilon) * 10**6)
    return Amounts(micro_epsilon=micro, delta=None if delta is None else str(delta))


def notice(us: Identity, policy: Policy = POLICY, **told: Any) -> Notice:
    """Return what us publishes; it has enrolled ada, and ε = 5 is left of everything."""
    fields = published(policy, "us", "wilms-us", "cd" * 16, {"version": "1", "source": "ab" * 32})
    usual: dict[str, Any] = {
        "dataset": left("5"),
        "projects": {"colon": left("5")},
        "analysts": {"ada": left("5")},
    }
    return Notice(published=publish_policy(fields, us), **(usual | told))


def said(told: Notice | None, charge: Charge | None = ONE, own: Judgement | None = None, **asks: Any) -> str:
    """Return the verdict on a count of ada's for the project colon."""
    return verdict(told, query(COUNT, **asks), "ada", "colon", charge, own)


def test_what_is_published_decides(us: Identity) -> None:
    assert said(notice(us)) == f"{APPROVED}, as far as published"
    assert said(None) == "not known: the party has not been connected yet"
    assert said(notice(us, replace(POLICY, approval="manual"))) == "needs an operator"
    refused: list[tuple[Policy, dict[str, Any], str]] = [
        (replace(POLICY, presets=("mean",)), {}, "the preset count is not allowed"),
        (POLICY, {"privacy": {"epsilon": "1", "rule": "exact"}}, "the rule exact is not allowed"),
        (POLICY, {"privacy": {"epsilon": "1.5"}}, "ε is at most 1"),
    ]
    for policy, asks, why in refused:
        assert said(notice(us, policy), **asks) == f"would be refused: {why}"


def test_whom_a_party_has_not_enrolled_it_refuses_unless_it_answers_anybody(us: Identity) -> None:
    assert said(notice(us, analysts={"bob": left("5")})) == "would be refused: it has not enrolled you"
    anybody = replace(POLICY, analysts="any")
    assert said(notice(us, anybody, analysts={})).startswith(APPROVED)
    strict = replace(anybody, budget=BudgetLimits(Fraction(10), None, Fraction(1, 2)))
    assert said(notice(us, strict, analysts={})) == (
        "would be refused: not enough budget is left (analyst: ε = 0.5, δ without limit)"
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"dataset": left("0.25", 1 << 80)}, "data set: ε = 0.25, δ = 2^-20"),
        ({"dataset": left("5", 1 << 30)}, "data set: ε = 5, δ = 2^-70"),
        ({"projects": {"colon": left("0")}}, "project: ε = 0, δ without limit"),
        ({"analysts": {"ada": left("0.999999")}}, "analyst: ε = 0.999999, δ without limit"),
    ],
)
def test_a_budget_that_does_not_suffice_is_named(us: Identity, told: dict[str, Any], words: str) -> None:
    assert said(notice(us, **told)) == f"would be refused: not enough budget is left ({words})"
    assert said(notice(us, **told), charge=None).startswith(APPROVED)  # served from a stored release


def test_a_budget_that_just_suffices_is_enough(us: Identity) -> None:
    enough: dict[str, Any] = {"dataset": left("1", 1 << 36), "projects": {"colon": left(None)}}
    assert said(notice(us, **enough)).startswith(APPROVED)
    helper: dict[str, Any] = {"dataset": None, "projects": {}}
    assert said(notice(us, **helper)).startswith(APPROVED)


def test_a_project_that_the_policy_does_not_name_has_the_limit_of_the_others(us: Identity) -> None:
    none = replace(POLICY, budget=BudgetLimits(Fraction(10), None, None, {"wilms": Fraction(3)}, Fraction(0)))
    assert "project: ε = 0" in said(notice(us, none, projects={"wilms": left("3")}))


def test_the_party_that_is_asked_speaks_as_the_others_and_knows_more(us: Identity) -> None:
    assert said(notice(us), own=Judgement("auto")) == APPROVED
    refused = Judgement("refused", (PresetError("the query measures age"),))
    assert said(notice(us), own=refused) == "would be refused: the query measures age"
    absent = notice(us, analysts={})
    assert said(absent, own=refused) == said(absent) == "would be refused: it has not enrolled you"


@pytest.mark.parametrize(
    "change",
    [
        {"presets": {}},
        {"budget": {}},
        {"budget": {"other_projects": "1e999999999", "per_analyst": None}},
        {"rules": None},
        {"analysts": 1, "greatest_epsilon": 1},
    ],
)
def test_a_policy_in_another_form_is_not_known(us: Identity, change: dict[str, Any]) -> None:
    usual = notice(us, projects={})
    policy = {**usual.published.policy, **change}
    strange = usual.model_copy(update={"published": usual.published.model_copy(update={"policy": policy})})
    assert said(strange) == "not known: the party publishes its policy in another form"
