"""What each party would say of a question and has left for it, as far as it has published that.

The party that is asked knows who asks, by card, and what is left of every budget. Of the others it has what
they publish: policies, what is left of their data sets and of the projects that they name, and the names of
those whom they enrolled. A name is no card: of somebody's enrolment and budget elsewhere nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Any, Final

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.identity import Analyst, Terms
from mpc_engine.ledger.charge import MICRO, Charge, ScopeKind
from mpc_engine.ledger.rows import BudgetRow
from mpc_engine.party.judgement import Judgement, judge
from mpc_engine.party.lines import Notice
from mpc_engine.party.messages import Amounts, Remaining
from mpc_engine.party.policy import Policy, PolicyDocument
from mpc_engine.party.proposal import Proposal
from mpc_engine.statistics.presets import presets
from mpc_engine.statistics.query import Query

_NUMBER: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40}|/[1-9][0-9]{0,39})?")
_JUDGED: Final = (
    "greatest_epsilon",
    "least_threshold",
    "rules",
    "greatest_delta",
    "greatest_chance_for_nobody",
    "columns",
    "other_columns",
    "most_cells",
    "shortest_interval_days",
    "finest_bin",
    "most_records_per_patient",
    "analysts",
)
"""What a judgement needs of a published policy beside presets and budget, which have another form in it."""
_MAY_BE_NULL: Final = ("columns", "most_cells", "shortest_interval_days", "most_records_per_patient")
_FORM: Final = "not known: the party publishes its policy in another form"
_UNTOUCHED: Final = ". No count was shared"
"""What refusals of a request end with, and those of a question that nobody handed in need not."""


@dataclass(frozen=True)
class Asked:
    """A question that has not been handed in: who would ask it for which project, and what it would take.

    ``charge`` is what would be debited, None where a stored release answers; ``thresholds`` are the parties'
    least k, by name; ``analyst`` is enrolled at the party that is asked.
    """

    query: Query
    codebook: Codebook
    proposal: Proposal
    analyst: Analyst
    project: str
    charge: Charge | None
    thresholds: Mapping[str, int]

    @property
    def for_own_project(self) -> bool:
        """Whether the analyst is enrolled for the project; what is left of another is not told."""
        projects = self.analyst.terms.projects
        return projects is None or self.project in projects

    def judged(self, policy: Policy, name: str, *, silo: bool, terms: Terms | None) -> Judgement:
        """Return what a party's policy says of the question."""
        return judge(
            policy,
            self.query,
            self.codebook,
            self.proposal,
            name=name,
            analyst=self.analyst.name,
            project=self.project,
            terms=terms,
            silo=silo,
            thresholds=self.thresholds,
        )


def own_verdict(judgement: Judgement, budgets: Sequence[BudgetRow], charge: Charge | None) -> str:
    """Return what this party would say of a question in words, from its own judgement and its ledger."""
    if judgement.verdict == "refused":
        return _refused(judgement)
    short = _short({row.scope.kind: _left(row) for row in budgets}, charge)
    if short:
        return short
    return "needs an operator" if judgement.verdict == "manual" else "would be approved automatically"


def verdict(notice: Notice | None, asked: Asked) -> str:
    """Return what another party would say of a question in words, with the conditions that it rests on."""
    if notice is None:
        return "not known: the party has not been connected yet"
    fields, name = notice.published.policy, asked.analyst.name
    try:
        approval, policy = fields["presets"][asked.query.preset], _policy(fields)
        left = _published(notice, asked, fields["budget"])
        conditions = _conditions(notice, asked, policy, fields["budget"])
    except (DocumentError, KeyError, TypeError, ValueError):
        return _FORM
    if approval not in ("auto", "manual", "never") or policy.analysts is None:
        return _FORM
    if policy.analysts == "enrolled" and name not in notice.analysts:
        return "would be refused: it has not enrolled you"
    # Whom it enrolled with which terms is not published; what else it would refuse is.
    judgement = asked.judged(replace(policy, analysts="any"), notice.published.party, silo=True, terms=None)
    if judgement.verdict == "refused":
        return _refused(judgement)
    short = _short(left, asked.charge)
    if short:
        return short
    if not asked.for_own_project:
        return "not known: the project is not one of your enrolment"
    said = "needs an operator" if approval == "manual" else "would be approved automatically"
    return f"{said}{' if ' if conditions else ''}{' and '.join(conditions)}"


def own_remaining(budgets: Sequence[BudgetRow], asked: Asked, *, silo: bool) -> Remaining:
    """Return what is left of this party's budgets for a question; a helper keeps none of a data set."""
    left = {row.scope.kind: _left(row) for row in budgets}
    return Remaining(
        dataset=left["dataset"] if silo else None,
        project=left["project"] if asked.for_own_project else None,
        analyst=left["analyst"],
    )


def remaining(notice: Notice | None, asked: Asked) -> Remaining:
    """Return what another party has published of what is left of its budgets for a question.

    Not the analyst's: it is published by name, and another may bear the name there.
    """
    if notice is None:
        return Remaining()
    project = notice.projects.get(asked.project) if asked.for_own_project else None
    return Remaining(dataset=notice.dataset, project=project)


# --- within ---------------------------------------------------------------------------------------


def _policy(fields: Mapping[str, Any]) -> Policy:
    """Return the policy that another party has published, without its budget.

    Presets that this engine does not have are left out. Raises DocumentError, KeyError and TypeError.
    """
    if not isinstance(fields["presets"], Mapping):
        raise TypeError("presets is not a table")
    known = {name: how for name, how in fields["presets"].items() if name in presets()}
    document = {key: fields[key] for key in _JUDGED if fields[key] is not None or key not in _MAY_BE_NULL}
    return parse({**document, "presets": known}, PolicyDocument, "policy").policy()


def _published(notice: Notice, asked: Asked, budget: Mapping[str, Any]) -> dict[ScopeKind, Amounts | None]:
    """Return the most that may be left of each of a party's budgets; None where that is not bounded."""
    left: dict[ScopeKind, Amounts | None] = {"dataset": notice.dataset}
    if asked.for_own_project:
        left["project"] = notice.projects.get(asked.project) or _limit(budget, "other_projects")
    if asked.analyst.name not in notice.analysts:
        left["analyst"] = _limit(budget, "per_analyst")
    return left


def _conditions(notice: Notice, asked: Asked, policy: Policy, budget: Mapping[str, Any]) -> list[str]:
    """Return what must hold for a party's approval beside what it has published."""
    named, found, whose = asked.analyst.name in notice.analysts, [], []
    if policy.analysts == "enrolled":
        found.append("it has enrolled you for this")
    elif named:
        found.append("no enrolment there limits you")
    if asked.charge is not None:
        if named or budget["per_analyst"] is not None:
            whose.append("your")
        if asked.project not in notice.projects and budget["other_projects"] is not None:
            whose.append("the project's")
    if whose:
        found.append(f"enough is left of {' and '.join(whose)} budget there")
    return found


def _refused(judgement: Judgement) -> str:
    return f"would be refused: {str(judgement.reasons[0]).removesuffix(_UNTOUCHED)}"


def _short(left: Mapping[ScopeKind, Amounts | None], charge: Charge | None) -> str:
    """Return the refusal for budgets that do not suffice for a charge, "" if all do."""
    if charge is None:
        return ""
    kinds: tuple[tuple[ScopeKind, str], ...] = (
        ("dataset", "data set"),
        ("project", "project"),
        ("analyst", "analyst"),
    )
    found = []
    for kind, words in kinds:
        amount = left.get(kind)
        if amount is not None and not _covers(amount, charge):
            found.append(f"{words}: {amount.words}")
    return f"would be refused: not enough budget is left ({'; '.join(found)})" if found else ""


def _left(row: BudgetRow) -> Amounts:
    delta = row.remaining_delta
    return Amounts(micro_epsilon=row.remaining_micro_epsilon, delta=None if delta is None else str(delta))


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
