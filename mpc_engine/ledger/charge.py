"""What a release costs and what may be spent: ε and δ as integers, never as fractions or floats."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mpc_engine.errors import DocumentError

MICRO = 10**6
"""Micro-ε in one ε."""
DELTA_BITS = 100
"""δ is counted in units of 2^-100."""
LARGEST_MICRO_EPSILON = 10**15
"""No single charge is larger; sums of them stay far below 2^63, the largest integer of the database."""

ScopeKind = Literal["dataset", "project", "analyst"]
ORDER: tuple[ScopeKind, ...] = ("analyst", "project", "dataset")
"""Budgets are taken in this order at every party, so that sessions cannot wait for each other in a ring."""


@dataclass(frozen=True)
class Charge:
    """An amount of privacy budget: ``micro_epsilon`` in 10^-6, ``delta`` in 2^-100, both whole numbers."""

    micro_epsilon: int
    delta: int = 0

    @classmethod
    def of(cls, epsilon: Fraction, delta: Fraction | None) -> Charge:
        """Return the charge for ``epsilon`` and ``delta`` (``None``: pure DP), both rounded up.

        Raises :class:`DocumentError` for a negative amount, ε above 10^9 or δ above 1.
        """
        probability = Fraction(0) if delta is None else delta
        if not 0 <= epsilon <= LARGEST_MICRO_EPSILON // MICRO:
            raise DocumentError("ε must lie between 0 and 10^9")
        if not 0 <= probability <= 1:
            raise DocumentError("δ must lie between 0 and 1")
        return cls(_ceil(epsilon * MICRO), _ceil(probability * 2**DELTA_BITS))

    @property
    def epsilon(self) -> Fraction:
        """The ε counted, at least the ε that was asked for."""
        return Fraction(self.micro_epsilon, MICRO)

    @property
    def probability(self) -> Fraction:
        """The δ counted, at least the δ that was asked for."""
        return Fraction(self.delta, 2**DELTA_BITS)

    @property
    def words(self) -> str:
        """The amount as people read it: ``ε = 0.5`` or ``ε = 1, δ = 2^-64``."""
        epsilon = f"ε = {micro_words(self.micro_epsilon)}"
        return epsilon if self.delta == 0 else f"{epsilon}, δ {delta_words(self.delta)}"

    def __add__(self, other: Charge) -> Charge:
        return Charge(self.micro_epsilon + other.micro_epsilon, self.delta + other.delta)

    def __sub__(self, other: Charge) -> Charge:
        return Charge(self.micro_epsilon - other.micro_epsilon, self.delta - other.delta)


NOTHING = Charge(0, 0)


@dataclass(frozen=True)
class Scope:
    """What a budget belongs to: a data set (across its snapshots), a project, or an analyst."""

    kind: ScopeKind
    name: str

    @property
    def words(self) -> str:
        """The scope as people read it: ``data set "nordic"``."""
        return f'{"data set" if self.kind == "dataset" else self.kind} "{self.name}"'


@dataclass(frozen=True)
class Limit:
    """The most that may ever be spent of a scope; ``None`` means no limit of that amount."""

    scope: Scope
    micro_epsilon: int | None
    delta: int | None

    def allows(self, total: Charge) -> bool:
        """Whether ``total``, all that is spent and held with what is asked for, lies within the limit."""
        return (self.micro_epsilon is None or total.micro_epsilon <= self.micro_epsilon) and (
            self.delta is None or total.delta <= self.delta
        )

    @property
    def words(self) -> str:
        """The limit as people read it."""
        epsilon = (
            "ε without limit" if self.micro_epsilon is None else f"ε = {micro_words(self.micro_epsilon)}"
        )
        delta = "δ without limit" if self.delta is None else f"δ {delta_words(self.delta)}"
        return f"{epsilon}, {delta}"


def micro_words(micro: int) -> str:
    """Return micro-ε as a decimal number without needless zeros."""
    sign, (whole, rest) = "-" if micro < 0 else "", divmod(abs(micro), MICRO)
    return f"{sign}{whole}" if rest == 0 else f"{sign}{whole}.{rest:06d}".rstrip("0")


def delta_words(delta: int) -> str:
    """Return ``= 0``, ``= 2^-64`` for a power of two, else two digits rounded up: ``≤ 3.3 × 10^-7``."""
    if delta <= 0:
        return "= 0" if delta == 0 else "below 0"
    if delta & (delta - 1) == 0:
        power = delta.bit_length() - 1 - DELTA_BITS
        return "= 1" if power == 0 else f"= 2^{power}"
    value, power = Fraction(delta, 2**DELTA_BITS), 0
    while value < 1:
        value, power = value * 10, power - 1
    while value >= 10:
        value, power = value / 10, power + 1
    tenths = _ceil(value * 10)
    if tenths == 100:
        tenths, power = 10, power + 1
    digits = f"{tenths // 10}.{tenths % 10}"
    return f"≤ {digits}" if power == 0 else f"≤ {digits} × 10^{power}"


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
