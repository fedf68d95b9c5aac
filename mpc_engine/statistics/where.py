"""Filters: which records a query is about, by the values of one variable at a time."""

from __future__ import annotations

from typing import Annotated, Any

from mpc_engine.codebook import MAX_VALUE, CategoryVariable, Codebook, DateVariable, IntegerVariable, Name
from mpc_engine.documents import BeforeValidator, Document, Field, broken, model_validator
from mpc_engine.statistics.layout import Selection

Problems = list[tuple[str, str]]
"""Faults found so far: key path and what is allowed there."""


def _label_or_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("must be a label in quotes or a whole number")
    return value


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list, such as in = ["leukaemia"] or in = [8970, 9500]')
    return value


Item = Annotated[str | int, BeforeValidator(_label_or_number)]
Items = Annotated[tuple[Item, ...], BeforeValidator(_listed)]
"""What ``in`` lists."""


class Where(Document):
    """A filter on one variable: ``in`` a list of labels or numbers, or ``between`` two numbers or dates.

    Both ends of ``between`` are included; dates are written ``YYYY-MM-DD``.
    """

    variable: Name
    in_: Annotated[Items | None, Field(alias="in", min_length=1, max_length=10_000)] = None
    between: tuple[Item, Item] | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> Where:
        if (self.in_ is None) == (self.between is None):
            raise broken("", "needs either `in` or `between`, not both and not neither")
        return self

    def selection(self, codebook: Codebook, path: str, problems: Problems) -> Selection | None:
        """Return the filter on coded values; a fault is added to ``problems`` under ``path`` instead."""
        if not known(self.variable, f"{path}.variable", codebook, problems):
            return None
        if self.between is not None:
            return self._between(self.between, codebook, f"{path}.between", problems)
        return self._in(self.in_ or (), codebook, f"{path}.in", problems)

    def _between(
        self, ends: tuple[Item, Item], codebook: Codebook, path: str, problems: Problems
    ) -> Selection | None:
        variable = codebook.variables[self.variable]
        if not isinstance(variable, IntegerVariable | DateVariable):
            problems.append(
                (path, f"needs an integer or a date; {self.variable} has categories, so use `in`")
            )
            return None
        coded = [codebook.coded(self.variable, end) for end in ends]
        for index, (end, code) in enumerate(zip(ends, coded, strict=True)):
            if code is None:
                allowed = f"{self.variable} runs from {variable.lower} to {variable.upper}"
                problems.append((f"{path}[{index}]", f"is {end}, but {allowed}"))
        low, high = coded
        if low is None or high is None:
            return None
        if low > high:
            problems.append((path, f"starts at {ends[0]}, above its end {ends[1]}"))
        return Selection(self.variable, ((low, high),))

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


def known(name: str, path: str, codebook: Codebook, problems: Problems) -> bool:
    """Return whether the codebook has the variable; if not, that is a fault at ``path``."""
    if name in codebook.variables:
        return True
    names = ", ".join(codebook.variables)
    problems.append((path, f"the codebook has no variable {name!r}; it has: {names}"))
    return False


def _range(item: str | int, name: str, codebook: Codebook) -> tuple[int, int] | None:
    """Return the coded values, first and last, of one known category or number; None if there is none."""
    variable = codebook.variables[name]
    if isinstance(variable, IntegerVariable | DateVariable):
        code = codebook.coded(name, item)
        return None if code is None else (code, code)
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
    if isinstance(variable, DateVariable):
        return f"dates from {variable.lower} to {variable.upper}"
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
