"""What befalls messages among parties in one process: a network's weather, and what faults add to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory_lines import Faults
from mpc_engine.scenario.document import Network

if TYPE_CHECKING:
    from numpy.random import Generator  # noqa: TID251 – schedules are no secret

LEAST_DELAY_S = 0.000_2
"""How long a message takes in calm weather: a loopback's time, so that later is later."""
PACKET_BYTES = 1_448
"""Payload of a packet of Ethernet."""
TIMEOUT_S = 0.2
"""The least time after which a lost packet is sent again that no later one gives away: Linux's RTO."""
_FAST = 4
"""With so many packets of a message the receiver's repeated acknowledgements tell of a lost one at once."""

OnSent = Callable[[int, int, MessageKey, bytes, bytes], None]
"""Shown every message of a link as it is sent: sender, receiver, key, session id, content."""


@dataclass
class _Reset:
    """A reset that is to come: after `left` more bytes to `party` from any of `against`."""

    party: int
    against: frozenset[int]
    left: int
    come: Callable[[], None]


class Weather(Faults):
    """Delays of all messages as the scenario's network has them, and what faults do to some.

    TCP makes of a lost packet a later message: after a round trip if packets that follow give it away, else
    after `TIMEOUT_S`, which doubles each time it is lost again. A rate is each direction's own. Everything
    is drawn from `rng`.

    Args:
        names: the parties' names by number.
    """

    def __init__(self, network: Network, names: Sequence[str], rng: Generator) -> None:
        self._network, self._rng = network, rng
        self._names = dict(enumerate(names, start=1))
        self._size = 0
        self._busy_until: dict[tuple[int, int], float] = {}
        self._held: dict[frozenset[int], list[float]] = {}
        self._slow: dict[int, list[float]] = {}
        self._tampers: dict[int, list[Section]] = {}
        self._resets: list[_Reset] = []
        self.sent: dict[int, int] = dict.fromkeys(self._names, 0)
        """Payload of links that each party has sent, in bytes."""
        self.received: dict[int, int] = dict.fromkeys(self._names, 0)
        """Payload of links that has been sent to each party, in bytes."""
        self.on_sent: OnSent | None = None

    # --- faults -------------------------------------------------------------------------------------

    def hold(self, pairs: Iterable[frozenset[int]], until: float) -> Callable[[], None]:
        """Hold the messages between pairs of parties until a time of the loop; return what ends it."""
        chosen = list(pairs)
        for pair in chosen:
            self._held.setdefault(pair, []).append(until)

        def end() -> None:
            for pair in chosen:
                self._held[pair].remove(until)

        return end

    def slow(self, party: int, factor: float) -> Callable[[], None]:
        """Make all that a party sends take `factor` times as long; return what ends it."""
        self._slow.setdefault(party, []).append(factor)
        return lambda: self._slow[party].remove(factor)

    def tamper(self, party: int, section: Section) -> Callable[[], None]:
        """Flip a bit in each message of a section that a party sends; return what ends it."""
        self._tampers.setdefault(party, []).append(section)
        return lambda: self._tampers[party].remove(section)

    def reset_after(
        self, party: int, against: Iterable[int], bytes_: int, come: Callable[[], None]
    ) -> Callable[[], None]:
        """Call `come` once so many more bytes of links have been sent to a party; return what prevents it."""
        reset = _Reset(party, frozenset(against), bytes_, come)
        self._resets.append(reset)

        def end() -> None:
            if reset in self._resets:
                self._resets.remove(reset)

        return end

    # --- called by the exchange -----------------------------------------------------------------------

    def latency_s(self, sender: int, receiver: int) -> float:
        """Return how long the next message takes."""
        size, self._size = self._size, 0
        now = asyncio.get_running_loop().time()
        weather = self._network.between(self._names[sender], self._names[receiver])
        delay_s = weather.delay_ms / 1000
        if weather.jitter_ms:
            delay_s += weather.jitter_ms / 1000 * self._rng.random()
        delay_s = max(delay_s, LEAST_DELAY_S)
        if weather.rate_mbit is not None:
            ready = max(now, self._busy_until.get((sender, receiver), 0.0)) + size / (
                125_000 * weather.rate_mbit
            )
            self._busy_until[sender, receiver] = ready
            delay_s += ready - now
        if weather.loss:
            delay_s += self._lost_s(size, weather.loss, 2 * weather.delay_ms / 1000)
        for factor in self._slow.get(sender, ()):
            delay_s *= factor
        return max(
            delay_s, *(until - now for until in self._held.get(frozenset((sender, receiver)), ())), 0.0
        )

    def line_copies(self, sender: int, receiver: int, message: bytes) -> Sequence[float] | None:
        """Lines lose nothing by themselves: TCP carries them too."""
        self._size = len(message)
        return None

    def link_message(
        self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes
    ) -> bytes:
        """Count and show a message, and change it if its sender tampers."""
        if key.section in self._tampers.get(sender, ()) and content:
            content = self._flipped(content)
        self._size = len(content)
        self.sent[sender] += len(content)
        self.received[receiver] += len(content)
        if self.on_sent is not None:
            self.on_sent(sender, receiver, key, session, content)
        for reset in [each for each in self._resets if each.party == receiver and sender in each.against]:
            reset.left -= len(content)
            if reset.left < 0:
                self._resets.remove(reset)
                reset.come()
        return content

    # --- within -------------------------------------------------------------------------------------

    def _flipped(self, content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(self._rng.integers(len(changed)))] ^= 1 << int(self._rng.integers(8))
        return bytes(changed)

    def _lost_s(self, size: int, loss: float, trip_s: float) -> float:
        """Return what lost packets add to a message's time."""
        packets = max(1, -(-size // PACKET_BYTES))
        lost, waited, timeout_s = int(self._rng.binomial(packets, loss)), 0.0, max(TIMEOUT_S, 2 * trip_s)
        quickly = packets >= _FAST and lost < packets
        while lost:
            waited += trip_s if quickly else timeout_s
            timeout_s, quickly = timeout_s if quickly else 2 * timeout_s, False
            lost = int(self._rng.binomial(lost, loss))
        return waited
