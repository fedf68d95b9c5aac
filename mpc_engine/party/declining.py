"""Telling the others that a session will not take place: by way of the sequencer, who tells all.

Once a session has a link, its parties tell each other over that; what is said here is for before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mpc_engine.errors import DataError, DocumentError, EngineError, LocalComputeError, StoppedError
from mpc_engine.party.desk import SEQUENCER
from mpc_engine.party.journal import Journal
from mpc_engine.party.lines import Declined
from mpc_engine.party.post import Post
from mpc_engine.party.situation import Situation

_DETAIL: Final = 4000


def public(name: str, error: EngineError) -> EngineError:
    """Return a party's failure as others may know it: nothing of its own files and records."""
    if isinstance(error, DataError | DocumentError):
        return LocalComputeError(f"{name}: see its own log")
    return error


class Declining:
    """What one party says of sessions that it does not begin, or that end before they have a link."""

    def __init__(self, post: Post, situation: Callable[[], Situation], journal: Journal) -> None:
        self._post, self._situation, self._journal = post, situation, journal
        self._cut_off: list[str] = []

    def decline(self, ticket: str, error: EngineError) -> None:
        """Tell the sequencer that this party does not take part."""
        here = self._situation()
        self._journal("session.declined", ticket=ticket, reason=error.reason)
        if here.number != SEQUENCER:
            told = public(here.name, error)
            words = str(told) if str(told).startswith(here.name) else f"{here.name}: {told}"
            self._say(SEQUENCER, ticket, told, words)

    def call_off(self, ticket: str, failure: EngineError) -> None:
        """Tell the sequencer, or as the sequencer all, that a session has ended here before it had a link."""
        here = self._situation()
        for peer in here.peers if here.number == SEQUENCER else (SEQUENCER,):
            told = public(here.name, failure)
            self._say(peer, ticket, told, str(told))

    def cut_off(self, ticket: str) -> None:
        """Remember a session that a stop of this party ended, to tell of it as soon as a line stands."""
        self._cut_off.append(ticket)

    def line_up(self, peer: int) -> None:
        """Tell a peer what was cut off.

        The others would wait for this party until their deadline; where this message is lost they still do.
        """
        here = self._situation()
        if SEQUENCER in (peer, here.number):
            for ticket in self._cut_off:
                self._say(peer, ticket, StoppedError(), f"{here.name} was stopped")

    def _say(self, peer: int, ticket: str, error: EngineError, words: str) -> None:
        self._post.say(peer, Declined(ticket=ticket, reason=error.reason, detail=words[:_DETAIL]))
