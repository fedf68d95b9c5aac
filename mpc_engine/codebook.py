"""The codebook: the variables and categories that all silos of a study agree on.

A public document, the same at every party; its digest is part of every plan. It says what a variable
means and which values it may take, never how one registry writes them down; that is a mapping.

Kinds of variable: ``category`` (ordered labels), ``integer`` (a whole number with inclusive bounds) and
``band`` (an integer variable cut into half-open intervals; derived, so never mapped). A category or
integer variable that declares ``unknown`` has a last category of that label. ``missing`` says what an
absent value is: that category, or a fault which keeps the file from being registered.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from mpc_engine.documents import (
    AfterValidator,
    BeforeValidator,
    Document,
    Field,
    StringConstraints,
    broken,
    digest,
    load,
    model_validator,
)

NAME: Final = r"^[a-z][a-z0-9_]*$"
"""What the name of a variable looks like."""
MAX_VALUE: Final = 1_000_000_000
"""Largest size of an integer variable's bounds."""

RESERVED: Final = ("value", "flag")
"""Names that no variable may have: a release's table has columns of these names."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters or other characters that cannot be seen")
    return text


Name = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]
Label = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$", max_length=120), AfterValidator(_printable)]
Bound = Annotated[int, Field(ge=-MAX_VALUE, le=MAX_VALUE)]
Missing = Literal["unknown", "refuse"]


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


class IntegerVariable(_Mapped):
    """A whole number from ``lower`` to ``upper``, both allowed, in ``unit``."""

    kind: Literal["integer"]
    unit: Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_printable)]
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


Variable = Annotated[CategoryVariable | IntegerVariable | BandVariable, Field(discriminator="kind")]


class Codebook(Document):
    """All variables of a study, by name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(_printable)]
    version: Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_printable)]
    description: str = ""
    variables: Annotated[dict[Name, Variable], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _names_are_free(self) -> Codebook:
        for name in RESERVED:
            if name in self.variables:
                raise broken(
                    f"variables.{name}", "is the name of a column of every release; choose another name"
                )
        return self

    @model_validator(mode="after")
    def _bands_fit(self) -> Codebook:
        for name, variable in self.variables.items():
            if not isinstance(variable, BandVariable):
                continue
            whole = self.variables.get(variable.of)
            if not isinstance(whole, IntegerVariable):
                integers = [
                    other for other, kind in self.variables.items() if isinstance(kind, IntegerVariable)
                ]
                allowed = ", ".join(integers) or "there is none"
                raise broken(
                    f"variables.{name}.of", f"must name an integer variable ({allowed}), not {variable.of!r}"
                )
            for index, cut in enumerate(variable.cuts):
                if not whole.lower < cut <= whole.upper:
                    raise broken(
                        f"variables.{name}.cuts[{index}]",
                        f"is {cut}; it must be above {whole.lower} and at most {whole.upper}",
                    )
            if whole.unknown in variable.labels:
                raise broken(f"variables.{name}.labels", f"repeat the unknown label of {variable.of}")
        return self

    @property
    def mapped(self) -> dict[str, CategoryVariable | IntegerVariable]:
        """Return the variables that a silo maps: all but the derived ones."""
        return {name: kind for name, kind in self.variables.items() if not isinstance(kind, BandVariable)}

    def base(self, name: str) -> str:
        """Return the mapped variable that ``name`` is or is derived from."""
        variable = self.variables[name]
        return variable.of if isinstance(variable, BandVariable) else name

    def unknown(self, name: str) -> str | None:
        """Return the label of the variable's unknown category, or None; a band has that of its integer."""
        base = self.variables[self.base(name)]
        return None if isinstance(base, BandVariable) else base.unknown

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the variable's categories in order, unknown last where declared.

        An integer variable has one for each whole number in its bounds.
        """
        variable = self.variables[name]
        if isinstance(variable, CategoryVariable):
            known = variable.known
        elif isinstance(variable, IntegerVariable):
            known = tuple(str(value) for value in range(variable.lower, variable.upper + 1))
        else:
            known = variable.labels
        unknown = self.unknown(name)
        return known if unknown is None else (*known, unknown)

    def size(self, name: str) -> int:
        """Return the number of the variable's categories without making their labels."""
        variable = self.variables[name]
        if isinstance(variable, IntegerVariable):
            known = variable.upper - variable.lower + 1
        else:
            known = len(variable.known if isinstance(variable, CategoryVariable) else variable.labels)
        return known + (self.unknown(name) is not None)

    def digest(self) -> str:
        """Return the SHA-256 of the codebook's content, in hexadecimal, whatever its file looks like."""
        return digest({"codebook": self.model_dump(mode="json")})


def load_codebook(path: str | Path) -> Codebook:
    """Read the codebook at ``path``; raises :class:`~mpc_engine.errors.DocumentError`."""
    return load(path, Codebook)


def _refuse_repeats(path: str, labels: tuple[str, ...] | list[str]) -> None:
    seen: set[str] = set()
    for index, label in enumerate(labels):
        if label in seen:
            raise broken(f"{path}[{index}]", f"the label {label!r} occurs twice")
        seen.add(label)
