"""One party as the others reach it, and who of two parties dials the other."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_engine.errors import DocumentError


@dataclass(frozen=True)
class Endpoint:
    """One party of the roster: its number 1..m, its name, and how it is reached and known.

    `address` is ``host:port``, empty where nobody dials in; `certificates` are all certificates (PEM) that
    are trusted for that party now, newest first; `accepts` tells whether it lets others dial in.
    """

    number: int
    name: str
    address: str
    certificates: tuple[bytes, ...]
    accepts: bool = True


def dialler_of(one: Endpoint, other: Endpoint) -> int:
    """Return the number of the party that dials of the two.

    That is the one with the higher number, except that a party which accepts nobody always dials. Raises
    DocumentError if neither of them accepts.
    """
    if not one.accepts and not other.accepts:
        raise DocumentError(
            f"the parties {one.number} ({one.name}) and {other.number} ({other.name}) both accept no "
            "connections, so they cannot be connected with each other"
        )
    if one.accepts and other.accepts:
        return max(one.number, other.number)
    return other.number if one.accepts else one.number
