"""Queries of a small study, and what a party says of them."""

from __future__ import annotations

from typing import Any

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.identity.trust import Terms
from mpc_engine.party.judgement import Judgement, judge
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

MEMBERS = (
    Member("uk", True, True, "sha256:1", 1 << 20),
    Member("us", True, True, "sha256:2", 1 << 20),
    Member("helper", True, False, "sha256:3", 1 << 20),
)
BOOK = parse(
    {
        "name": "study",
        "version": "1",
        "variables": {
            "sex": {"kind": "category", "categories": ["f", "m"]},
            "stage": {"kind": "category", "categories": ["I", "II", "III"], "unknown": "?"},
            "age": {"kind": "integer", "unit": "years", "lower": 0, "upper": 99, "unknown": "?"},
            "age_group": {"kind": "band", "of": "age", "cuts": [50, 70], "labels": ["<50", "50-69", "70+"]},
            "postcode": {"kind": "integer", "unit": "number", "lower": 0, "upper": 9},
            "diagnosed": {"kind": "date", "lower": "2000-01-01", "upper": "2010-12-31"},
            "days": {"kind": "integer", "unit": "days", "lower": 0, "upper": 4000},
            "status": {"kind": "category", "categories": ["alive", "dead"], "unknown": "lost"},
        },
    },
    Codebook,
    "codebook",
)
TERMS = Terms(budget="5")
PRIVACY: dict[str, Any] = {"epsilon": "1"}
COUNT: dict[str, Any] = {"preset": "count", "privacy": PRIVACY}
CROSSTAB: dict[str, Any] = {"preset": "crosstab", "by": ["sex", "stage"], "privacy": PRIVACY}
HISTOGRAM: dict[str, Any] = {
    "preset": "histogram",
    "variable": "age",
    "edges": [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
    "privacy": PRIVACY,
}
MEAN: dict[str, Any] = {"preset": "mean", "variable": "age", "by": ["stage"], "privacy": PRIVACY}
SURVIVAL: dict[str, Any] = {
    "preset": "survival",
    "time": "days",
    "event": {"variable": "status", "in": ["dead"]},
    "by": ["sex"],
    "grid": {"unit": "years", "every": 1, "until": 5},
    "privacy": PRIVACY,
}
ALL = (COUNT, CROSSTAB, HISTOGRAM, MEAN, SURVIVAL)


def query(fields: dict[str, Any], **changed: Any) -> Query:
    """Return a query with some keys changed."""
    return parse_query(fields | changed)


def where(variable: str, *items: object) -> dict[str, Any]:
    """Return a filter: ``in`` labels or ``between`` two numbers."""
    key = "in" if isinstance(items[0], str) else "between"
    return {"variable": variable, key: list(items)}


def judged(policy: Policy, asked: Query, **terms: Any) -> Judgement:
    """Return what uk says of a query of Ada's for the project colon."""
    context: dict[str, Any] = {"name": "uk", "analyst": "ada", "project": "colon", "terms": TERMS}
    return judge(policy, asked, BOOK, propose(asked, BOOK, MEMBERS), **(context | terms))
