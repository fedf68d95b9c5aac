"""How the connection with one peer stands: for metrics, the doctor and the warning about clocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mpc_engine.identity.certificates import Clock


@dataclass(frozen=True)
class PeerStats:
    """One peer's connection at one moment.

    `since` is when the line came up, or, if it does not stand, when it broke or was first tried. Bytes are
    those of frames since the start, without TLS and TCP. `clock_skew_s` is the peer's wall clock less this
    party's, exact to half of `rtt_s`; both are None until a heartbeat came back. `last_error` says in words
    why the line broke or cannot be made, and is empty if it never failed.
    """

    connected: bool
    since: datetime
    rtt_s: float | None
    clock_skew_s: float | None
    line_bytes_in: int
    line_bytes_out: int
    link_bytes_in: int
    link_bytes_out: int
    last_error: str


class Flow:
    """Running totals of one peer's bytes."""

    __slots__ = ("line_in", "line_out", "link_in", "link_out")

    def __init__(self) -> None:
        self.line_in = self.line_out = self.link_in = self.link_out = 0


class Standing:
    """What is known of one peer's connection; `clock` tells wall-clock time."""

    def __init__(self, clock: Clock) -> None:
        self.flow = Flow()
        self.last_error = ""
        self.rtt_s: float | None = None
        self.clock_skew_s: float | None = None
        self._clock = clock
        self._connected = False
        self._since = clock()

    def up(self) -> None:
        """Note that the line stands."""
        self._connected, self._since = True, self._clock()

    def down(self, why: str) -> None:
        """Note that the line broke."""
        self._connected, self._since = False, self._clock()
        self.last_error = why

    def measured(self, rtt_s: float, clock_skew_s: float) -> None:
        """Note what a heartbeat showed."""
        self.rtt_s, self.clock_skew_s = rtt_s, clock_skew_s

    def stats(self) -> PeerStats:
        """Return how things stand now."""
        flow = self.flow
        return PeerStats(
            connected=self._connected,
            since=self._since,
            rtt_s=self.rtt_s,
            clock_skew_s=self.clock_skew_s,
            line_bytes_in=flow.line_in,
            line_bytes_out=flow.line_out,
            link_bytes_in=flow.link_in,
            link_bytes_out=flow.link_out,
            last_error=self.last_error,
        )
