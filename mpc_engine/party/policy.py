"""What a party accepts, whatever anybody asks: the `[policy]` table of its configuration.

A policy speaks of queries and of nothing else: presets, variables, grids, privacy parameters, budgets. No
record is ever looked at to apply it, so a refusal tells nothing about the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from mpc_engine.codebook import Name
from mpc_engine.documents import (
    AfterValidator,
    BeforeValidator,
    Document,
    Field,
    broken,
    field_validator,
    model_validator,
)
from mpc_engine.dp import Rule, parse_delta, parse_epsilon
from mpc_engine.errors import DocumentError
from mpc_engine.statistics.presets import presets

_CHANCE: Final = re.compile(r"0(\.[0-9]{1,20})?|1(\.0{1,20})?")
_AMOUNT: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_PROJECT: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_DIGEST: Final = r"^[0-9a-f]{64}$"
NONE: Final = "none"
"""What stands for no budget at all where an amount of ε stands otherwise."""

Approval = Literal["auto", "manual", "never"]
"""How requests with a preset are answered: at once, after an operator approved them, not at all."""
Role = Literal["group", "filter", "value"]
"""What a query does with a variable: its categories are cells, rows or strata (``group``); records are
chosen by it (``filter``); it is measured, as the variable of a histogram or a mean, as follow-up time or as
the event (``value``)."""
Who = Literal["enrolled", "any"]
"""Whose requests are taken: of analysts whom this party enrolled, or of anyone another party enrolled."""
ROLES: Final[tuple[Role, ...]] = ("group", "filter", "value")


@dataclass(frozen=True)
class BudgetLimits:
    """The most that all releases together may spend; None where nothing is limited.

    ``epsilon`` and ``delta`` on the data set, ``per_analyst`` ε of each analyst whom this party did not
    enrol, ``projects`` ε by name, ``other_projects`` ε of each project not named.
    """

    epsilon: Fraction | None = None
    delta: Fraction | None = None
    per_analyst: Fraction | None = None
    projects: Mapping[str, Fraction] = field(default_factory=dict)
    other_projects: Fraction | None = None


@dataclass(frozen=True)
class Policy:
    """What one party accepts, whatever a query asks.

    Attributes:
        greatest_epsilon: of one release, as a plain decimal.
        least_threshold: k; a query with a smaller one is answered with this.
        rules, greatest_delta: of the small-cell test.
        greatest_chance_for_nobody: with which a group that holds nobody may be shown.
        presets: those answered, None for all.
        approval: how they are answered, by preset where ``approvals`` says.
        columns: the roles in which a variable may be used; None for all in every role.
        other_columns: whether variables that ``columns`` does not name may be used, in every role.
        most_cells: of one release, in all its parts.
        shortest_interval_days: of a grid of follow-up time.
        finest_bin: the fewest values of a variable in a category of its own or a bin of a histogram.
        most_records_per_patient: the largest cap that a query may ask for.
        budget: over all releases.
        engines: SHA-256 of engine sources accepted beside this party's own.
        analysts: whose requests are taken; None for those enrolled at a silo and any at a helper.
    """

    greatest_epsilon: str
    least_threshold: int
    rules: tuple[Rule, ...] = (Rule.NOISY, Rule.STRICT)
    greatest_delta: Fraction = Fraction(1, 10**5)
    greatest_chance_for_nobody: Fraction = Fraction(1)
    presets: tuple[str, ...] | None = None
    approval: Approval = "auto"
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    columns: Mapping[str, tuple[Role, ...]] | None = None
    other_columns: bool = True
    most_cells: int | None = None
    shortest_interval_days: int | None = None
    finest_bin: Mapping[str, int] = field(default_factory=dict)
    most_records_per_patient: int | None = None
    budget: BudgetLimits = BudgetLimits()
    engines: tuple[str, ...] = ()
    analysts: Who | None = None

    def approval_of(self, preset: str) -> Approval:
        """Return how requests with a preset are answered."""
        if self.presets is not None and preset not in self.presets:
            return "never"
        return self.approvals.get(preset, self.approval)

    def accepts_of(self, silo: bool) -> Who:
        """Return whose requests are taken, at a silo or at a helper."""
        return self.analysts or ("enrolled" if silo else "any")

    def with_threshold(self, threshold: int) -> int:
        """Return the k that a query with this one is answered with here."""
        return max(self.least_threshold, threshold)


def _epsilon(text: str) -> str:
    try:
        parse_epsilon(text)
    except DocumentError as error:
        raise ValueError(str(error)) from None
    return text


def _delta(text: str) -> str:
    try:
        parse_delta(text)
    except DocumentError as error:
        raise ValueError(str(error)) from None
    return text


def _chance(text: str) -> str:
    if not _CHANCE.fullmatch(text):
        raise ValueError('must be a decimal number from "0" to "1" in quotes, such as "0.35"')
    return text


def _amount(text: str) -> str:
    if text != NONE and not _AMOUNT.fullmatch(text):
        raise ValueError('must be an amount of ε in quotes, such as "3" or "0.5", or "none"')
    return text


def _approvals(value: Any) -> Any:
    """Return a list of presets, or a table that says how each is answered, as such a table."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError('must be a list of presets, or a table of "auto", "manual" and "never" by preset')
    return dict.fromkeys(value, "default")


Epsilon = Annotated[str, AfterValidator(_epsilon)]
Delta = Annotated[str, AfterValidator(_delta)]
Amount = Annotated[str, AfterValidator(_amount)]


class BudgetDocument(Document):
    """The most that all releases on this party's data set may spend together.

    Amounts of ε are decimals in quotes with at most six places; ``"none"`` gives nothing. What is left out
    is not limited. The ledger holds to these whatever the analysts' programs say.
    """

    epsilon: Amount | None = None
    delta: Delta | None = None
    per_analyst: Amount | None = None
    projects: Annotated[dict[Annotated[str, Field(pattern=_PROJECT)], Amount], Field(max_length=1_000)] = (
        Field(default_factory=dict)
    )
    other_projects: Amount | None = None

    def limits(self) -> BudgetLimits:
        """Return the amounts, exact."""
        return BudgetLimits(
            _fraction(self.epsilon),
            None if self.delta is None else parse_delta(self.delta),
            _fraction(self.per_analyst),
            {name: _given(amount) for name, amount in sorted(self.projects.items())},
            _fraction(self.other_projects),
        )


class PolicyDocument(Document):
    """What this party accepts, whatever a query asks.

    ``greatest_chance_for_nobody`` is the greatest probability with which a group that holds nobody may be
    shown: a query that gives its guards little of ε makes k mean little. ``presets`` is a list of those
    answered, or a table that says of each ``auto``, ``manual`` or ``never``; all are, if it is left out, and
    none that a list or a table leaves out. Only ``count``, ``crosstab`` and ``histogram`` never show a number
    below k that is not itself compared with k. ``approval`` holds where ``presets`` does not say. ``columns``
    lists by variable the roles in which it may be used, none with ``[]``; a variable in bands follows the one
    it is made of, unless it is listed itself. With ``columns``, the others may not be used unless
    ``other_columns`` is ``all``.
    """

    greatest_epsilon: Epsilon
    least_threshold: Annotated[int, Field(ge=1, le=1_000_000)]
    rules: Annotated[tuple[Literal["noisy", "strict", "exact"], ...], Field(min_length=1)] = (
        "noisy",
        "strict",
    )
    greatest_delta: Delta = "0.00001"
    greatest_chance_for_nobody: Annotated[str, AfterValidator(_chance)] = "0.35"
    presets: (
        Annotated[
            dict[str, Literal["auto", "manual", "never", "default"]],
            BeforeValidator(_approvals),
            Field(min_length=1, max_length=50),
        ]
        | None
    ) = None
    approval: Literal["auto", "manual"] = "auto"
    columns: Annotated[dict[Name, tuple[Role, ...]], Field(max_length=500)] | None = None
    other_columns: Literal["all", "never"] | None = None
    most_cells: Annotated[int, Field(ge=1)] | None = None
    shortest_interval_days: Annotated[int, Field(ge=1, le=36_525)] | None = None
    finest_bin: Annotated[dict[Name, Annotated[int, Field(ge=1, le=1_000_000)]], Field(max_length=500)] = (
        Field(default_factory=dict)
    )
    most_records_per_patient: Annotated[int, Field(ge=1, le=1_000)] | None = None
    budget: BudgetDocument = BudgetDocument()
    engines: Annotated[tuple[Annotated[str, Field(pattern=_DIGEST)], ...], Field(max_length=100)] = ()
    analysts: Who | None = None

    @field_validator("presets")
    @classmethod
    def _known(cls, names: dict[str, str] | None) -> dict[str, str] | None:
        for name in names or ():
            if name not in presets():
                raise ValueError(f"{name!r} is no preset; presets: {', '.join(presets())}")
        return names

    @model_validator(mode="after")
    def _others_belong_to_columns(self) -> PolicyDocument:
        if self.columns is None and self.other_columns == "never":
            raise broken("other_columns", "leaves no variable at all without `columns`; name those allowed")
        return self

    def policy(self) -> Policy:
        """Return the policy, its ε as a plain decimal."""
        said = self.presets
        return Policy(
            format(Decimal(self.greatest_epsilon), "f"),
            self.least_threshold,
            tuple(Rule(rule) for rule in self.rules),
            parse_delta(self.greatest_delta),
            Fraction(self.greatest_chance_for_nobody),
            None if said is None else tuple(name for name, how in said.items() if how != "never"),
            self.approval,
            {name: how for name, how in (said or {}).items() if how != "default"},
            None if self.columns is None else dict(self.columns),
            self.columns is None or self.other_columns == "all",
            self.most_cells,
            self.shortest_interval_days,
            dict(self.finest_bin),
            self.most_records_per_patient,
            self.budget.limits(),
            self.engines,
            self.analysts,
        )


def _fraction(amount: str | None) -> Fraction | None:
    return None if amount is None else _given(amount)


def _given(amount: str) -> Fraction:
    return Fraction(0) if amount == NONE else Fraction(amount)
