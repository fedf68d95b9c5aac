"""Automatic, manual or refused: every key of a policy, and what never changes a judgement."""

from __future__ import annotations

import os
import random
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import ibis
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc_engine.dp import Rule
from mpc_engine.errors import DocumentError, PolicyError, PresetError
from mpc_engine.identity.trust import Terms
from mpc_engine.party.judgement import Use, check_codebook, check_query, uses
from mpc_engine.party.policy import Policy
from mpc_engine.silo.dates import date_pattern
from mpc_engine.statistics.query import Query
from tests.party.questions import (
    ALL,
    BOOK,
    COUNT,
    CROSSTAB,
    HISTOGRAM,
    MEAN,
    SURVIVAL,
    TERMS,
    judged,
    query,
    where,
)
from tests.party.watch import watched

OPEN = Policy("10", 1, tuple(Rule), greatest_delta=Fraction(1, 100))


def refusal(policy: Policy, fields: dict[str, Any], **terms: Any) -> PolicyError:
    """Return the one reason for which a query is refused."""
    found = judged(policy, query(fields), **terms)
    assert found.verdict == "refused"
    (reason,) = found.reasons
    assert isinstance(reason, PolicyError)
    assert "uk" in str(reason) and "No count was shared" in str(reason)
    return reason


@pytest.mark.parametrize("fields", ALL)
def test_an_open_policy_answers_every_preset_at_once(fields: dict[str, Any]) -> None:
    found = judged(OPEN, query(fields))
    assert (found.verdict, found.reasons, found.waits) == ("auto", (), ())
    found.check()


def test_a_preset_may_wait_for_an_operator_or_be_ruled_out() -> None:
    policy = replace(OPEN, presets=("count", "mean"), approvals={"count": "manual"})
    waits = judged(policy, query(COUNT))
    assert waits.verdict == "manual" and "uk has an operator look at every count" in waits.waits[0]
    assert judged(policy, query(MEAN)).verdict == "auto"
    reason = refusal(policy, SURVIVAL)
    assert isinstance(reason, PresetError) and "accepts only count, mean" in str(reason)
    with pytest.raises(PresetError):
        judged(policy, query(SURVIVAL)).check()


# --- columns ----------------------------------------------------------------------------------------


def roles(fields: dict[str, Any], **changed: Any) -> set[tuple[str, str]]:
    """Return the uses of a query's variables as pairs."""
    return {(use.variable, use.role) for use in uses(query(fields, **changed), BOOK)}


def test_the_uses_of_every_preset() -> None:
    assert roles(COUNT) == set()
    assert roles(COUNT, where=[where("age_group", "70+")]) == {("age_group", "filter")}
    assert roles(CROSSTAB) == {("sex", "group"), ("stage", "group")}
    assert roles(HISTOGRAM, by=["age_group"]) == {("age", "value"), ("age_group", "group")}
    assert roles(MEAN) == {("stage", "group"), ("age", "value")}
    assert roles(SURVIVAL) == {("sex", "group"), ("days", "value"), ("status", "value")}
    window = {"diagnosed": "diagnosed", "window": ["2005-01-01", "2006-12-31"]}
    period = roles(SURVIVAL, approach="period", **window)
    assert period == {("sex", "group"), ("days", "value"), ("status", "value"), ("diagnosed", "filter")}
    cohort = roles(SURVIVAL, approach="cohort", followed_until="2015-12-31", **window)
    assert cohort == period


def test_what_a_layout_reads_beyond_what_the_query_names_is_a_use_too() -> None:
    asked = query(COUNT)
    layout = query(SURVIVAL, where=[where("age", 10, 20)]).layout(BOOK)
    assert asked.where == ()
    narrowed = replace(layout, groups=(), recipes=(), follow_up=layout.follow_up)
    found = set(uses(asked, BOOK, narrowed))
    assert {Use("days", "value"), Use("status", "value"), Use("age", "filter")} <= found


def test_a_column_is_used_in_the_ways_allowed_only() -> None:
    policy = replace(OPEN, columns={"sex": ("group",), "stage": ("filter",), "age": ()})
    assert "groups by stage, which uk allows as filter only (`columns`)" in str(refusal(policy, CROSSTAB))
    assert "measures age, which uk allows in no query" in str(refusal(policy, HISTOGRAM))
    by_sex = CROSSTAB | {"by": ["sex"]}
    assert judged(policy, query(by_sex, where=[where("stage", "I")])).verdict == "auto"
    assert "filters by sex" in str(refusal(policy, by_sex | {"where": [where("sex", "f")]}))


def test_a_band_follows_its_variable_unless_it_is_listed_itself() -> None:
    by_band = CROSSTAB | {"by": ["age_group"]}
    never = replace(OPEN, columns={"age": ()})
    assert "groups by age_group, which uk allows in no query (`columns`)" in str(refusal(never, by_band))
    bands = replace(OPEN, columns={"age": (), "age_group": ("group",)})
    assert judged(bands, query(by_band)).verdict == "auto"
    assert "measures age" in str(refusal(bands, HISTOGRAM))


def test_other_columns_may_be_closed() -> None:
    closed = replace(OPEN, columns={"sex": ("group",)}, other_columns=False)
    assert "groups by stage, which uk allows in no query (`other_columns`)" in str(refusal(closed, CROSSTAB))
    assert judged(replace(closed, other_columns=True), query(CROSSTAB)).verdict == "auto"
    with pytest.raises(PresetError, match="groups by stage"):
        check_query(closed, "uk", query(CROSSTAB), BOOK)
    check_query(closed, "uk", query(COUNT), BOOK)


def test_a_policy_that_names_what_the_codebook_lacks_is_refused() -> None:
    check_codebook(replace(OPEN, columns={"age": ()}, finest_bin={"age": 5}), BOOK)
    for policy, words in (
        (replace(OPEN, columns={"postcod": ()}), "policy.columns.postcod"),
        (replace(OPEN, finest_bin={"agee": 5}), "policy.finest_bin.agee"),
        (replace(OPEN, finest_bin={"sex": 5}), "not an integer"),
        (replace(OPEN, finest_bin={"age_group": 5}), "not an integer"),
    ):
        with pytest.raises(DocumentError, match=words):
            check_codebook(policy, BOOK)


# --- grids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "verdict"), [(9, "refused"), (10, "auto")])
def test_the_cells_of_all_parts_count(limit: int, verdict: str) -> None:
    totals = query(CROSSTAB, by=["stage", "sex"], totals=False)
    assert judged(replace(OPEN, most_cells=8), totals).verdict == "auto"
    assert judged(replace(OPEN, most_cells=7), totals).verdict == "refused"
    histogram = query(HISTOGRAM, edges=[0, 20, 30, 40, 50, 60, 70, 80, 90, 100])
    assert judged(replace(OPEN, most_cells=limit), histogram).verdict == verdict  # nine bins, unknown


@pytest.mark.parametrize(
    ("grid", "days", "verdict"),
    [
        ({"unit": "years", "every": 1, "until": 5}, 365, "auto"),
        ({"unit": "years", "every": 1, "until": 5}, 366, "refused"),
        ({"unit": "months", "every": 1, "until": 24}, 30, "auto"),
        ({"unit": "months", "every": 1, "until": 24}, 31, "refused"),
        ({"unit": "days", "edges": [100, 101, 300]}, 2, "refused"),
        ({"unit": "days", "edges": [1, 300]}, 1, "auto"),
        ({"unit": "days", "edges": [1, 300]}, 2, "refused"),
        ({"unit": "years", "expected_cases": 5000, "until": 5}, 31, "refused"),
    ],
)
def test_the_shortest_interval(grid: dict[str, Any], days: int, verdict: str) -> None:
    policy = replace(OPEN, shortest_interval_days=days)
    assert judged(policy, query(SURVIVAL, grid=grid)).verdict == verdict


@pytest.mark.parametrize(
    ("fields", "finest", "verdict"),
    [
        (HISTOGRAM, 10, "auto"),
        (HISTOGRAM, 11, "refused"),
        (HISTOGRAM | {"edges": [20, 40, 98]}, 2, "auto"),
        (HISTOGRAM | {"edges": [20, 40, 99]}, 2, "refused"),  # "≥ 99" is one value
        (HISTOGRAM | {"edges": [1, 40, 90]}, 2, "refused"),  # "< 1" is one value
        (HISTOGRAM | {"edges": [0, 95, 200]}, 6, "refused"),  # 95 to 99 are five
        (HISTOGRAM | {"edges": [-5, 200]}, 100, "auto"),
        (CROSSTAB | {"by": ["age"]}, 2, "refused"),
        (CROSSTAB | {"by": ["age"]}, 1, "auto"),
        (CROSSTAB | {"by": ["age_group"]}, 100, "auto"),  # bands are the codebook's, agreed by all
        (MEAN, 50, "auto"),
    ],
)
def test_the_finest_bin(fields: dict[str, Any], finest: int, verdict: str) -> None:
    assert judged(replace(OPEN, finest_bin={"age": finest}), query(fields)).verdict == verdict


def test_the_cap_on_records() -> None:
    capped = COUNT | {"privacy": {"epsilon": "1", "max_records_per_patient": 3}}
    assert judged(replace(OPEN, most_records_per_patient=3), query(capped)).verdict == "auto"
    assert "up to 3 records" in str(refusal(replace(OPEN, most_records_per_patient=2), capped))


# --- privacy, analysts, engines ---------------------------------------------------------------------


def test_privacy_parameters() -> None:
    strict = {"epsilon": "2", "rule": "strict", "delta": "1e-6"}
    assert "at most ε = 1" in str(refusal(replace(OPEN, greatest_epsilon="1"), COUNT | {"privacy": strict}))
    small = replace(OPEN, greatest_delta=Fraction(1, 10**7))
    assert "δ = 1e-06" in str(refusal(small, COUNT | {"privacy": strict}))
    noisy = replace(OPEN, rules=(Rule.NOISY,))
    assert "rule strict" in str(refusal(noisy, COUNT | {"privacy": strict}))
    weak = SURVIVAL | {"privacy": {"epsilon": "1", "weights": {"patients": 1, "outcomes": 20}}}
    assert "so little of ε" in str(refusal(replace(OPEN, greatest_chance_for_nobody=Fraction(1, 3)), weak))


def test_the_chance_is_taken_at_the_largest_k_that_is_known() -> None:
    policy = replace(OPEN, greatest_chance_for_nobody=Fraction(1, 100))
    low = COUNT | {"privacy": {"epsilon": "1", "threshold": 1}}
    assert judged(policy, query(low)).verdict == "refused"
    assert judged(policy, query(low), thresholds={"us": 20}).verdict == "auto"
    assert judged(replace(policy, least_threshold=20), query(low)).verdict == "auto"


def test_a_k_beyond_all_bounds_is_blamed_on_whoever_asks_for_it() -> None:
    impossible = replace(OPEN, least_threshold=1 << 29)
    assert "uk accepts no k below 536870912" in str(refusal(impossible, COUNT))


def test_every_reason_is_given() -> None:
    policy = replace(OPEN, presets=("count",), columns={"sex": ()}, most_cells=3, rules=(Rule.STRICT,))
    found = judged(policy, query(CROSSTAB), terms=None)
    assert found.verdict == "refused" and len(found.reasons) == 5
    assert {type(reason) for reason in found.reasons} == {PolicyError, PresetError}


def test_whose_requests_are_answered_and_what_their_enrolment_says() -> None:
    assert "ada is not one" in str(refusal(OPEN, COUNT, terms=None))
    assert judged(OPEN, query(COUNT), terms=None, silo=False).verdict == "auto"
    assert judged(replace(OPEN, analysts="any"), query(COUNT), terms=None).verdict == "auto"
    assert judged(replace(OPEN, analysts="enrolled"), query(COUNT), terms=None, silo=False).reasons
    narrow = Terms(budget="1", presets=("crosstab",), projects=("lung",))
    found = judged(OPEN, query(COUNT), terms=narrow)
    assert [type(reason) for reason in found.reasons] == [PresetError, PolicyError]
    assert "project 'colon'" in str(found.reasons[1])


# --- properties -------------------------------------------------------------------------------------

VERDICTS = ("refused", "manual", "auto")
PRESETS = ("count", "crosstab", "histogram", "mean", "survival")
QUERIES = [
    query(fields, **changed)
    for fields in ALL
    for changed in ({}, {"where": [where("age", 20, 40)]}, {"privacy": {"epsilon": "2", "threshold": 2}})
] + [
    query(COUNT, privacy={"epsilon": "1", "rule": "strict", "delta": "1e-6"}),
    query(CROSSTAB, privacy={"epsilon": "1", "rule": "exact", "max_records_per_patient": 2}),
    query(SURVIVAL, grid={"unit": "months", "every": 1, "until": 24}),
]


KEYS: dict[str, tuple[Any, ...]] = {
    "greatest_epsilon": ("0.5", "1", "2"),
    "rules": ((Rule.STRICT,), (Rule.STRICT, Rule.NOISY), tuple(Rule)),
    "greatest_delta": (Fraction(1, 10**9), Fraction(1, 10**5)),
    "greatest_chance_for_nobody": (Fraction(1, 1000), Fraction(1, 5), Fraction(1)),
    "approval": ("manual", "auto"),
    "other_columns": (False, True),
    "most_cells": (1, 8, 40, None),
    "shortest_interval_days": (400, 30, None),
    "finest_bin": ({"age": 11}, {"age": 10}, {}),
    "most_records_per_patient": (1, 2, None),
    "analysts": ("enrolled", "any"),
    "presets": ((), ("count", "mean"), PRESETS, None),
    "approvals": (dict.fromkeys(PRESETS, "manual"), {"count": "manual"}, {}),
    "columns": (
        {"age": (), "sex": ("filter",)},
        {"age": ("filter",), "sex": ("group", "filter")},
        {"age": ("filter", "value", "group"), "sex": ("group", "filter")},
    ),
}
"""The values of each key, from the strictest to the laxest."""


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """Return two policies of which the second allows in every key at least what the first does.

    They are strict in a few keys only: in more, they would refuse everything alike.
    """
    chosen = draw(st.sets(st.sampled_from(sorted(KEYS)), max_size=3))
    sides: list[dict[str, Any]] = [{}, {}]
    for key, values in KEYS.items():
        places = [len(values) - 1] * 2
        if key in chosen:
            places = sorted(draw(st.integers(0, len(values) - 1)) for _ in places)
        for side, place in zip(sides, places, strict=True):
            side[key] = values[place]
    threshold = draw(st.sampled_from((1, 5, 20)))
    strict, lax = (Policy(least_threshold=threshold, **side) for side in sides)
    return strict, lax


@pytest.mark.parametrize("key", KEYS)
def test_each_key_alone_only_ever_allows_more(key: str) -> None:
    lax = {name: values[-1] for name, values in KEYS.items()}
    policies = [Policy(least_threshold=5, **(lax | {key: value})) for value in KEYS[key]]
    told = set()
    for asked, terms in product(QUERIES, (None, TERMS)):
        ranks = [VERDICTS.index(judged(policy, asked, terms=terms).verdict) for policy in policies]
        assert ranks == sorted(ranks)
        told.add(tuple(ranks))
    assert any(ranks[0] < ranks[-1] for ranks in told) or key == "other_columns", "the key decides nothing"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(), st.sampled_from(QUERIES), st.sampled_from((None, TERMS)))
def test_relaxing_a_policy_never_makes_it_refuse(
    policies: tuple[Policy, Policy], asked: Query, terms: Terms | None
) -> None:
    strict, lax = (judged(policy, asked, terms=terms) for policy in policies)
    assert VERDICTS.index(strict.verdict) <= VERDICTS.index(lax.verdict)
    assert len(lax.reasons) <= len(strict.reasons)


FORBIDDEN: dict[str, Callable[[], object]] = {
    "a file": lambda: open(__file__).close(),
    "a path": lambda: Path(__file__).read_text(encoding="utf-8"),
    "a descriptor": lambda: os.close(os.open(__file__, os.O_RDONLY)),
    "whether a file is there": lambda: Path(__file__).exists(),
    "a folder": lambda: os.listdir("."),
    "a folder's entries": lambda: list(os.scandir(".")),
    "a database": lambda: sqlite3.connect(":memory:").close(),
    "the working folder": lambda: os.getcwd(),
    "records": lambda: ibis.table({"age": "int64"}, name="records"),
    "a table": lambda: pandas.DataFrame({"age": [1]}),
    "what a silo does": lambda: date_pattern("%Y"),
    "a socket": lambda: socket.socket().close(),
    "another program": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "the time": lambda: time.time(),
    "a timer": lambda: time.monotonic(),
    "date and time": lambda: datetime.now(UTC),
    "today": lambda: date.today(),
    "entropy": lambda: os.urandom(1),
    "a secret": lambda: secrets.token_bytes(1),
    "a random number": lambda: random.random(),
    "a drawn number": lambda: random.randint(1, 6),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_watch_tells_of_whatever_else_is_looked_at(what: str) -> None:
    with watched() as told:
        FORBIDDEN[what]()
    assert told


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(), st.sampled_from(QUERIES))
def test_a_judgement_follows_from_its_inputs_alone(policies: tuple[Policy, Policy], asked: Query) -> None:
    def said(policy: Policy) -> object:
        found = judged(policy, asked)
        return found.verdict, sorted(map(str, found.reasons)), found.waits

    policy = policies[0]
    turned = replace(
        policy,
        approvals=dict(reversed(policy.approvals.items())),
        columns=None if policy.columns is None else dict(reversed(policy.columns.items())),
    )
    with watched() as told:
        first, again, other = said(policy), said(policy), said(turned)
    assert not told, "a judgement looked at something else"
    assert first == again == other
