"""A request in plain words, for the operator who decides about it: what would be opened and what it costs.

Nothing here depends on records; what an answer would be nobody knows before it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

from mpc_engine.codebook import Codebook
from mpc_engine.dp import Rule, publication_probability
from mpc_engine.dp.accounting import NOT_PRIVATE, Guarantee
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.ledger.charge import Charge, micro_words
from mpc_engine.ledger.rows import OPEN_REQUEST, BudgetRow
from mpc_engine.party.account import charge_of
from mpc_engine.party.overview import printable
from mpc_engine.party.policy import Policy
from mpc_engine.release.grid import Grid
from mpc_engine.release.plan import Plan
from mpc_engine.statistics.followup import FollowedUp
from mpc_engine.statistics.forecast import false_groups, noisier_totals
from mpc_engine.statistics.layout import Selection
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.where import Where
from mpc_engine.statistics.wording import conditions, listed

Style = Literal["head", "text", "warn"]
Lines = list[tuple[Style, str]]
"""Paragraphs and what each is: a heading, plain, or a warning."""
MOST_SIMILAR: Final = 5
"""Most earlier requests that are named."""
_USUAL: Final = Fraction(1, 20)


@dataclass(frozen=True)
class Earlier:
    """A request that was made before: its id, query, state and day; and by whom, if by another analyst."""

    id: str
    query: Query
    state: str
    day: str
    by: str = ""


@dataclass(frozen=True)
class Asker:
    """Who asks, for which project, when the request came and by which party."""

    analyst: str
    project: str
    submitted: str = ""
    by: str = ""


def explain_request(
    query: Query,
    codebook: Codebook,
    plan: Plan,
    policy: Policy,
    remaining: Sequence[BudgetRow],
    *,
    asker: Asker,
    earlier: Sequence[Earlier] = (),
    waits: Sequence[str] = (),
    settled: str = "",
) -> Lines:
    """Return what a request would open, spend and leave, for the operator of the party with this policy.

    ``plan`` is that of the query at the k it is answered with, ``remaining`` the budgets that it takes from,
    ``earlier`` the requests before it, whoever made them, whose answers differ from this one's, ``waits``
    why somebody must decide, ``settled`` why nothing (more) is taken from the budgets, if that is so.
    """
    guarantee = plan.guarantee
    lines: Lines = [("head", f"{asker.analyst}, for the project {asker.project}")]
    came = f" It came on {asker.submitted}" if asker.submitted else ""
    via = f" by way of {asker.by}" if came and asker.by else ""
    titled = f' The analyst calls it "{printable(query.title)}".' if query.title else ""
    lines.append(
        ("text", f"Preset {query.preset}: {query.question()}.{titled}{came}{via}{'.' if came else ''}")
    )
    lines += [("text", f"You are asked because {each}.") for each in waits]
    lines += [("head", "Whose records"), *(("text", each) for each in _whose(query, codebook, guarantee))]
    lines += [("head", "What would be opened"), *(("text", each) for each in _opened(plan))]
    lines += [("head", "What hides small numbers"), *(("text", each) for each in _hidden(plan, policy))]
    lines += [("head", "What it costs"), *([("text", settled)] if settled else _costs(guarantee, remaining))]
    careful = [*_similar(query, codebook, earlier), *_cautions(query, plan)]
    if careful:
        lines.append(("head", "To be considered"))
        lines += [("warn", each) for each in careful]
    return lines


# --- records --------------------------------------------------------------------------------------


def _whose(query: Query, codebook: Codebook, guarantee: Guarantee) -> list[str]:
    filters = conditions(codebook, query.where)
    found = [f"Those with {filters}." if filters else "All of the data set: there is no filter."]
    if isinstance(query, FollowedUp):
        found.append(f"Time to the event is {query.time}.")
        if query.window is not None:
            which = "follow-up" if query.approach == "period" else f"patients by {query.diagnosed}"
            found.append(f"Only {which} from {query.window[0]} to {query.window[1]} counts.")
    if query.multiple_primaries != "all":
        rule = {"first": "the first tumour", "iarc": "one tumour of each kind, by the international rules,"}
        found.append(f"Of a patient {rule[query.multiple_primaries]} counts.")
    if guarantee.cap > 1:
        found.append(f"Up to {guarantee.cap} records of one patient count; the noise allows for that.")
    return found


# --- openings -------------------------------------------------------------------------------------


def _opened(plan: Plan) -> list[str]:
    found = []
    for groups in plan.groups:
        grid = groups.guard.grid
        if not groups.members:
            found.append(f"{_of(groups.name)}{_many(grid.cells, 'number')} of records: {_axes(grid)}.")
            continue
        inner = [
            f"{tally.name} ({_many(tally.grid.cells // grid.cells, 'number')})" for tally in groups.tallies
        ]
        found.append(
            f"{_of(groups.name)}{_many(grid.cells, 'group')}: {_axes(grid)}. In each that is shown: "
            f"{listed(inner)}."
        )
    guards = sum(line.cells for line in plan.lines if line.guard)
    found.append(
        f"First, which of {_many(guards, 'group')} are shown; then the noisy numbers of those, at most "
        f"{plan.cells:,} in all. Nobody sees a number without noise, nor any of what is not shown."
    )
    return found


def _of(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}: "


def _axes(grid: Grid) -> str:
    return " × ".join(f"{a.variable} ({len(a.categories):,})" for a in grid.axes) or "all together"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- noise ----------------------------------------------------------------------------------------


def _hidden(plan: Plan, policy: Policy) -> list[str]:
    guarantee = plan.guarantee
    k = guarantee.threshold
    whose = "your least" if k == policy.least_threshold else "what was asked for or another party's least"
    found = [f"k = {k} ({whose}), rule {guarantee.rule.value}. {_rule(plan)}"]
    noise = [f"{each.part.name} ± {_half_width(each.table):,}" for each in guarantee.allotments]
    found.append(f"Noise, in 95 of 100 cases: {'; '.join(noise)}.")
    members = any(groups.members for groups in plan.groups)
    if members:
        found.append(
            f"In a group that is shown all its numbers are, those below {k} too; what protects a patient "
            "there is the noise."
        )
    return found


def _rule(plan: Plan) -> str:
    guarantee = plan.guarantee
    if guarantee.rule is Rule.EXACT:
        return f"A group is shown if it has {guarantee.threshold} patients or more, exactly: {NOT_PRIVATE}."
    if guarantee.rule is Rule.STRICT:
        least = max(each.least_shown or 0 for each in guarantee.allotments)
        return (
            f"No group of fewer than {guarantee.threshold} patients is shown, nor one whose noisy number is "
            f"below {least:,}."
        )
    index = next(index for index, each in enumerate(guarantee.allotments) if each.part.guard)
    chances = [
        f"{count} with {_percent(publication_probability(guarantee, count, guard=index))}"
        for count in dict.fromkeys(
            (0, 1, guarantee.threshold - 1, guarantee.threshold, 2 * guarantee.threshold)
        )
    ]
    return (
        "A group is shown if its number with noise reaches k. Chance to be shown, by the true number: "
        f"{', '.join(chances)}."
    )


def _percent(chance: Fraction) -> str:
    percent = float(100 * chance)
    if percent in (0.0, 100.0):
        return f"{percent:.0f}%"
    return f"{min(percent, 99.9):.1f}%" if percent >= 0.1 else "less than 0.1%"


def _half_width(table: NoiseTable) -> int:
    """Return the least x with a chance of at most 5 % that the noise is larger than x in size."""
    low, high = -1, table.limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if 2 * table.tail(middle + 1) <= _USUAL else (middle, high)
    return high


# --- costs ----------------------------------------------------------------------------------------


def _costs(guarantee: Guarantee, remaining: Sequence[BudgetRow]) -> Lines:
    charge = charge_of(guarantee)
    lines: Lines = [("text", f"{charge.words}, of each of these budgets:")]
    if not guarantee.differentially_private:
        lines[0] = ("text", f"{charge.words}, counted although it is no guarantee, of each of these budgets:")
    for row in remaining:
        left, fits = _left(row, charge)
        lines.append(("text" if fits else "warn", f"{row.scope.words}: {left}"))
    return lines


def _left(row: BudgetRow, charge: Charge) -> tuple[str, bool]:
    """Return what is left of a budget in words, and whether the charge fits."""
    left, limit = row.remaining_micro_epsilon, row.limit.micro_epsilon
    if left is None or limit is None:
        spent = micro_words(row.spent.micro_epsilon + charge.micro_epsilon)
        words, fits = f"without limit; ε = {spent} would be spent in all", True
    else:
        fits = charge.micro_epsilon <= left
        after = f"{micro_words(left - charge.micro_epsilon)} afterwards" if fits else "not enough"
        words = f"ε = {micro_words(left)} of {micro_words(limit)} is left, {after}"
    if row.held.micro_epsilon:
        words += f" ({micro_words(row.held.micro_epsilon)} held for sessions under way)"
    if row.remaining_delta is not None and charge.delta > row.remaining_delta:
        return f"{words}; δ is not enough", False
    return words, fits


# --- earlier requests -----------------------------------------------------------------------------


def _similar(query: Query, codebook: Codebook, earlier: Sequence[Earlier]) -> list[str]:
    """Return warnings of earlier requests that, with this one, tell more than either.

    Of many the answered ones come first, those of the same analyst before others', the latest before earlier
    ones; so nobody's open requests hide an answer.
    """
    found: list[tuple[tuple[bool, bool], str]] = []
    for each in earlier:
        words = likeness(query, each.query, codebook)
        if words:
            day = f" of {each.day}" if each.day else ""
            state = each.state.lower().replace("_", " ")
            by = f" by {printable(each.by)}" if each.by else ""
            rank = (each.state in OPEN_REQUEST, bool(each.by))
            found.append((rank, f"Request {each.id[:8]}{by}{day} ({state}): {words}"))
    found = sorted(reversed(found), key=lambda each: each[0])
    more = len(found) - MOST_SIMILAR
    return [words for _, words in found[:MOST_SIMILAR]] + ([f"And {more} more like it."] if more > 0 else [])


def likeness(query: Query, before: Query, codebook: Codebook) -> str:
    """Return in words how a query is close to one before it; "" if it is not.

    Close are queries of one preset that differ in nothing but ε and the like, in one condition on records,
    or in the limits of their categories.
    """
    if query.preset != before.preset:
        return ""
    new, old = _asked(query), _asked(before)
    differing = {key for key in (*new, *old) if new.get(key) != old.get(key)}
    if not differing:
        return _AGAIN
    if differing <= {"edges", "bins", "clip", "grid"}:
        return "the same records in other categories: where limits differ, numbers can be subtracted."
    if differing <= {"window"}:
        return f"the same in another window. {_DIFFERENCE}"
    if differing != {"where"}:
        return ""
    added, removed = _conditions(query, before, codebook), _conditions(before, query, codebook)
    if not added and not removed:
        return _AGAIN
    if len(added) > 1 or len(removed) > 1:
        return ""
    if added and removed and added[0].variable != removed[0].variable:
        return ""
    one, other = conditions(codebook, added), conditions(codebook, removed)
    if one and other:
        return f"the same but for one condition: now {one}, then {other}. {_DIFFERENCE}"
    which = f"now also {one}" if one else f"then also {other}"
    return f"the same but for one condition: {which}. {_DIFFERENCE}"


_AGAIN: Final = "the same question. An average of both answers has less noise; their ε adds up."
_DIFFERENCE: Final = (
    "Possible differencing: subtracting the answers tells about the records in which they differ, with the "
    "noise of both."
)


def _asked(query: Query) -> dict[str, Any]:
    fields = query.digest_fields()
    return {key: value for key, value in fields.items() if key not in ("title", "privacy")}


def _conditions(query: Query, other: Query, codebook: Codebook) -> list[Where]:
    """Return the filters of a query that another does not have, however they are written."""
    unmatched = Counter(_chosen(where, codebook) for where in other.where)
    found = []
    for where in query.where:
        chosen = _chosen(where, codebook)
        if unmatched[chosen]:
            unmatched[chosen] -= 1
        else:
            found.append(where)
    return found


def _chosen(where: Where, codebook: Codebook) -> Selection | str:
    """Return which coded values a filter takes; its text if the codebook, a newer one, does not have them."""
    return where.selection(codebook, "", []) or where.model_dump_json()


# --- the rest -------------------------------------------------------------------------------------


def _cautions(query: Query, plan: Plan) -> list[str]:
    guarantee, found = plan.guarantee, []
    if guarantee.rule is Rule.EXACT:
        found.append(
            "Rule exact: whoever holds all but one patient of a group can tell from its being shown whether "
            "that one is in it."
        )
    if len(plan.silos) < 3:
        found.append(
            "With two silos each can take its own numbers away from the answer and has the other's, with the "
            "joint noise."
        )
    if len(plan.silos) > 1:
        twice = micro_words(Charge.of(guarantee.at_silos(2)[0], None).micro_epsilon)
        found.append(
            f"A patient with records at two silos is protected by ε = {twice} only, for silos do not compare "
            "identities."
        )
    found += [each.reason for each in false_groups(guarantee, plan.groups)]
    found += [each.reason for each in noisier_totals(query, guarantee, plan.groups)]
    return found
