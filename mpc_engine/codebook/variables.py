"""The kinds of variable of a codebook, and how a day is written and coded."""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import date, datetime
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from mpc_engine.documents import (
    AfterValidator,
    BeforeValidator,
    Document,
    Field,
    StringConstraints,
    broken,
    model_validator,
)

NAME: Final = r"^[a-z][a-z0-9_]*$"
"""What the name of a variable looks like."""
MAX_VALUE: Final = 1_000_000_000
"""Largest size of an integer variable's bounds."""

EPOCH: Final = date(1970, 1, 1)
"""The day that is 0 where dates are coded as whole days."""
# Python also reads other ISO forms, such as 2020-W01-1.
_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def day(value: date | str) -> int:
    """Return a date, or its text as ``YYYY-MM-DD``, in whole days since 1970-01-01; negative before.

    Raises :class:`ValueError` if the text is anything else.
    """
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value if _ISO.fullmatch(value) else "")
        except ValueError:
            raise ValueError("must be a date such as 1960-01-01") from None
    return value.toordinal() - EPOCH.toordinal()


def _as_date(value: Any) -> Any:
    """Return a date written as text as a date; a time of day is no date, nor is a number."""
    if isinstance(value, str):
        return date.fromordinal(day(value) + EPOCH.toordinal())
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError("must be a date such as 1960-01-01")
    return value


def printable(text: str) -> str:
    """Return ``text``; raises :class:`ValueError` if it holds characters that cannot be seen."""
    if not text.isprintable():
        raise ValueError("must not hold control characters or other characters that cannot be seen")
    return text


Name = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]
Label = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$", max_length=120), AfterValidator(printable)]
Bound = Annotated[int, Field(ge=-MAX_VALUE, le=MAX_VALUE)]
Missing = Literal["unknown", "refuse"]
Day = Annotated[date, BeforeValidator(_as_date)]
"""A day, written as a TOML date or as text, ``YYYY-MM-DD``."""


class Category(Document):
    """One category of a variable."""

    label: Label
    description: str = ""


def _as_category(value: Any) -> Any:
    return {"label": value} if isinstance(value, str) else value


class _Variable(Document):
    description: str = ""


class _Mapped(_Variable):
    """What variables that silos map have in common."""

    unknown: Label | None = None
    missing: Missing | None = None

    @property
    def missing_is_unknown(self) -> bool:
        """Return whether an absent value counts as the unknown category; otherwise it is a fault."""
        return self.unknown is not None and self.missing != "refuse"

    @model_validator(mode="after")
    def _missing_has_a_place(self) -> _Mapped:
        if self.missing == "unknown" and self.unknown is None:
            raise broken("missing", 'is "unknown", but the variable declares no `unknown` label')
        return self


class CategoryVariable(_Mapped):
    """A variable with ordered categories."""

    kind: Literal["category"]
    categories: Annotated[
        tuple[Annotated[Category, BeforeValidator(_as_category)], ...], Field(min_length=1, max_length=10_000)
    ]

    @model_validator(mode="after")
    def _labels_differ(self) -> CategoryVariable:
        _refuse_repeats("categories", [category.label for category in self.categories])
        if self.unknown in {category.label for category in self.categories}:
            raise broken(
                "unknown", "is also the label of a category; unknown is added as the last one by itself"
            )
        return self

    @property
    def known(self) -> tuple[str, ...]:
        """Return the labels in order, without the unknown one."""
        return tuple(category.label for category in self.categories)

    def position(self, label: str) -> int:
        """Return the position of a category's label; -1 is the unknown one."""
        return -1 if label == self.unknown else self.known.index(label)


class IntegerVariable(_Mapped):
    """A whole number from ``lower`` to ``upper``, both allowed, in ``unit``."""

    kind: Literal["integer"]
    unit: Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(printable)]
    lower: Bound
    upper: Bound

    @model_validator(mode="after")
    def _bounds_in_order(self) -> IntegerVariable:
        if self.lower > self.upper:
            raise broken("lower", f"is {self.lower}, above `upper` = {self.upper}")
        if self.unknown is not None and self.unknown.lstrip("+-").isdigit():
            raise broken(
                "unknown", "is the label of the unknown category; a number could be taken for a value"
            )
        return self


class DateVariable(_Mapped):
    """A day from ``lower`` to ``upper``, both allowed; coded as whole days since 1970-01-01."""

    kind: Literal["date"]
    lower: Day
    upper: Day

    @model_validator(mode="after")
    def _bounds_in_order(self) -> DateVariable:
        if self.lower > self.upper:
            raise broken("lower", f"is {self.lower}, after `upper` = {self.upper}")
        if self.unknown is not None and _ISO.fullmatch(self.unknown):
            raise broken("unknown", "is the label of the unknown category; a date could be taken for a value")
        return self


class BandVariable(_Variable):
    """An integer variable cut in bands: cuts at 12 and 60 make below 12, [12,60), and 60 and over."""

    kind: Literal["band"]
    of: Name
    cuts: Annotated[tuple[Bound, ...], Field(min_length=1, max_length=10_000)]
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=10_001)]

    @model_validator(mode="after")
    def _cuts_and_labels_fit(self) -> BandVariable:
        for index, (before, after) in enumerate(pairwise(self.cuts), start=1):
            if after <= before:
                raise broken(f"cuts[{index}]", f"is {after}, not above the cut before it, {before}")
        if len(self.labels) != len(self.cuts) + 1:
            raise broken(
                "labels",
                f"{len(self.cuts)} cuts make {len(self.cuts) + 1} bands, but there are {len(self.labels)}",
            )
        _refuse_repeats("labels", self.labels)
        return self

    def index(self, value: int) -> int:
        """Return the position of the band that holds ``value``."""
        return bisect_right(self.cuts, value)


MappedVariable = CategoryVariable | IntegerVariable | DateVariable
"""What a silo maps."""
Variable = Annotated[MappedVariable | BandVariable, Field(discriminator="kind")]


def _refuse_repeats(path: str, labels: tuple[str, ...] | list[str]) -> None:
    seen: set[str] = set()
    for index, label in enumerate(labels):
        if label in seen:
            raise broken(f"{path}[{index}]", f"the label {label!r} occurs twice")
        seen.add(label)
