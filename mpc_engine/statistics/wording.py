"""A codebook's words in sentences: units, short descriptions of categories, and filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mpc_engine.codebook import CategoryVariable, Codebook, IntegerVariable

LONGEST: Final = 40
"""Letters of a description up to which it stands beside a label."""
SHORT: Final = 24
"""Letters of a description up to which it is left whole."""
_CALENDAR: Final = (1800, 2200)


def listed(items: Sequence[str], word: str = "and") -> str:
    """Return items as the middle of a sentence."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def unit_of(codebook: Codebook, name: str) -> str:
    """Return the unit of an integer variable or of a band of one; "" where it says nothing, as for years."""
    if name not in codebook.variables:
        return ""
    base = codebook.variables[codebook.base(name)]
    if not isinstance(base, IntegerVariable) or calendar(base) or base.unit in ("number", "year"):
        return ""
    return base.unit


def calendar(variable: IntegerVariable) -> bool:
    """Return whether the values look like calendar years."""
    return _CALENDAR[0] <= variable.lower and variable.upper <= _CALENDAR[1]


def conditions(codebook: Codebook, where: Sequence[Any]) -> str:
    """Return filters as the middle of a sentence, in the codebook's order, such as "sex F (female)"."""
    order = {name: place for place, name in enumerate(codebook.variables)}
    ordered = sorted(where, key=lambda each: order.get(each.variable, len(order)))
    return " and ".join(f"{each.variable} {_condition(codebook, each)}" for each in ordered)


def _condition(codebook: Codebook, where: Any) -> str:
    unit = unit_of(codebook, where.variable)
    own = isinstance(codebook.variables.get(where.variable), IntegerVariable)
    tail = f" {unit}" if unit and own else ""
    if where.between is not None:
        low, high = where.between
        return f"from {low} to {high}{tail}"
    labels = codebook.labels(where.variable) if codebook.countable(where.variable) else ()
    order = {label: place for place, label in enumerate(labels)}
    items = sorted(where.in_ or (), key=lambda item: order.get(str(item), -1))
    found = descriptions(codebook, where.variable)
    named = [f"{item} ({found[str(item)]})" if str(item) in found else str(item) for item in items]
    return listed(named, "or") + tail


def descriptions(codebook: Codebook, name: str) -> dict[str, str]:
    """Return the short descriptions of a variable's categories by label, where there are any."""
    variable = codebook.variables.get(name)
    if not isinstance(variable, CategoryVariable):
        return {}
    found = {each.label: short(each.description, LONGEST) for each in variable.categories}
    return {label: text for label, text in found.items() if text and text != label}


def short(text: str, most: int) -> str:
    """Return a description that is short enough, or its beginning up to a pause; "" if that is not either."""
    for pause in (";", ":"):
        start = text.partition(pause)[0]
        text = start if len(text) > SHORT and len(start) <= most else text
    if len(text) <= most:
        return text
    start = text.partition(",")[0]
    return f"{start}, …" if len(start) + 3 <= most else ""
