"""The one port through which a party talks to others; memory and gRPC are its two adapters.

A *message* is what one party sends to one other in one round: raw bytes of a length that both know
from the agreed plan. It is identified by its key and by its sender, who is known from the channel,
never from the message. An adapter may cut a message into frames; protocols never see frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

Buffer = bytes | bytearray | memoryview
"""What may be sent; several are sent as one message, back to back."""


class Section(IntEnum):
    """The parts of a session, in order. Rounds are counted within a section."""

    CONTROL = 0
    PREPARE = 1
    INPUT = 2
    TEST = 3
    PATTERN = 4
    VALUES = 5


class MessageKey(NamedTuple):
    """Which message of a session: block of cells, section, round within the section."""

    chunk: int
    section: Section
    round: int


class Link(Protocol):
    """One party's connections to its peers within one session.

    Parties are numbered 1..m by their place in the roster; computing parties come first.
    """

    @property
    def me(self) -> int:
        """This party's number."""

    @property
    def peers(self) -> tuple[int, ...]:
        """Numbers of the parties this link is connected to, ascending, without `me`."""

    def bind_session(self, session_id: bytes) -> None:
        """Tie all further messages to a session; messages of any other session are refused from now on."""

    async def send(self, peer: int, key: MessageKey, parts: Sequence[Buffer]) -> None:
        """Send one message. Returns when the parts may be reused. Raises PeerError, DeadlineError."""

    async def receive(self, peer: int, key: MessageKey, size: int) -> memoryview:
        """Wait for the message `key` from `peer`; it must have exactly `size` bytes.

        Raises DeadlineError at the round's deadline, PeerError when the peer is lost,
        PeerAbortedError when it ended the session, ProtocolOrderError for another length.
        """

    async def receive_control(
        self, peer: int, key: MessageKey, limit: int, timeout_s: float | None = None, *, unbound: bool = False
    ) -> bytes:
        """Wait for a control message of at most `limit` bytes; same errors as `receive`.

        `timeout_s` replaces the round's deadline where a longer wait is in order. `unbound` says that it was
        sent before its sender bound the session, whether this party has bound it or not.
        """

    async def abort(self, reason: str, message: str) -> None:
        """Tell every peer that this party ends the session, and why; never raises."""

    async def finish(self) -> None:
        """Say goodbye and wait for every peer's; all sent messages are delivered first.

        A party says goodbye when it holds the result and found nothing wrong with it; input-only parties,
        who do not hear each other, get the computing parties' goodbye only after everyone else's. So
        no party ends well when another found a fault before its goodbye. (What befalls a party after
        its goodbye, others may not learn: no protocol can close that gap.) Raises PeerAbortedError
        when a peer ended the session instead, PeerError when one was lost, DeadlineError at the round's
        deadline; the others are told.
        """

    async def close(self) -> None:
        """As `finish`, but never raises."""
