"""Plans as an analyst sees them: what would be opened and spent, as text and as plain fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from mpc_engine.dp import Allotment, Guarantee, Rule, expected_false_cells, publication_probability
from mpc_engine.dp.rationals import ceil_log2, decimal_text
from mpc_engine.errors import EngineMismatchError, IntegrityError
from mpc_engine.party.messages import CostAnswer, Remaining, StoredRelease
from mpc_engine.party.proposal import Proposal
from mpc_engine.release.plan import Plan
from mpc_engine.release.table import promise

COUNTS: Final = range(11)
"""True counts for which the chance to be shown is told; under ``strict`` as many around its limit."""


@dataclass(frozen=True)
class Outline:
    """A plan as an analyst reads it; printed, it is a summary.

    Attributes:
        plan: the plan itself.
    """

    plan: Plan

    @property
    def cells(self) -> int:
        """Number of cells that may be opened."""
        return self.plan.cells

    @property
    def openings(self) -> list[dict[str, object]]:
        """Everything that will be opened at most: when, what and how many values."""
        return self.plan.openings()

    @property
    def split(self) -> list[dict[str, object]]:
        """How ε is split over the parts of the release, with the noise of each."""
        return [_part(self.plan.guarantee, each) for each in self.plan.guarantee.allotments]

    def as_fields(self) -> dict[str, Any]:
        """Return all of it as plain fields that JSON can hold."""
        return plan_fields(self.plan)

    def __str__(self) -> str:
        guarantee = self.plan.guarantee
        lines = [
            f"{self.cells:,} cells; ε = {decimal_text(guarantee.epsilon)} in all, k = {guarantee.threshold}"
        ]
        for each in guarantee.allotments:
            noise = float(each.table.variance) ** 0.5
            lines.append(f"  {each.part.name}: ε = {decimal_text(each.epsilon)}, noise SD {noise:.3g}")
        return "\n".join([*lines, *promise(self.plan)])


@dataclass(frozen=True)
class Cost:
    """What a question would cost and whether it would be answered; printed, it is a summary.

    Attributes:
        outline: the plan that the parties would follow.
        charge: ε and δ that would be debited, in words.
        remaining: what is left of each party's budgets, where that is told; of the analyst's own only at the
            party that is asked.
        verdicts: what each party would say, in words.
        served_from: the release that the analyst has already and would get again, at no cost, if nothing
            changes until the question is asked; None otherwise.
        threshold: the k that the query asks for; the plan's is larger if a party's policy makes it so.
    """

    outline: Outline
    charge: str
    remaining: Mapping[str, Remaining]
    verdicts: Mapping[str, str]
    served_from: StoredRelease | None = None
    threshold: int = 1

    @property
    def words(self) -> str:
        """What it would cost, in a sentence or two."""
        if self.served_from is None:
            return f"This would cost {self.charge}."
        return (
            f"Answered before: it would be served from {self.served_from.words}; cost: nothing. Whether that "
            "still holds is found when it is asked: if records, a least k or the roster have changed, it is "
            f"another question and costs {self.charge}."
        )

    @property
    def raised(self) -> str:
        """In words, that the parties answer with a larger k than the query asks for; "" if they do not."""
        k = self.outline.plan.guarantee.threshold
        if k <= self.threshold:
            return ""
        return (
            f"The query asks for k = {self.threshold}; the parties' policies make it {k}. With threshold = "
            f"{k} it would be another question with the same k, and each of the two is paid for."
        )

    def as_fields(self) -> dict[str, Any]:
        """Return all of it as plain fields that JSON can hold."""
        return {
            "plan": self.outline.as_fields(),
            "charge": self.charge,
            "remaining": {
                party: {kind: None if left is None else left.as_fields() for kind, left in budgets(each)}
                for party, each in self.remaining.items()
            },
            "verdicts": dict(self.verdicts),
            "served_from": None if self.served_from is None else self.served_from.model_dump(mode="json"),
            "threshold": {"asked": self.threshold, "used": self.outline.plan.guarantee.threshold},
        }

    def __str__(self) -> str:
        lines = [str(self.outline), *([self.raised] if self.raised else []), self.words]
        for party, each in self.remaining.items():
            left = [f"{kind}: {amount.words}" for kind, amount in budgets(each) if amount is not None]
            lines.append(f"{party} has left: {'; '.join(left) or 'it keeps or tells none'}")
        return "\n".join([*lines, *(f"{party}: {words}" for party, words in self.verdicts.items())])


def budgets(left: Remaining) -> list[tuple[str, Any]]:
    """Return what is left of a party's budgets, by what they are called."""
    return [("data set", left.dataset), ("project", left.project), ("analyst", left.analyst)]


def cost_of(answer: CostAnswer, proposal: Proposal) -> Cost:
    """Return a party's answer with the plan made again here.

    Raises EngineMismatchError if that is not the party's: then it would open or spend something else.
    """
    plan = proposal.plan(answer.plan.threshold)
    if plan.digest != answer.plan.digest:
        raise EngineMismatchError("the party lays out another plan for this question than this engine")
    return Cost(
        Outline(plan),
        answer.cost.words,
        dict(answer.remaining),
        dict(answer.verdicts),
        answer.served_from,
        proposal.threshold,
    )


def plan_fields(made: Plan) -> dict[str, Any]:
    """Return the plan as it is hashed, and what the text shows beside it, with numbers as numbers."""
    guarantee = made.guarantee
    two = guarantee.at_silos(2)
    return made.as_fields() | {
        "digest": made.digest,
        "openings": made.openings(),
        "cells": made.cells,
        "rounds": made.rounds,
        "rounds_online": made.rounds_online,
        "payload_bytes": made.sent_bytes,
        "privacy": {
            "epsilon": float(spent_by(guarantee)),
            "epsilon_exact": decimal_text(spent_by(guarantee)),
            "delta_log2": None if guarantee.delta is None else ceil_log2(guarantee.delta),
            "strict_delta": float(guarantee.strict_delta),
            "differentially_private": guarantee.differentially_private,
            "parts": [_part(guarantee, each) for each in guarantee.allotments],
            "patient_at_two_silos": {
                "epsilon": float(two[0]),
                "delta_log2": None if two[1] is None else ceil_log2(two[1]),
            },
            "statement": guarantee.statement(),
        },
        "chances": [
            {
                "guard": name,
                "groups": cells,
                "patients": [count for count, _ in shown],
                "shown": [p for _, p in shown],
                "expected_shown_if_all_are_empty": false,
            }
            for name, cells, _, shown, false in chances(made)
        ],
        "promise": promise(made),
    }


def _part(guarantee: Guarantee, each: Allotment) -> dict[str, object]:
    return {
        "part": each.part.name,
        "weight": each.part.weight,
        "guard": each.part.guard,
        "epsilon": float(each.epsilon),
        "epsilon_exact": decimal_text(each.epsilon),
        "largest_change_per_record": each.part.step,
        "cap": guarantee.cap,
        "epsilon_per_unit": float(each.table.epsilon),
        "epsilon_per_unit_exact": decimal_text(each.table.epsilon),
        "noise_standard_deviation": float(each.table.variance) ** 0.5,
        "noise_largest": each.table.limit,
        "least_shown": each.least_shown,
    }


def chances(made: Plan) -> list[tuple[str, int, int, list[tuple[int, float]], float]]:
    """Return for each guard its part, groups, index, chances by true count, and groups shown if all empty."""
    found = []
    for index, line in enumerate(made.lines):
        if not line.guard:
            continue
        least = line.allotment.least_shown or 0
        counts = COUNTS
        if made.guarantee.rule is Rule.STRICT:
            start = max(0, min(least, made.guarantee.threshold) - 1)
            counts = range(max(start, least - 5), max(start, least - 5) + len(COUNTS))
        shown = [
            (count, float(publication_probability(made.guarantee, count, guard=index))) for count in counts
        ]
        false = float(expected_false_cells(made.guarantee, line.cells, index))
        found.append((line.allotment.part.name, line.cells, index, shown, false))
    return found


def spent_by(guarantee: Guarantee) -> Fraction:
    """Return the sum of the parts' ε, which is the release's; anything else is a fault of the engine."""
    total = sum((each.epsilon for each in guarantee.allotments), Fraction(0))
    if total != guarantee.epsilon:
        raise IntegrityError("the parts of the plan spend another ε than the whole")
    return total
