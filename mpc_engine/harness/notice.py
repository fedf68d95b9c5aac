"""Who noticed that something was wrong, by the parties' journals."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from mpc_engine.harness.record import Happened, Noted, Run

LINE_DOWN: Final = "LINE_DOWN"
"""The reason of a notice that a party's connection has broken."""
_WRONG: Final = frozenset(
    {
        "line.refused",
        "session.aborted",
        "session.count_failed",
        "session.declined",
        "session.failed",
        "session.lost",
        "session.not_published",
        "session.publish_failed",
        "session.retried",
        "request.stuck",
        "party.refused",
    }
)
_MOMENT_S: Final = 0.05
"""The clock of a journal and that by which a fault is timed may differ so much."""
_AFTER_S: Final = 5.0
"""What is noted later than this after a fault was over has other causes."""


@dataclass(frozen=True)
class Notice:
    """A party noted that something was wrong; `reason` is one of the catalogue of errors, or LINE_DOWN."""

    at_s: float
    by: str
    reason: str
    event: str


def notices(run: Run, happened: Happened) -> Iterator[Notice]:
    """Yield what others than the party that a fault befell noted while it lasted, in order of time."""
    if happened.began_s is None:
        return
    fault, began = happened.fault, happened.began_s
    until = inf if happened.ended_s is None else happened.ended_s + _AFTER_S
    found = [
        (noted.at_s, party.name, noted)
        for party in run.parties.values()
        if party.name != fault.party
        for noted in party.journal
        if began - _MOMENT_S <= noted.at_s <= until
    ]
    for at_s, by, noted in sorted(found, key=lambda each: each[:2]):
        reason = _reason(noted, fault.parties)
        if reason:
            yield Notice(at_s, by, reason, noted.event)


def first_notice(
    run: Run, happened: Happened, reason: str = "", events: Container[str] | None = None
) -> Notice | None:
    """Return the first notice of a fault, with this `reason` and one of these `events` where they are given.

    Returns None if there is none.
    """
    for each in notices(run, happened):
        if reason in ("", each.reason) and (events is None or each.event in events):
            return each
    return None


def _reason(noted: Noted, parties: tuple[str, ...]) -> str:
    """Return why an entry tells of trouble, "" if it does not."""
    if noted.event == "line.down" and noted.fields.get("peer") in parties:
        return LINE_DOWN
    if noted.event in _WRONG:
        return str(noted.fields.get("reason", "")) or noted.event
    return ""
