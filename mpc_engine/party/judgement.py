"""What a party's policy says of a request: answer at once, ask the operator, or refuse.

A judgement follows from the policy, the query and the codebook, all of them public, and from nothing else;
the same request is always judged alike, and relaxing a key of the policy never makes it refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from mpc_engine.codebook import BandVariable, Codebook, IntegerVariable
from mpc_engine.dp import Rule, publication_probability
from mpc_engine.errors import (
    DocumentError,
    EngineError,
    PolicyError,
    PresetError,
)
from mpc_engine.identity.trust import Terms
from mpc_engine.party.policy import Policy, Role
from mpc_engine.party.proposal import Proposal
from mpc_engine.release.plan import Plan
from mpc_engine.statistics.followup import FollowedUp
from mpc_engine.statistics.layout import AxisRule, EntryRule, ExitRule, Layout
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.timegrid import DAYS

Verdict = Literal["auto", "manual", "refused"]
VERDICTS: tuple[Verdict, ...] = ("refused", "manual", "auto")
"""From the strictest to the laxest."""
_UNTOUCHED = "No count was shared"


@dataclass(frozen=True)
class Judgement:
    """What a policy says of one request.

    ``reasons`` are all failures that refuse it, ``waits`` says in words why an operator must approve it.
    """

    verdict: Verdict
    reasons: tuple[EngineError, ...] = ()
    waits: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise the first reason of a refusal."""
        for reason in self.reasons:
            raise reason


def judge(
    policy: Policy,
    query: Query,
    codebook: Codebook,
    proposal: Proposal,
    *,
    name: str,
    analyst: str,
    project: str,
    terms: Terms | None,
    silo: bool = True,
    thresholds: Mapping[str, int] | None = None,
) -> Judgement:
    """Return what the policy of the party ``name`` says of a request.

    ``analyst`` is who asks, for ``project``, and ``terms`` those of their enrolment at this party, None if
    it enrolled no such analyst; ``thresholds`` are the least k of other parties, by name, where they are
    known. Raises DocumentError for a query that does not fit the codebook.

    Not judged is what is left of the budgets: the ledger does that, with the limits of
    :func:`~mpc_engine.party.account.limits`. A smaller ``least_threshold`` may refuse what a larger one
    allows, because ``greatest_chance_for_nobody`` is compared at the k that is answered with.
    """
    layout = query.layout(codebook)
    reasons: list[EngineError] = list(_enrolment(policy, name, silo, analyst, project, query.preset, terms))
    reasons += _terms(policy, name, query.preset, proposal.rule, proposal.delta)
    reasons += _columns(policy, name, query, codebook, layout)
    reasons += _grids(policy, name, query, codebook, layout)
    try:
        check_epsilon(policy.greatest_epsilon, name, proposal)
        plan = agreed_plan(proposal, {**(thresholds or {}), name: policy.least_threshold})
        reasons += _plan(policy, name, plan)
    except PolicyError as error:
        reasons.append(error)
    if reasons:
        return Judgement("refused", tuple(reasons))
    if policy.approval_of(query.preset) == "manual":
        return Judgement("manual", waits=(f"{name} has an operator look at every {query.preset}",))
    return Judgement("auto")


def check_terms(
    policy: Policy, name: str, query_fields: Mapping[str, object], rule: Rule, delta: Fraction | None
) -> None:
    """Raise PolicyError if a policy does not accept a query's preset, rule or δ."""
    for reason in _terms(policy, name, str(query_fields.get("preset")), rule, delta):
        raise reason


def check_query(policy: Policy, name: str, query: Query, codebook: Codebook) -> None:
    """Raise PolicyError if a policy does not accept how a query uses variables, or its grids.

    With `check_terms`, `check_epsilon` and `check_plan` it makes up what `judge` says of a query; it is for
    sessions that nobody submitted a request for.
    """
    layout = query.layout(codebook)
    for reason in (
        *_columns(policy, name, query, codebook, layout),
        *_grids(policy, name, query, codebook, layout),
    ):
        raise reason


def check_epsilon(greatest: str, name: str, proposal: Proposal) -> None:
    """Raise PolicyError if a proposal asks for more than the greatest ε that ``name`` accepts."""
    if proposal.epsilon > Fraction(greatest):
        raise PolicyError(
            f"the query asks for ε = {proposal.epsilon_text}, but {name} accepts at most "
            f"ε = {greatest} in one release. {_UNTOUCHED}"
        )


def check_plan(policy: Policy, name: str, plan: Plan) -> None:
    """Raise PolicyError if a policy does not accept a plan: weak guards, too many cells or too high a cap."""
    for reason in _plan(policy, name, plan):
        raise reason


def agreed_plan(proposal: Proposal, thresholds: Mapping[str, int]) -> Plan:
    """Return the plan with the largest k that the query or any party, by name, asks for.

    Raises PolicyError if the plan is out of bounds with that k.
    """
    strictest = max(thresholds, key=lambda name: thresholds[name])
    threshold = max(proposal.threshold, thresholds[strictest])
    try:
        return proposal.plan(threshold)
    except DocumentError as error:
        who = f"{strictest} accepts" if thresholds[strictest] == threshold else "the query asks for"
        raise PolicyError(f"{who} no k below {threshold}, and with that {error}. {_UNTOUCHED}") from None


@dataclass(frozen=True)
class Use:
    """A variable, as the query names it, and what the query does with it."""

    variable: str
    role: Role


def uses(query: Query, codebook: Codebook, layout: Layout | None = None) -> tuple[Use, ...]:
    """Return every use that a query makes of a variable, each once.

    What the layout reads beyond what the query names, as of a preset that this module does not know, is
    found too, under the name of the variable that silos map.
    """
    layout = query.layout(codebook) if layout is None else layout
    found: list[Use] = []
    tallies = [tally for groups in layout.groups for tally in groups.tallies]
    measured = getattr(query, "variable", None)
    for tally, recipe in zip(tallies, layout.recipes, strict=True):
        for axis, rule in zip(tally.grid.axes, recipe.rules, strict=True):
            if isinstance(rule, AxisRule):
                found.append(Use(axis.variable, "value" if axis.variable == measured else "group"))
        if recipe.amount is not None:
            found.append(Use(recipe.amount.variable, "value"))
    found += [Use(where.variable, "filter") for where in query.where]
    if isinstance(query, FollowedUp):
        found += [Use(query.time, "value"), Use(query.event.variable, "value")]
        found += [] if query.diagnosed is None else [Use(query.diagnosed, "filter")]
    named = {codebook.base(use.variable) for use in found}
    found += [use for use in _read(layout) if codebook.base(use.variable) not in named]
    return tuple(dict.fromkeys(found))


def _read(layout: Layout) -> Iterator[Use]:
    """Yield what silos read to fill a layout, beside the axes and amounts."""
    follow_ups = [
        rule.follow_up
        for recipe in layout.recipes
        for rule in recipe.rules
        if isinstance(rule, ExitRule | EntryRule)
    ]
    for follow_up in [*follow_ups, *([] if layout.follow_up is None else [layout.follow_up])]:
        yield Use(follow_up.time, "value")
        yield Use(follow_up.event.variable, "value")
        if follow_up.window is not None:
            yield Use(follow_up.window.diagnosed, "filter")
    for selection in layout.where:
        yield Use(selection.variable, "filter")


def allowed_roles(policy: Policy, variable: str, codebook: Codebook) -> tuple[Role, ...] | None:
    """Return the roles that a policy allows a variable, None for every one."""
    for name in (variable, codebook.base(variable)):
        if policy.columns is not None and name in policy.columns:
            return policy.columns[name]
    return None if policy.other_columns else ()


def check_codebook(policy: Policy, codebook: Codebook) -> None:
    """Raise DocumentError if a policy names a variable that the codebook does not have, or not as needed.

    A misspelt name would otherwise protect nothing.
    """
    for key, names in (("columns", policy.columns or {}), ("finest_bin", policy.finest_bin)):
        for name in names:
            if name not in codebook.variables:
                known = ", ".join(codebook.variables)
                raise DocumentError(
                    f"policy.{key}.{name}: the codebook has no variable {name!r}; it has: {known}"
                )
    for name in policy.finest_bin:
        if not isinstance(codebook.variables[name], IntegerVariable):
            raise DocumentError(f"policy.finest_bin.{name}: is not an integer variable; it has no bins")


# --- what each key refuses ------------------------------------------------------------------------


def _enrolment(
    policy: Policy, name: str, silo: bool, analyst: str, project: str, preset: str, terms: Terms | None
) -> Iterator[PolicyError]:
    if terms is None:
        if policy.accepts_of(silo) == "enrolled":
            yield PolicyError(
                f"{name} answers only analysts whom it enrolled itself (`analysts`), and {analyst} is not "
                f"one. {_UNTOUCHED}"
            )
        return
    if terms.presets is not None and preset not in terms.presets:
        yield PresetError(
            f"the query is a {preset}, but {name} enrolled {analyst} for {', '.join(terms.presets)} only. "
            f"{_UNTOUCHED}"
        )
    if terms.projects is not None and project not in terms.projects:
        yield PolicyError(
            f"the request is for the project {project!r}, but {name} enrolled {analyst} for "
            f"{', '.join(terms.projects)} only. {_UNTOUCHED}"
        )


def _terms(
    policy: Policy, name: str, preset: str, rule: Rule, delta: Fraction | None
) -> Iterator[PolicyError]:
    if policy.approval_of(preset) == "never":
        accepted = ", ".join(each for each in policy.presets or () if policy.approval_of(each) != "never")
        yield PresetError(
            f"the query is a {preset}, but {name} accepts only {accepted or 'none at all'}. {_UNTOUCHED}"
        )
    if rule not in policy.rules:
        accepted = ", ".join(each.value for each in policy.rules)
        yield PolicyError(
            f"the query asks for rule {rule.value}, but {name} accepts only {accepted}. {_UNTOUCHED}"
        )
    if delta is not None and delta > policy.greatest_delta:
        yield PolicyError(
            f"the query asks for δ = {float(delta):g}, but {name} accepts at most "
            f"δ = {float(policy.greatest_delta):g}. {_UNTOUCHED}"
        )


_DOES = {"group": "groups by", "filter": "filters by", "value": "measures"}


def _columns(
    policy: Policy, name: str, query: Query, codebook: Codebook, layout: Layout
) -> Iterator[PolicyError]:
    for use in uses(query, codebook, layout):
        roles = allowed_roles(policy, use.variable, codebook)
        if roles is not None and use.role not in roles:
            how = f"as {' or '.join(roles)} only" if roles else "in no query"
            listed = policy.columns is not None and (
                use.variable in policy.columns or codebook.base(use.variable) in policy.columns
            )
            key = "columns" if listed else "other_columns"
            yield PresetError(
                f"the query {_DOES[use.role]} {use.variable}, which {name} allows {how} (`{key}`). "
                f"{_UNTOUCHED}"
            )


def _grids(
    policy: Policy, name: str, query: Query, codebook: Codebook, layout: Layout
) -> Iterator[PolicyError]:
    shortest = policy.shortest_interval_days
    if shortest is not None and isinstance(query, FollowedUp):
        times = (Fraction(0), *query.grid.times)
        least = min(after - before for before, after in pairwise(times)) * DAYS[query.grid.unit]
        if least < shortest:
            yield PolicyError(
                f"the query's follow-up has an interval of {float(least):g} days, but {name} accepts none "
                f"shorter than {shortest} (`shortest_interval_days`). {_UNTOUCHED}"
            )
    found: dict[str, int] = {}
    tallies = [tally for groups in layout.groups for tally in groups.tallies]
    for tally, recipe in zip(tallies, layout.recipes, strict=True):
        for axis, rule in zip(tally.grid.axes, recipe.rules, strict=True):
            if isinstance(rule, AxisRule) and axis.variable in policy.finest_bin:
                width = _narrowest(rule, codebook, axis.variable)
                found[axis.variable] = min(width, found.get(axis.variable, width))
    for variable, width in found.items():
        if width < policy.finest_bin[variable]:
            values = "value" if width == 1 else "values"
            yield PolicyError(
                f"the query has a category of {width} {values} of {variable}, but {name} accepts none of "
                f"fewer than {policy.finest_bin[variable]} (`finest_bin`). {_UNTOUCHED}"
            )


def _narrowest(rule: AxisRule, codebook: Codebook, name: str) -> int:
    """Return the fewest values, of those that the codebook allows, that fall into one category."""
    bounds = codebook.bounds(name)
    if isinstance(codebook.variables[name], BandVariable) or bounds is None or not rule.cuts:
        return 1
    low, high = bounds
    edges = [low, *(cut for cut in rule.cuts if low < cut <= high), high + 1]
    return min(after - before for before, after in pairwise(edges))


def _plan(policy: Policy, name: str, plan: Plan) -> Iterator[PolicyError]:
    most = policy.greatest_chance_for_nobody
    for index, allotment in enumerate(plan.guarantee.allotments):
        if allotment.part.guard and publication_probability(plan.guarantee, 0, guard=index) > most:
            yield PolicyError(
                f"{allotment.part.name} gets so little of ε that a group of nobody would be shown with "
                f"a chance above {float(most):g}, the greatest that {name} accepts; give "
                f"it a larger weight, or ask for a larger k. {_UNTOUCHED}"
            )
    if policy.most_cells is not None and plan.cells > policy.most_cells:
        yield PolicyError(
            f"the query asks for {plan.cells:,} cells, but {name} accepts at most {policy.most_cells:,} in "
            f"one release (`most_cells`). {_UNTOUCHED}"
        )
    cap = policy.most_records_per_patient
    if cap is not None and plan.guarantee.cap > cap:
        yield PolicyError(
            f"the query takes up to {plan.guarantee.cap} records of a patient, but {name} accepts at most "
            f"{cap} (`most_records_per_patient`). {_UNTOUCHED}"
        )
