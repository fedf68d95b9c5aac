"""How a report writes small numbers, and what a p-value means in so many runs."""

from __future__ import annotations

import re
from typing import Final

_POWER: Final = re.compile(r"^(-?[0-9.]+)e([+-])0*([0-9]+)$")
_SMALL: Final = re.compile(r"\b0\.000[0-9]+\b")
_SYMBOLS: Final = {"epsilon": "ε", "delta": "δ", "<=": "≤"}
_NEVER: Final = 1e-6
"""Chance below which only that is said."""


def short(value: float, digits: str = ".3g") -> str:
    """Return a number with few digits, powers of ten written out: 0.588, 1.6·10^-9, 10^-6."""
    found = _POWER.match(format(value, digits))
    if not found:
        return format(value, digits)
    factor, sign, exponent = found.groups()
    power = f"10^{'-' if sign == '-' else ''}{exponent}"
    return power if float(factor) == 1 else f"{factor}·{power}"


def in_runs(p: float) -> str:
    """Return how often something of chance `p` comes, for people who read no p-values."""
    if p < _NEVER:
        return "in fewer than 1 in a million runs"
    if p >= 0.995:
        return "in nearly every run"
    if p >= 0.0095:
        return f"in {100 * p:.0f} of 100 runs"
    return f"in 1 of {float(f'{1 / p:.2g}'):,.0f} runs"


def at_least(p: float) -> str:
    """Return the bound of a p-value as a claim has it."""
    return f"p ≥ {short(p)}"


def in_symbols(statement: str) -> str:
    """Return a statement of a guarantee with the symbols and powers that tables and verdicts have."""
    for word, symbol in _SYMBOLS.items():
        statement = statement.replace(word, symbol)
    return _SMALL.sub(lambda found: short(float(found[0])), statement)
