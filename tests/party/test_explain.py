"""What an operator is told of a request before deciding about it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from mpc_engine.dp import table_for_counts
from mpc_engine.dp.accounting import publication_probability
from mpc_engine.ledger.charge import NOTHING, Charge
from mpc_engine.ledger.rows import BudgetRow
from mpc_engine.party.account import limits
from mpc_engine.party.explain import Asker, Earlier, _half_width, explain_request, likeness
from mpc_engine.party.overview import printable, title_of
from mpc_engine.party.policy import BudgetLimits, Policy
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.statistics.query import Query
from tests.party.questions import (
    ALL,
    BOOK,
    COUNT,
    CROSSTAB,
    HISTOGRAM,
    MEMBERS,
    SURVIVAL,
    query,
    where,
)

POLICY = Policy("1", 5, budget=BudgetLimits(Fraction(10), None, Fraction(2)))
ASKER = Asker("ada", "colon", "2026-11-22T03:00:00Z", "us")


def rows(spent: str = "0", held: str = "0") -> list[BudgetRow]:
    """Return the budgets of a request, of which so much is spent and held."""
    gone, reserved = Charge.of(Fraction(spent), None), Charge.of(Fraction(held), None)
    return [
        BudgetRow(each.scope, gone, reserved, each) for each in limits(POLICY, "wilms-uk", "colon", "ada")
    ]


def told(asked: Query, **context: Any) -> list[tuple[str, str]]:
    """Return the explanation of a request."""
    members = context.pop("members", MEMBERS)
    plan = propose(asked, BOOK, members).plan(max(5, asked.privacy.threshold))
    given: dict[str, Any] = {"remaining": rows(), "asker": ASKER} | context
    remaining = given.pop("remaining")
    return list(explain_request(asked, BOOK, plan, POLICY, remaining, **given))


def text(asked: Query, **context: Any) -> str:
    """Return the explanation as one text."""
    return "\n".join(line for _, line in told(asked, **context))


@pytest.mark.parametrize("fields", ALL)
def test_every_preset_is_explained(fields: dict[str, Any]) -> None:
    lines = told(query(fields))
    assert lines[0] == ("head", "ada, for the project colon")
    heads = [line for style, line in lines if style == "head"]
    assert heads[1:5] == [
        "Whose records",
        "What would be opened",
        "What hides small numbers",
        "What it costs",
    ]
    assert all(line and line.isprintable() for _, line in lines)
    assert f"Preset {fields['preset']}: " in lines[1][1]


def test_who_asks_what_of_whom() -> None:
    asked = query(
        CROSSTAB, title="Stage\x1b[2J by sex", where=[where("age", 20, 40), where("stage", "I", "II")]
    )
    said = text(asked, waits=["uk has an operator look at every crosstab"])
    assert "how many records there are by sex and stage" in said
    assert "It came on 2026-11-22T03:00:00Z by way of us." in said
    assert "Those with stage I or II and age from 20 to 40 years." in said
    assert "You are asked because uk has an operator look at every crosstab." in said
    assert "\x1b" not in said and "Stage\N{REPLACEMENT CHARACTER}[2J by sex" in said
    assert "there is no filter" in text(query(CROSSTAB))


def test_what_would_be_opened() -> None:
    said = text(query(CROSSTAB))
    assert "Cells: 8 numbers of records: sex (2) × stage (4)." in said
    assert "at most 8 in all" in said
    curve = text(query(SURVIVAL))
    assert (
        "Strata: 2 groups: sex (2). In each that is shown: patients (1 number) and outcomes (11 numbers)."
        in curve
    )
    assert "all its numbers are, those below 5 too" in curve
    assert "those below" not in said
    period = {"approach": "period", "diagnosed": "diagnosed", "window": ["2005-01-01", "2006-12-31"]}
    windowed = text(query(SURVIVAL, **period))
    assert "Only follow-up from 2005-01-01 to 2006-12-31 counts." in windowed


def test_what_hides_small_numbers() -> None:
    plan = propose(query(COUNT), BOOK, MEMBERS).plan(5)
    chance = float(100 * publication_probability(plan.guarantee, 4))
    said = text(query(COUNT))
    assert f"4 with {chance:.1f}%" in said and "k = 5 (your least)" in said
    assert "another party's least" in text(query(COUNT, privacy={"epsilon": "1", "threshold": 9}))
    exact = told(query(COUNT, privacy={"epsilon": "1", "rule": "exact"}))
    assert any("not differential privacy" in line for _, line in exact)
    assert any(style == "warn" and line.startswith("Rule exact") for style, line in exact)
    strict = text(query(COUNT, privacy={"epsilon": "1", "rule": "strict", "delta": "1e-6"}))
    assert "nor one whose noisy number is below 19" in strict


@pytest.mark.parametrize("epsilon", ["0.1", "1", "3", "20"])
def test_the_half_width_holds_95_of_100(epsilon: str) -> None:
    table = table_for_counts(Fraction(epsilon))
    half = _half_width(table)

    def beyond(x: int) -> Fraction:
        return 1 - sum((table.probability(each) for each in range(-x, x + 1)), Fraction(0))

    assert beyond(half) <= Fraction(5, 100)
    assert half == 0 or beyond(half - 1) > Fraction(5, 100)


def test_what_it_costs_and_what_remains() -> None:
    lines = told(query(COUNT), remaining=rows("1.5", "0.25"))
    assert (
        "warn",
        'analyst "ada": ε = 0.25 of 2 is left, not enough (0.25 held for sessions under way)',
    ) in lines
    assert any(
        line.startswith('data set "wilms-uk": ε = 8.25 of 10 is left, 7.25 afterwards') for _, line in lines
    )
    assert any(line.startswith('project "colon": without limit; ε = 2.5 would be spent') for _, line in lines)
    fits = told(query(COUNT), remaining=rows("1"))
    assert ("text", 'analyst "ada": ε = 1 of 2 is left, 0 afterwards') in fits


def test_delta_may_be_what_is_missing() -> None:
    strict = query(COUNT, privacy={"epsilon": "1", "rule": "strict", "delta": "1e-6"})
    limited = replace(POLICY, budget=BudgetLimits(Fraction(10), Fraction(1, 10**7)))
    dataset = limits(limited, "wilms-uk", "colon", "ada")[2]
    lines = told(strict, remaining=[BudgetRow(dataset.scope, NOTHING, NOTHING, dataset)])
    assert any(style == "warn" and "δ is not enough" in line for style, line in lines)


def test_two_silos_and_pure_noise_are_warned_of() -> None:
    warned = [line for style, line in told(query(CROSSTAB)) if style == "warn"]
    assert any("With two silos" in line for line in warned)
    assert any("protected by ε = 2 only" in line for line in warned)
    third = Member("no", True, True, "sha256:4", 1 << 20)
    three = told(query(CROSSTAB), members=(*MEMBERS[:2], third))
    assert not any("With two silos" in line for _, line in three)
    noisy = query(SURVIVAL, by=["sex", "stage", "age_group"])
    assert any(style == "warn" and "of noise alone" in line for style, line in told(noisy))


# --- earlier requests -------------------------------------------------------------------------------


def like(new: dict[str, Any], old: dict[str, Any]) -> str:
    """Return how close a crosstab is to one before it, as changes of the same query."""
    return likeness(query(CROSSTAB, **new), query(CROSSTAB, **old), BOOK)


def test_the_same_question_again() -> None:
    assert like({}, {"privacy": {"epsilon": "0.5"}, "title": "other"}).startswith("the same question")
    one, two = where("stage", "I", "II"), where("stage", "II", "I")
    assert like({"where": [one]}, {"where": [two]}).startswith("the same question")
    years, listed = where("age", 20, 22), {"variable": "age", "in": [20, 21, 22]}
    assert like({"where": [years]}, {"where": [listed]}).startswith("the same question")


@pytest.mark.parametrize(
    ("new", "old", "words"),
    [
        (
            [where("age", 20, 40)],
            [where("age", 20, 41)],
            "now age from 20 to 40 years, then age from 20 to 41",
        ),
        ([where("age", 20, 40)], [], "now also age from 20 to 40 years"),
        ([], [where("stage", "I")], "then also stage I"),
        ([where("sex", "f"), where("age", 1, 2)], [where("age", 1, 2)], "now also sex f"),
        ([where("sex", "f"), where("age", 1, 2)], [where("age", 1, 3), where("sex", "f")], "now age from 1"),
    ],
)
def test_one_condition_more_or_less_may_be_differencing(new: list[Any], old: list[Any], words: str) -> None:
    found = like({"where": new}, {"where": old})
    assert words in found and "Possible differencing" in found


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ([where("sex", "f")], [where("stage", "I")]),
        ([where("sex", "f"), where("stage", "I")], []),
        ([where("sex", "f"), where("age", 1, 2)], [where("sex", "m"), where("age", 1, 3)]),
    ],
)
def test_two_conditions_apart_are_not_named(new: list[Any], old: list[Any]) -> None:
    assert like({"where": new}, {"where": old}) == ""


def test_other_presets_and_variables_are_not_alike_but_other_bins_are() -> None:
    assert likeness(query(CROSSTAB), query(COUNT), BOOK) == ""
    assert like({"by": ["sex"]}, {}) == ""
    shifted = query(HISTOGRAM, edges=[0, 11, 20, 100])
    assert "numbers can be subtracted" in likeness(shifted, query(HISTOGRAM), BOOK)
    window = {"approach": "period", "diagnosed": "diagnosed", "window": ["2005-01-01", "2006-12-31"]}
    later = window | {"window": ["2005-01-02", "2006-12-31"]}
    assert "another window" in likeness(query(SURVIVAL, **later), query(SURVIVAL, **window), BOOK)


def test_the_latest_similar_requests_are_named() -> None:
    earlier = [
        Earlier(
            f"{number:032x}", query(CROSSTAB, where=[where("age", 20, 30 + number)]), "RELEASED", "2026-01-01"
        )
        for number in range(8)
    ]
    lines = told(
        query(CROSSTAB, where=[where("age", 20, 50)]),
        earlier=[*earlier, Earlier("f" * 32, query(COUNT), "released", "")],
    )
    named = [line for style, line in lines if style == "warn" and line.startswith("Request ")]
    assert len(named) == 5 and named[-1].startswith("Request 00000000 of 2026-01-01 (released): the same but")
    assert ("warn", "And 3 more like it.") in lines


def test_open_requests_of_others_hide_no_answer() -> None:
    def earlier(number: int, state: str, by: str) -> Earlier:
        older = query(CROSSTAB, where=[where("age", 20, 30 + number)])
        return Earlier(f"{number:08x}", older, state, "2026-01-01", by)

    lines = told(
        query(CROSSTAB, where=[where("age", 20, 50)]),
        earlier=[
            earlier(0, "RELEASED", ""),
            earlier(1, "RELEASED", "bob"),
            *(earlier(number, "PARTIALLY_REVIEWED", "bob") for number in range(2, 9)),
        ],
    )
    named = [line for style, line in lines if style == "warn" and line.startswith("Request ")]
    assert named[0].startswith("Request 00000000 of 2026-01-01 (released): ")
    assert named[1].startswith("Request 00000001 by bob of 2026-01-01 (released): ")
    assert named[2].startswith("Request 00000008 by bob of 2026-01-01 (partially reviewed): ")
    assert len(named) == 5 and ("warn", "And 4 more like it.") in lines


def test_words_of_analysts_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b]0;x\x07\u202eb\n") == "a\ufffd]0;x\ufffd\ufffdb\ufffd"
    assert title_of(query(COUNT, title="one\n two\x1b")) == "one two\ufffd"
    assert title_of(query(COUNT)) == "how many records satisfy the filters"
