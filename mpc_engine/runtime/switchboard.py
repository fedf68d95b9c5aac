"""The port of a service that runs for years: one party's standing connections to its peers.

Between two connected parties there is one *line*, over which short messages go both ways for as long as
both run, and any number of *links*, one for each session, which live as long as a phase of it. A line is
made again whenever it breaks; a link never is. Memory and gRPC are the two adapters, as of the `Link`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mpc_engine.runtime.link import Link

NAME_BYTES = 32
"""Length of a link's name."""
MAX_LINE_BYTES = 1 << 18
"""Longest message on a line."""


class Listener(Protocol):
    """What a switchboard tells its party. None of these may block; none may raise."""

    def line_up(self, peer: int) -> None:
        """The line with a peer stands: whatever was said before may have been lost."""

    def line_down(self, peer: int, why: str) -> None:
        """The line with a peer broke; it is being made again."""

    def heard(self, peer: int, message: bytes) -> None:
        """A message of at most `MAX_LINE_BYTES` came over the line, in the order in which it was said."""


class Switchboard(Protocol):
    """One party's lines and links. Parties are numbered 1..m by their place in the roster."""

    @property
    def me(self) -> int:
        """This party's number."""

    @property
    def peers(self) -> tuple[int, ...]:
        """The parties it has lines and links with: all others, but input-only ones not among themselves."""

    def connected(self, peer: int) -> bool:
        """Tell whether the line with a peer stands."""

    async def start(self, listener: Listener) -> None:
        """Begin to accept, dial and tell the listener. Raises DocumentError if the address is in use."""

    def say(self, peer: int, message: bytes) -> bool:
        """Queue a message for a peer; False, and nothing queued, if its line is down or will not take more.

        A message that was queued may still be lost if the line breaks.
        """

    def link(
        self,
        name: bytes,
        *,
        connect_timeout_s: float,
        round_timeout_s: float,
        max_ahead_bytes: int,
    ) -> AbstractAsyncContextManager[Link]:
        """Return a context that opens a link with all peers under a name of 32 bytes, and ends it.

        Every party that is to take part calls it with the same name, at about the same time: a peer's
        stream waits for this party's call, and this party for the peers', at most `connect_timeout_s`.
        Entering raises what `Link.receive` raises. Leaving ends the link in good order, or tells the peers of
        the error that leaves the block. A name may be used again once its link has ended here, not while it
        is open.
        """

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, end lines and links, and free the address; never raises."""
