"""Shared values: one party's shares of a vector, as a type that cannot be looked at by accident.

A shared value has no truth value, no equality, no printable content and cannot be pickled. Adding,
subtracting and scaling by public numbers are local; everything else is a protocol.
"""

from __future__ import annotations

from typing import Final, NoReturn

from mpc_engine.field.binary import BinaryField, Planes
from mpc_engine.field.mersenne import MersenneField, Vector


class _Opaque:
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> NoReturn:
        raise TypeError("a shared value has no truth value: control flow depends on public values only")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("shared values cannot be compared outside a protocol")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a shared value is never stored or sent as an object")


class Shared(_Opaque):
    """Degree-t shares of a vector over F_p; `values` is loose and has the vector's shape."""

    __slots__ = ("field", "values")

    def __init__(self, field: MersenneField, values: Vector) -> None:
        self.field: Final = field
        self.values: Final = values

    def __repr__(self) -> str:
        return f"<Shared {self.field} {self.values.shape}>"

    def __add__(self, other: Shared) -> Shared:
        return Shared(self.field, self.field.add(self.values, other.values))

    def affine(self, scale: int, constant: int = 0) -> Shared:
        """Return scale·self + constant for public numbers."""
        return Shared(self.field, self.field.combine([scale], [self.values], constant))


class SharedBits(_Opaque):
    """Degree-t shares over GF(2^d); `planes` has shape (d, rows, words)."""

    __slots__ = ("field", "planes")

    def __init__(self, field: BinaryField, planes: Planes) -> None:
        self.field: Final = field
        self.planes: Final = planes

    def __repr__(self) -> str:
        return f"<SharedBits {self.field} {self.planes.shape[1:]}>"

    def __add__(self, other: SharedBits) -> SharedBits:
        return SharedBits(self.field, self.field.add(self.planes, other.planes))
