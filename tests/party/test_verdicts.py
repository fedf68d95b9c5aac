"""What a party would say of a question, as far as others can tell from what it publishes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from mpc_engine.dp import Rule
from mpc_engine.errors import PresetError
from mpc_engine.identity import Analyst, Identity, Terms, throwaway_identity
from mpc_engine.ledger.charge import Charge, Limit, Scope
from mpc_engine.ledger.rows import BudgetRow
from mpc_engine.party.judgement import Judgement
from mpc_engine.party.lines import Notice
from mpc_engine.party.messages import Amounts, publish_policy
from mpc_engine.party.policy import BudgetLimits, Policy
from mpc_engine.party.proposal import propose
from mpc_engine.party.published import published
from mpc_engine.party.verdicts import Asked, own_remaining, own_verdict, remaining, verdict
from tests.party.questions import BOOK, COUNT, CROSSTAB, MEMBERS, query

ONE = Charge(10**6, 1 << 36)
POLICY = Policy("1", 5, rules=(Rule.NOISY,), budget=BudgetLimits(Fraction(10), None, Fraction(2)))
APPROVED = "would be approved automatically"
IF_ENROLLED = f"{APPROVED} if it has enrolled you for this"
USUAL = f"{IF_ENROLLED} and enough is left of your budget there"


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


def asked(
    charge: Charge | None = ONE,
    fields: dict[str, Any] = COUNT,
    projects: tuple[str, ...] | None = None,
    **asks: Any,
) -> Asked:
    """Return a question of ada's, by default a count, for the project colon."""
    terms = Terms(budget="5", projects=projects)
    what = query(fields, **asks)
    ada = Analyst("ada", (), terms)
    return Asked(what, BOOK, propose(what, BOOK, MEMBERS), ada, "colon", charge, {"us": 5})


def said(told: Notice | None, charge: Charge | None = ONE, **asks: Any) -> str:
    """Return another party's verdict on a question of ada's."""
    return verdict(told, asked(charge, **asks))


def rows(analyst: str = "5", project: str | None = "5", dataset: str = "5") -> list[BudgetRow]:
    """Return budgets in the ledger of which so much is left, of which ε = 1 was spent before."""
    nothing, one = Charge(0), Charge(10**6)
    scopes = (
        (Scope("analyst", "ada"), analyst),
        (Scope("project", "colon"), project),
        (Scope("dataset", "d"), dataset),
    )
    return [
        BudgetRow(
            scope,
            one,
            nothing,
            Limit(scope, None if left is None else int(Fraction(left) * 10**6) + 10**6, None),
        )
        for scope, left in scopes
    ]


def test_what_is_published_decides(us: Identity) -> None:
    assert said(notice(us)) == USUAL
    assert said(None) == "not known: the party has not been connected yet"
    assert said(notice(us, replace(POLICY, approval="manual"))) == USUAL.replace(
        APPROVED, "needs an operator"
    )
    refused: list[tuple[Policy, dict[str, Any], str]] = [
        (replace(POLICY, presets=("mean",)), {}, "the query is a count, but us accepts only mean"),
        (
            POLICY,
            {"privacy": {"epsilon": "1", "rule": "exact"}},
            "the query asks for rule exact, but us accepts only noisy",
        ),
        (
            POLICY,
            {"privacy": {"epsilon": "1.5"}},
            "the query asks for ε = 1.5, but us accepts at most ε = 1 in one release",
        ),
    ]
    for policy, asks, why in refused:
        assert said(notice(us, policy), **asks) == f"would be refused: {why}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"columns": {"stage": ("filter",)}, "other_columns": True},
            "groups by stage, which us allows as filter",
        ),
        (
            {"columns": {"stage": ("group",)}, "other_columns": False},
            "groups by sex, which us allows in no query",
        ),
        ({"most_cells": 5}, "asks for 8 cells, but us accepts at most 5"),
        ({"greatest_chance_for_nobody": Fraction(1, 10**6)}, "a group of nobody would be shown"),
        ({"rules": (Rule.STRICT,)}, "asks for rule noisy, but us accepts only strict"),
    ],
)
def test_every_key_that_a_party_publishes_is_judged(us: Identity, change: dict[str, Any], words: str) -> None:
    told = notice(us, replace(POLICY, **change))
    refused = said(told, fields=CROSSTAB)
    assert refused.startswith("would be refused: ") and words in refused and "No count" not in refused
    assert said(notice(us), fields=CROSSTAB) == USUAL


def test_whom_a_party_has_not_enrolled_it_refuses_unless_it_answers_anybody(us: Identity) -> None:
    assert said(notice(us, analysts={"bob": left("5")})) == "would be refused: it has not enrolled you"
    anybody = replace(POLICY, analysts="any")
    assert said(notice(us, anybody, analysts={})) == f"{APPROVED} if enough is left of your budget there"
    free = replace(anybody, budget=BudgetLimits(Fraction(10)))
    assert said(notice(us, free, analysts={})) == APPROVED
    assert said(notice(us, free)).startswith(f"{APPROVED} if no enrolment there limits you and enough")
    strict = replace(anybody, budget=BudgetLimits(Fraction(10), None, Fraction(1, 2)))
    assert said(notice(us, strict, analysts={})) == (
        "would be refused: not enough budget is left (analyst: ε = 0.5, δ without limit)"
    )


def test_nothing_is_concluded_from_a_name_alone(us: Identity) -> None:
    told = notice(us, analysts={"ada": left("0")})  # perhaps of another ada
    assert said(told) == USUAL and said(told, charge=None) == IF_ENROLLED
    found = remaining(told, asked())
    assert found.analyst is None and found.project == found.dataset == left("5")
    assert remaining(None, asked()).dataset is None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"dataset": left("0.25", 1 << 80)}, "data set: ε = 0.25, δ = 2^-20"),
        ({"dataset": left("5", 1 << 30)}, "data set: ε = 5, δ = 2^-70"),
        ({"projects": {"colon": left("0")}}, "project: ε = 0, δ without limit"),
    ],
)
def test_a_budget_that_does_not_suffice_is_named(us: Identity, told: dict[str, Any], words: str) -> None:
    assert said(notice(us, **told)) == f"would be refused: not enough budget is left ({words})"
    assert said(notice(us, **told), charge=None) == IF_ENROLLED  # served from a stored release


def test_a_budget_that_just_suffices_is_enough(us: Identity) -> None:
    enough: dict[str, Any] = {"dataset": left("1", 1 << 36), "projects": {"colon": left(None)}}
    assert said(notice(us, **enough)) == USUAL
    helper: dict[str, Any] = {"dataset": None, "projects": {}}
    assert said(notice(us, **helper)) == USUAL


def test_a_project_that_the_policy_does_not_name_has_the_limit_of_the_others(us: Identity) -> None:
    none = replace(POLICY, budget=BudgetLimits(Fraction(10), None, None, {"wilms": Fraction(3)}, Fraction(0)))
    assert "project: ε = 0" in said(notice(us, none, projects={"wilms": left("3")}))
    some = replace(POLICY, budget=BudgetLimits(Fraction(10), other_projects=Fraction(3)))
    assert said(notice(us, some, projects={})).endswith(
        "enough is left of your and the project's budget there"
    )


def test_what_is_left_of_a_project_is_told_only_within_the_enrolment(us: Identity) -> None:
    secret = notice(us, projects={"colon": left("0.125")})
    outside = asked(projects=("wilms",))
    assert remaining(secret, outside).project is None
    assert verdict(secret, outside) == "not known: the project is not one of your enrolment"
    own = own_remaining(rows(project="0.125"), outside, silo=True)
    assert own.project is None and own.dataset == own.analyst == left("5")
    within = asked(projects=("wilms", "colon"))
    assert remaining(secret, within).project == left("0.125") and "project: ε = 0.125" in verdict(
        secret, within
    )


def test_the_party_that_is_asked_knows_its_ledger() -> None:
    auto = Judgement("auto")
    assert own_verdict(auto, rows(project=None), ONE) == APPROVED
    assert own_verdict(Judgement("manual"), rows(), ONE) == "needs an operator"
    short = "would be refused: not enough budget is left (project: ε = 0.5, δ without limit)"
    assert own_verdict(auto, rows(project="0.5"), ONE) == short
    assert own_verdict(auto, rows(project="0.5"), None) == APPROVED
    refused = Judgement("refused", (PresetError("the query measures age. No count was shared"),))
    assert own_verdict(refused, rows(project="0.5"), ONE) == "would be refused: the query measures age"
    told = own_remaining(rows("1", None, "3"), asked(), silo=True)
    assert (told.analyst, told.project, told.dataset) == (left("1"), left(None), left("3"))
    assert own_remaining(rows(), asked(), silo=False).dataset is None


@pytest.mark.parametrize(
    "change",
    [
        {"presets": {}},
        {"presets": ["count"]},
        {"presets": {"count": "sometimes"}},
        {"presets": {"count": "default"}},
        {"budget": {}},
        {"budget": {"other_projects": "1e999999999", "per_analyst": None}},
        {"rules": None},
        {"columns": {"sex": ["everything"]}},
        {"analysts": None},
        {"analysts": 1, "greatest_epsilon": 1},
    ],
)
def test_a_policy_in_another_form_is_not_known(us: Identity, change: dict[str, Any]) -> None:
    usual = notice(us, projects={})
    policy = {**usual.published.policy, **change}
    strange = usual.model_copy(update={"published": usual.published.model_copy(update={"policy": policy})})
    assert said(strange) == "not known: the party publishes its policy in another form"
