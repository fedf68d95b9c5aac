"""What a release costs and what a policy leaves for it, in the words of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import floor
from typing import Final

from mpc_engine.dp import parse_delta, parse_epsilon
from mpc_engine.dp.accounting import Guarantee
from mpc_engine.identity.trust import Terms
from mpc_engine.ledger.charge import DELTA_BITS, MICRO, Charge, Limit, Scope
from mpc_engine.ledger.rows import Spending
from mpc_engine.party.policy import Policy

NO_RECORDS: Final = "(no records)"
"""What stands for the data set in the ledger of a party that has none."""


def charge_of(guarantee: Guarantee) -> Charge:
    """Return what one release costs.

    Under the rule ``exact`` there is no δ and ε bounds the noise only; it is charged all the same.
    """
    return Charge.of(guarantee.epsilon, guarantee.delta)


def limits(
    policy: Policy, dataset: str, project: str, analyst: str, terms: Terms | None = None
) -> tuple[Limit, ...]:
    """Return the budgets that a release of ``analyst`` for ``project`` on ``dataset`` is held to.

    One for each scope, also where nothing is limited, so that the ledger adds up what is spent there. The
    analyst's own enrolment goes before the policy's ``per_analyst``. ``analyst`` is a name, which stays when
    keys are renewed; ``dataset`` is "" at a helper, which counts what it took part in all the same. Limits
    are rounded down, as charges are rounded up.
    """
    budget = policy.budget
    per_analyst, per_analyst_delta = budget.per_analyst, None
    if terms is not None:
        per_analyst = parse_epsilon(terms.budget)
        per_analyst_delta = None if terms.delta is None else parse_delta(terms.delta)
    return (
        _limit(Scope("analyst", analyst), per_analyst, per_analyst_delta),
        _limit(Scope("project", project), budget.projects.get(project, budget.other_projects), None),
        _limit(Scope("dataset", dataset or NO_RECORDS), budget.epsilon, budget.delta),
    )


def standing_limits(
    policy: Policy, dataset: str, terms: Mapping[str, Terms], spendings: Iterable[Spending] = ()
) -> tuple[Limit, ...]:
    """Return all budgets that a party keeps: of the data set, then of projects, then of analysts.

    Projects are those that the policy names, and analysts those of ``terms``, who are enrolled, by name;
    further ones are taken from what was spent.
    """
    rows = tuple(spendings)
    projects = sorted({*policy.budget.projects, *(row.project for row in rows)} - {""})
    analysts = sorted({*terms, *(row.analyst_name for row in rows)} - {""})
    return (
        limits(policy, dataset, "", "")[2],
        *(limits(policy, dataset, name, "")[1] for name in projects),
        *(limits(policy, dataset, "", name, terms.get(name))[0] for name in analysts),
    )


def _limit(scope: Scope, epsilon: Fraction | None, delta: Fraction | None) -> Limit:
    return Limit(
        scope,
        None if epsilon is None else floor(epsilon * MICRO),
        None if delta is None else floor(delta * (1 << DELTA_BITS)),
    )
