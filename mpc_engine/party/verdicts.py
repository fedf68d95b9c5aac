"""What each party would say of a question and has left for it, as far as it has published that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from math import floor
from typing import Any, Final

from mpc_engine.dp import Rule
from mpc_engine.ledger.charge import MICRO, Charge
from mpc_engine.party.judgement import Judgement
from mpc_engine.party.lines import Notice
from mpc_engine.party.messages import Amounts, Remaining
from mpc_engine.statistics.query import Query

_NUMBER: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40}|/[1-9][0-9]{0,39})?")


def verdict(
    notice: Notice | None,
    query: Query,
    analyst: str,
    project: str,
    charge: Charge | None,
    own: Judgement | None = None,
) -> str:
    """Return what a party would say of a question of ``analyst`` for ``project``, in words alike for all.

    ``charge`` is what would be debited, None for a question that a stored release answers; ``own`` is what
    this party itself judges, which knows more than its notice says.
    """
    if notice is None:
        return "not known: the party has not been connected yet"
    try:
        refusal = _refusal(notice, query, analyst, project, charge)
        approval = notice.published.policy["presets"][query.preset]
    except (KeyError, TypeError, ValueError):
        return "not known: the party publishes its policy in another form"
    if not refusal and own is not None and own.verdict == "refused":
        refusal = str(own.reasons[0])
    if refusal:
        return f"would be refused: {refusal}"
    if approval == "manual":
        return "needs an operator"
    return f"would be approved automatically{', as far as published' if own is None else ''}"


def remaining(notice: Notice | None, project: str, analyst: str) -> Remaining:
    """Return what is left of a party's budgets for an analyst's question."""
    if notice is None:
        return Remaining()
    return Remaining(
        dataset=notice.dataset,
        project=notice.projects.get(project),
        analyst=notice.analysts.get(analyst),
    )


def _refusal(notice: Notice, query: Query, analyst: str, project: str, charge: Charge | None) -> str:
    """Return why a party must refuse, "" if nothing that it publishes tells so."""
    policy, rule = notice.published.policy, Rule(query.privacy.rule).value
    if policy["analysts"] == "enrolled" and analyst not in notice.analysts:
        return "it has not enrolled you"
    if policy["presets"][query.preset] == "never":
        return f"the preset {query.preset} is not allowed"
    if rule not in policy["rules"]:
        return f"the rule {rule} is not allowed"
    if query.privacy.epsilon_exact > _number(policy["greatest_epsilon"]):
        return f"ε is at most {policy['greatest_epsilon']}"
    if charge is None:
        return ""
    budget = policy["budget"]
    left = {
        "data set": notice.dataset,
        "project": notice.projects.get(project) or _limit(budget, "other_projects"),
        "analyst": notice.analysts.get(analyst) or _limit(budget, "per_analyst"),
    }
    short = [f"{kind}: {each.words}" for kind, each in left.items() if each and not _covers(each, charge)]
    return f"not enough budget is left ({'; '.join(short)})" if short else ""


def _limit(budget: Mapping[str, Any], key: str) -> Amounts | None:
    """Return the limit of a budget of which it is not published what is left; None without one."""
    limit = budget[key]
    return None if limit is None else Amounts(micro_epsilon=floor(_number(limit) * MICRO), delta=None)


def _number(text: Any) -> Fraction:
    """Return a number of another party, of bounded length. Raises TypeError or ValueError."""
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("not a number")
    return Fraction(text)


def _covers(left: Amounts, charge: Charge) -> bool:
    """Tell whether a charge fits into what is left."""
    epsilon = left.micro_epsilon is None or charge.micro_epsilon <= left.micro_epsilon
    return epsilon and (left.delta is None or charge.delta <= int(left.delta))
