"""Queries: declarative documents with a closed vocabulary, one model per preset.

:class:`Query` holds what all presets share – filters and privacy parameters. A preset adds its own keys
and says which axes it lays out. A query is valid on its own when it has been read; it meets the codebook
in :meth:`Query.layout`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from fractions import Fraction
from math import prod
from typing import Annotated, Any, Final, Literal

from mpc_engine.codebook import MAX_VALUE, BandVariable, CategoryVariable, Codebook, IntegerVariable, Name
from mpc_engine.documents import (
    AfterValidator,
    BeforeValidator,
    Document,
    Field,
    StringConstraints,
    broken,
    digest,
    model_validator,
    refuse,
)
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.statistics.layout import AxisRule, Layout, Selection

LARGEST_DELTA: Final = Fraction(1, 1000)
"""Largest δ a query may ask for; a party's policy usually allows far less."""
MAX_CELLS: Final = 4_000_000
"""Most cells of one release."""
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")

_TOO_MANY: Final = f"asks for more than {MAX_CELLS} cells; use fewer variables or wider bands"

Problems = list[tuple[str, str]]
"""Faults found so far: key path and what is allowed there."""


def _decimal(text: str) -> str:
    if not _DECIMAL.fullmatch(text):
        raise ValueError('must be a decimal number in quotes, such as "1", "0.5" or "1e-6"')
    if Fraction(text) <= 0:
        raise ValueError("must be greater than 0")
    return text


def _small(text: str) -> str:
    if Fraction(text) > LARGEST_DELTA:
        raise ValueError("must be at most 0.001: δ is a chance of failure, far below one over the population")
    return text


def _label_or_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("must be a label in quotes or a whole number")
    return value


Decimal = Annotated[str, AfterValidator(_decimal)]
"""A positive decimal number as text; exact, unlike a float."""
Item = Annotated[str | int, BeforeValidator(_label_or_number)]


class Where(Document):
    """A filter on one variable: ``in`` a list of labels or numbers, or ``between`` two numbers, inclusive."""

    variable: Name
    in_: Annotated[tuple[Item, ...] | None, Field(alias="in", min_length=1, max_length=10_000)] = None
    between: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> Where:
        if (self.in_ is None) == (self.between is None):
            raise broken("", "needs either `in` or `between`, not both and not neither")
        if self.between is not None and self.between[0] > self.between[1]:
            raise broken("between", f"starts at {self.between[0]}, above its end {self.between[1]}")
        return self

    def selection(self, codebook: Codebook, path: str, problems: Problems) -> Selection | None:
        """Return the filter on coded values; a fault is added to ``problems`` under ``path`` instead."""
        if not _known(self.variable, f"{path}.variable", codebook, problems):
            return None
        if self.between is not None:
            return self._between(self.between, codebook, f"{path}.between", problems)
        return self._in(self.in_ or (), codebook, f"{path}.in", problems)

    def _between(
        self, ends: tuple[int, int], codebook: Codebook, path: str, problems: Problems
    ) -> Selection | None:
        variable = codebook.variables[self.variable]
        if not isinstance(variable, IntegerVariable):
            problems.append((path, f"needs an integer variable; {self.variable} has categories, so use `in`"))
            return None
        for index, end in enumerate(ends):
            if not variable.lower <= end <= variable.upper:
                allowed = f"{self.variable} runs from {variable.lower} to {variable.upper}"
                problems.append((f"{path}[{index}]", f"is {end}, but {allowed}"))
        return Selection(self.variable, (ends,))

    def _in(
        self, items: tuple[str | int, ...], codebook: Codebook, path: str, problems: Problems
    ) -> Selection | None:
        unknown = codebook.unknown(self.variable)
        ranges: list[tuple[int, int]] = []
        for index, item in enumerate(items):
            if item in items[:index]:
                problems.append((f"{path}[{index}]", f"{item!r} occurs twice"))
            elif item != unknown or unknown is None:
                found = _range(item, self.variable, codebook)
                if found is None:
                    allowed = _allowed(self.variable, codebook)
                    problems.append(
                        (f"{path}[{index}]", f"{item!r} is not in the codebook; allowed: {allowed}")
                    )
                else:
                    ranges.append(found)
        return Selection(
            codebook.base(self.variable), _merged(ranges), unknown is not None and unknown in items
        )


class Privacy(Document):
    """The privacy parameters that a query asks for; each party's policy may refuse them."""

    epsilon: Decimal
    rule: Literal["noisy", "strict", "exact"] = "noisy"
    threshold: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    delta: Annotated[Decimal, AfterValidator(_small)] | None = None
    max_records_per_patient: Annotated[int, Field(ge=1, le=1_000)] = 1

    @model_validator(mode="after")
    def _delta_goes_with_strict(self) -> Privacy:
        if self.rule == "strict" and self.delta is None:
            raise broken("delta", 'is required with rule = "strict", for example "1e-6"')
        if self.rule != "strict" and self.delta is not None:
            raise broken("delta", f'belongs to rule = "strict"; rule = "{self.rule}" has none')
        return self

    @property
    def epsilon_exact(self) -> Fraction:
        """Return ε as an exact fraction."""
        return Fraction(self.epsilon)

    @property
    def delta_exact(self) -> Fraction | None:
        """Return δ as an exact fraction, None where the rule has none."""
        return None if self.delta is None else Fraction(self.delta)


class Query(Document):
    """What all presets share. A preset gives ``preset`` one literal value and implements :meth:`axes`."""

    preset: str
    title: Annotated[str, StringConstraints(max_length=200)] = ""
    where: Annotated[tuple[Where, ...], Field(max_length=32)] = ()
    privacy: Privacy

    @abstractmethod
    def axes(self, codebook: Codebook, problems: Problems) -> list[tuple[Axis, AxisRule]]:
        """Return the axes in order, slowest first; faults go to ``problems`` with their key path."""

    def layout(self, codebook: Codebook) -> Layout:
        """Return the grid of cells and what a silo evaluates to fill it.

        Raises :class:`~mpc_engine.errors.DocumentError` naming every key that does not fit the codebook,
        or if the grid has more than :data:`MAX_CELLS` cells.
        """
        problems: Problems = []
        axes = self.axes(codebook, problems)
        found = [
            where.selection(codebook, f"where[{index}]", problems) for index, where in enumerate(self.where)
        ]
        if not problems and prod(len(axis.categories) for axis, _ in axes) > MAX_CELLS:
            problems.append(("", _TOO_MANY))
        if problems:
            raise refuse(self.origin, problems)
        return Layout(
            Grid(tuple(axis for axis, _ in axes)),
            tuple(rule for _, rule in axes),
            tuple(selection for selection in found if selection is not None),
            self.privacy.max_records_per_patient,
        )

    def grid(self, codebook: Codebook) -> Grid:
        """Return the grid of cells; errors as :meth:`layout`."""
        return self.layout(codebook).grid

    def digest_fields(self) -> dict[str, object]:
        """Return the query as plain fields, equal for documents that ask the same with the same keys.

        Nothing depends on the order of keys, of the filters and of the items of ``in``, on the notation of
        ε and δ, or on whether a default is written out. The title and the order of the axes do count, and
        ``edges`` are not the same as the ``bins`` between them.
        """
        fields: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for where in fields["where"]:
            if "in" in where:
                where["in"] = sorted(where["in"], key=lambda item: (isinstance(item, str), item))
        fields["where"] = sorted(fields["where"], key=repr)
        fields["privacy"] = {
            **self.privacy.model_dump(mode="json", exclude_none=True, exclude={"epsilon", "delta"}),
            "epsilon": str(self.privacy.epsilon_exact),
            **({} if self.privacy.delta_exact is None else {"delta": str(self.privacy.delta_exact)}),
        }
        return fields

    def digest(self) -> str:
        """Return the SHA-256 of :meth:`digest_fields`, in hexadecimal."""
        return digest({"query": self.digest_fields()})


def variable_axis(
    name: str, path: str, codebook: Codebook, problems: Problems
) -> list[tuple[Axis, AxisRule]]:
    """Return the axis of a variable's own categories, as a list of one; empty after a fault at ``path``."""
    if not _known(name, path, codebook, problems):
        return []
    variable = codebook.variables[name]
    labels = codebook.labels(name)
    unknown = None if codebook.unknown(name) is None else len(labels) - 1
    if isinstance(variable, BandVariable):
        rule = AxisRule(variable.of, cuts=variable.cuts, unknown=unknown)
    else:
        offset = variable.lower if isinstance(variable, IntegerVariable) else 0
        rule = AxisRule(name, offset=offset, unknown=unknown)
    return [(Axis(name, labels), rule)]


def variable_axes(
    names: tuple[str, ...], path: str, codebook: Codebook, problems: Problems
) -> list[tuple[Axis, AxisRule]]:
    """Return the axes of several variables in order; a repeated or unknown name is a fault at ``path``.

    More than :data:`MAX_CELLS` cells are a fault too, found before any axis is laid out.
    """
    axes: list[tuple[Axis, AxisRule]] = []
    sizes = [codebook.size(name) if name in codebook.variables else 1 for name in names]
    if prod(sizes) > MAX_CELLS:
        wide = [(index, name) for index, name in enumerate(names) if sizes[index] > MAX_CELLS]
        advice = "has too many values for an axis; use a band or a histogram of it"
        problems.extend((f"{path}[{index}]", f"{name} {advice}") for index, name in wide)
        problems.extend([] if wide else [("", _TOO_MANY)])
        return axes
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append((f"{path}[{index}]", f"{name!r} occurs twice"))
        else:
            axes.extend(variable_axis(name, f"{path}[{index}]", codebook, problems))
    return axes


def _known(name: str, path: str, codebook: Codebook, problems: Problems) -> bool:
    if name in codebook.variables:
        return True
    known = ", ".join(codebook.variables)
    problems.append((path, f"the codebook has no variable {name!r}; it has: {known}"))
    return False


def _range(item: str | int, name: str, codebook: Codebook) -> tuple[int, int] | None:
    """Return the coded values, first and last, of one known category or number; None if there is none."""
    variable = codebook.variables[name]
    if isinstance(variable, IntegerVariable):
        known = isinstance(item, int) and variable.lower <= item <= variable.upper
        return (int(item), int(item)) if known else None
    labels = variable.known if isinstance(variable, CategoryVariable) else variable.labels
    if not isinstance(item, str) or item not in labels:
        return None
    index = labels.index(item)
    if isinstance(variable, CategoryVariable):
        return index, index
    # The outer bands reach as far as any value may; the codebook's bounds keep them within.
    edges = (-MAX_VALUE, *variable.cuts, MAX_VALUE + 1)
    return edges[index], edges[index + 1] - 1


def _allowed(name: str, codebook: Codebook) -> str:
    variable = codebook.variables[name]
    if isinstance(variable, IntegerVariable):
        numbers = f"whole numbers from {variable.lower} to {variable.upper}"
        return numbers if variable.unknown is None else f"{numbers}, or {variable.unknown!r}"
    labels = codebook.labels(name)
    shown = ", ".join(repr(label) for label in labels[:20])
    return shown if len(labels) <= 20 else f"{shown} and {len(labels) - 20} more"


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)
