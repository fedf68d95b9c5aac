"""What lies between parties in one process: cables, what flows over them, and what befalls it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from mpc_engine.runtime.link import MessageKey

QUEUE_BYTES = 4 << 20
"""How much may wait for one peer before a line takes nothing more."""
MESSAGE_COST = 512
"""Bytes charged for each waiting message on top of its length."""


class Faults:
    """What befalls messages; as it stands, nothing. Subclasses draw it from a seed or follow a script."""

    def latency_s(self, sender: int, receiver: int) -> float:
        """Return how long the next message of a line or link takes at least; order is kept."""
        return 0.0

    def line_copies(self, sender: int, receiver: int, message: bytes) -> Sequence[float] | None:
        """Return when copies of a line's message arrive, in seconds from now and in any order.

        None: one copy, in order with the others. An empty sequence: none.
        """
        return None

    def link_message(
        self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes
    ) -> bytes:
        """Return what becomes of a link's message: its content, or other bytes in its place."""
        return content


class Flow:
    """Carries what is sent one way, in order and not before its time. A broken flow carries nothing."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.Handle | None = None
        self._broken = False

    def send(self, delay_s: float, arrive: Callable[[], None]) -> None:
        """Call `arrive` after `delay_s` seconds, and after everything that was sent before."""
        if self._broken:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, arrive))
        if self._timer is None:
            self._timer = loop.call_at(due, self._carry_out)

    async def settle(self, limit: float) -> None:
        """Wait until everything that was sent has arrived, until the loop's time ``limit`` at the longest."""
        loop = asyncio.get_running_loop()
        while self._waiting and loop.time() < limit:
            await asyncio.sleep(max(min(self._waiting[-1][0], limit) - loop.time(), 0.0))

    def cut(self) -> None:
        """Lose everything under way, and all that follows."""
        self._broken = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _carry_out(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self._waiting.popleft()[1]()
        self._timer = loop.call_at(self._waiting[0][0], self._carry_out) if self._waiting else None


class Cable:
    """What connects two parties: whether it holds, and the line over it."""

    def __init__(self, one: int, two: int) -> None:
        self.ends = (one, two)
        self.holds = True
        self.line: dict[int, Flow] = {}
        """The line's flow from each end, while it stands."""
        self.queued = {one: 0, two: 0}
        self.attempt: asyncio.TimerHandle | None = None
