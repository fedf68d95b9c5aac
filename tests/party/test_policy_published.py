"""What a party publishes of its policy, what there is to know of it, and the limits that follow from it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.documents import canonical
from mpc_engine.dp import Rule
from mpc_engine.identity.trust import Terms
from mpc_engine.ledger.charge import NOTHING, Charge, Scope
from mpc_engine.ledger.rows import Spending
from mpc_engine.party.account import charge_of, limits, standing_limits
from mpc_engine.party.policy import BudgetLimits, Policy
from mpc_engine.party.proposal import propose
from mpc_engine.party.published import policy_digest, published, summary, warnings
from tests.party.questions import BOOK, COUNT, MEMBERS, query

ENGINE = {"version": "1.2.0", "source": "ab" * 32}
BUDGET = BudgetLimits(
    Fraction(10), Fraction(1, 10**5), Fraction(3), {"wilms": Fraction(2), "closed": Fraction(0)}, Fraction(1)
)
CAREFUL = Policy(
    "1",
    5,
    approval="manual",
    columns={"sex": ("filter", "group"), "age": ()},
    other_columns=False,
    most_cells=1000,
    shortest_interval_days=30,
    finest_bin={"age": 5},
    budget=BUDGET,
)


def out(policy: Policy, **changed: Any) -> dict[str, Any]:
    """Return what uk publishes of a policy."""
    return published(policy, "uk", "wilms-uk", "cd" * 16, ENGINE, **changed)


def test_what_is_published_is_exact_and_has_a_digest() -> None:
    fields = out(CAREFUL)
    canonical({"policy": fields})  # neither floats nor anything else without a canonical form
    assert fields["budget"]["delta"] == "0.00001" and fields["greatest_chance_for_nobody"] == "1"
    assert fields["columns"] == {"age": [], "sex": ["group", "filter"]}
    assert fields["presets"]["mean"] == "manual"
    assert fields["analysts"] == "enrolled" and out(CAREFUL, silo=False)["analysts"] == "any"
    thirds = out(replace(CAREFUL, greatest_chance_for_nobody=Fraction(1, 3)))
    assert thirds["greatest_chance_for_nobody"] == "1/3"


def test_the_digest_changes_with_every_key_and_with_nothing_else() -> None:
    same = replace(
        CAREFUL,
        greatest_epsilon="1.0",
        columns=dict(reversed((CAREFUL.columns or {}).items())),
        rules=tuple(reversed(CAREFUL.rules)),
    )
    assert policy_digest(out(same)) == policy_digest(out(CAREFUL))
    changes: dict[str, Any] = {
        "greatest_epsilon": "1.5",
        "least_threshold": 6,
        "rules": (Rule.NOISY,),
        "greatest_delta": Fraction(1, 10**6),
        "greatest_chance_for_nobody": Fraction(1, 2),
        "presets": ("count",),
        "approval": "auto",
        "approvals": {"count": "auto"},
        "columns": None,
        "other_columns": True,
        "most_cells": None,
        "shortest_interval_days": 31,
        "finest_bin": {"age": 6},
        "most_records_per_patient": 1,
        "budget": replace(BUDGET, epsilon=Fraction(11)),
        "engines": ("0" * 64,),
        "analysts": "any",
    }
    assert set(changes) == set(Policy.__dataclass_fields__)
    digests = {policy_digest(out(replace(CAREFUL, **{key: value}))) for key, value in changes.items()}
    assert len(digests | {policy_digest(out(CAREFUL))}) == len(changes) + 1


def test_a_policy_in_words() -> None:
    words = dict(summary(out(CAREFUL)))
    assert words["data set"] == f"wilms-uk, snapshot {'cd' * 8}"
    assert words["answered at once"] == "nothing" and "survival" in words["after an operator"]
    assert words["columns"] == "age never; sex group/filter; no other"
    assert words["grids"] == (
        "at most 1,000 cells; follow-up in intervals of 30 days or more; "
        "age in categories of 5 values or more"
    )
    assert words["ε in all"] == "at most 10, δ = 0.00001"
    assert words["ε of a project"] == "closed none; wilms 2; each other 1"
    open_words = dict(summary(out(Policy("1", 5))))
    assert open_words["ε in all"] == "without limit"
    assert open_words["columns"] == "every variable, in every way"
    nobody = replace(CAREFUL, budget=BudgetLimits(other_projects=Fraction(0)))
    assert dict(summary(out(nobody)))["ε of a project"] == "none each"


def test_a_careful_policy_has_no_warnings_and_a_careless_one_has_all() -> None:
    assert warnings(out(CAREFUL), silos=3) == []
    careless = Policy("10", 1, tuple(Rule), analysts="any", engines=("0" * 64,))
    found = warnings(out(careless), silos=2)
    for words in (
        "Only 2 silos",
        "rule exact",
        "No total budget",
        "ε = 10 for one query is large",
        "k may be as small as 1",
        "answered without anybody looking",
        "Every variable may be used",
        "only another party enrolled",
        "no budget of their own",
        "other engine sources",
    ):
        assert [words in each for each in found].count(True) == 1, words
    whole = warnings(out(replace(CAREFUL, budget=replace(BUDGET, epsilon=Fraction(1)))))
    assert len(whole) == 1 and "spend the whole budget" in whole[0]


def test_a_helper_has_no_records_to_be_warned_about() -> None:
    found = warnings(out(Policy("10", 1), silo=False), silos=2)
    assert len(found) == 1 and "Only 2 silos" in found[0]
    assert dict(summary(out(Policy("10", 1), silo=False)))["data set"].startswith("none")


# --- limits -----------------------------------------------------------------------------------------


def test_limits_of_each_scope() -> None:
    analyst, project, dataset = limits(CAREFUL, "wilms-uk", "wilms", "ada")
    assert (analyst.scope, analyst.micro_epsilon, analyst.delta) == (Scope("analyst", "ada"), 3_000_000, None)
    assert (project.scope, project.micro_epsilon) == (Scope("project", "wilms"), 2_000_000)
    assert (dataset.scope, dataset.micro_epsilon) == (Scope("dataset", "wilms-uk"), 10_000_000)
    assert dataset.delta == (1 << 100) // 10**5
    assert limits(CAREFUL, "wilms-uk", "closed", "ada")[1].micro_epsilon == 0
    assert limits(CAREFUL, "wilms-uk", "another", "ada")[1].micro_epsilon == 1_000_000
    assert [each.micro_epsilon for each in limits(Policy("1", 5), "d", "p", "a")] == [None] * 3


def test_an_enrolment_goes_before_the_policy() -> None:
    terms = Terms(budget="7.5", delta="1e-9")
    analyst = limits(CAREFUL, "wilms-uk", "wilms", "ada", terms)[0]
    assert (analyst.micro_epsilon, analyst.delta) == (7_500_000, (1 << 100) // 10**9)


@given(st.fractions(0, 10), st.integers(1, 20))
def test_so_many_releases_fit_as_the_amounts_say(amount: Fraction, releases: int) -> None:
    """Charges are rounded up and limits down: never one more than exact arithmetic allows."""
    limit = limits(Policy("1", 5, budget=BudgetLimits(amount * releases)), "d", "p", "a")[2]
    charge, total, fitting = Charge.of(amount, None), NOTHING, 0
    while fitting <= releases and limit.allows(total + charge):
        total, fitting = total + charge, fitting + 1
    assert fitting <= releases or amount == 0
    if (amount * 10**6).denominator == 1 and amount:
        assert fitting == releases


def test_a_release_costs_what_it_promises() -> None:
    plan = propose(query(COUNT), BOOK, MEMBERS).plan()
    assert charge_of(plan.guarantee).micro_epsilon == 1_000_000
    assert charge_of(plan.guarantee).probability >= (plan.guarantee.delta or 0) > 0
    exact = query(COUNT, privacy={"epsilon": "0.3", "rule": "exact"})
    assert charge_of(propose(exact, BOOK, MEMBERS).plan().guarantee) == Charge(300_000, 0)


@pytest.mark.parametrize("spent", [False, True])
def test_budgets_that_a_party_keeps(spent: bool) -> None:
    rows = [Spending("t", "1" * 32, "r", "bob", "lung", NOTHING, "spent")] if spent else []
    found = standing_limits(CAREFUL, "wilms-uk", {"ada": Terms(budget="7")}, rows)
    names = [(each.scope.kind, each.scope.name, each.micro_epsilon) for each in found]
    expected = [
        ("dataset", "wilms-uk", 10_000_000),
        ("project", "closed", 0),
        ("project", "wilms", 2_000_000),
        ("analyst", "ada", 7_000_000),
    ]
    if spent:
        expected[2:2] = [("project", "lung", 1_000_000)]
        expected.append(("analyst", "bob", 3_000_000))
    assert names == expected


def test_a_helper_counts_what_it_took_part_in() -> None:
    helper = limits(Policy("1", 5), "", "colon", "ada")
    assert [each.scope.name for each in helper] == ["ada", "colon", "(no records)"]
    assert standing_limits(Policy("1", 5), "", {})[0].scope == helper[2].scope
