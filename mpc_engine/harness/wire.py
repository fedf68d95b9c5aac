"""One direction between two ends: packets wait here for as long as the weather says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from mpc_engine.harness.packets import HEADER, Flow, Packet

LEAST_QUEUE: Final = 1 << 18
"""Bytes that wait for a link of limited rate before more is dropped, at the least."""

Struck = Callable[[Packet], Sequence[bytes]]
"""Given the last segment that came through; returns what follows it."""


class Wire:
    """Packets on their way from one end to another. Times are in seconds on any one clock.

    Packets never overtake each other: jitter stretches and squeezes the gaps between them, as queues do.
    """

    def __init__(self, seed: Sequence[int]) -> None:
        self._random = np.random.default_rng(seed)  # noqa: TID251 – when packets are lost is no secret
        self._delay_s = self._jitter_s = self._loss = 0.0
        self._bytes_per_s = math.inf
        self._queue: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0  # when the link has sent what waits
        self._last = 0.0
        self._cut_until = 0.0
        self._after: dict[Flow, int] = {}
        self._armed: tuple[int, Struck] | None = None
        self._dead: set[Flow] = set()
        self._counts = {"packets": 0, "bytes": 0, "payload": 0, "lost": 0, "cut": 0, "overflowed": 0}

    def weather(
        self,
        delay_ms: float = 0,
        jitter_ms: float = 0,
        loss: float = 0,
        rate_mbit: float | None = None,
    ) -> None:
        """Set the weather: each packet is delayed by `delay_ms` plus up to `jitter_ms`, evenly spread."""
        self._delay_s, self._jitter_s, self._loss = delay_ms / 1e3, jitter_ms / 1e3, loss
        self._bytes_per_s = math.inf if rate_mbit is None else rate_mbit * 125_000

    def cut(self, until: float) -> None:
        """Drop everything until then, also what is under way."""
        self._cut_until = until

    def heal(self) -> None:
        """Undo a cut at once, and forget a reset that has not come yet."""
        self._cut_until, self._armed = 0.0, None

    def arm(self, count: int, struck: Struck) -> None:
        """Call `struck` once `count` more bytes of payload have come; nothing of that flow follows them."""
        self._armed = (count, struck)

    def traffic(self) -> dict[str, int]:
        """Return what came, in packets, bytes with headers and payload, and how many packets were dropped."""
        return dict(self._counts)

    # --- packets ------------------------------------------------------------------------------------

    def take(self, content: bytes, now: float) -> None:
        """Take a packet from the sender, or lose it."""
        if now < self._cut_until:
            self._counts["cut"] += 1
            return
        if self._loss and self._random.random() < self._loss:
            self._counts["lost"] += 1
            return
        rate, delay_s = self._bytes_per_s, self._delay_s
        if math.isfinite(rate):
            # A queue of one round trip, or a burst of a few packets would be lost on any slow link.
            if (self._free_at - now) * rate > max(LEAST_QUEUE, 2 * delay_s * rate):
                self._counts["overflowed"] += 1
                return
            self._free_at = max(now, self._free_at) + (len(content) - HEADER) / rate
        else:
            self._free_at = now
        if self._jitter_s:
            delay_s += self._jitter_s * self._random.random()
        self._last = max(self._last, self._free_at + delay_s)
        self._queue.append((self._last, content))

    @property
    def next_due(self) -> float:
        """When the next packet arrives; infinite if none is under way."""
        return self._queue[0][0] if self._queue else math.inf

    def due(self, now: float) -> list[bytes]:
        """Return the packets that have arrived by now."""
        arrived: list[bytes] = []
        while self._queue and self._queue[0][0] <= now:
            _, content = self._queue.popleft()
            if now < self._cut_until:
                self._counts["cut"] += 1
                continue
            arrived += self._arrive(content)
        return arrived

    def _arrive(self, content: bytes) -> Sequence[bytes]:
        self._counts["packets"] += 1
        self._counts["bytes"] += len(content) - HEADER
        packet = Packet.read(content)
        if packet is None:
            return [content]
        self._counts["payload"] += packet.size
        if packet.flow in self._dead:
            return []
        if self._armed is not None and packet.size:
            left, struck = self._armed
            if packet.size >= left:
                self._armed = None
                self._dead.add(packet.flow)
                head = Packet.read(packet.shortened(left))
                return [] if head is None else [*([head.content] if left else []), *struck(head)]
            self._armed = (left - packet.size, struck)
        self._after[packet.flow] = packet.after
        return [content]

    def reset(self, opposite: Packet) -> list[bytes]:
        """Return a reset for the end of this wire, of the connection of a segment of the opposite wire."""
        source, port, target, other = opposite.flow
        flow = (target, other, source, port)
        self._dead.add(flow)
        # What came through last tells what is expected; if nothing did, that segment says so itself.
        return [opposite.answering_reset(self._after.get(flow))]
