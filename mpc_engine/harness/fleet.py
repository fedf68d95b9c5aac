"""The parties' processes: started, signalled, reaped, and started again as a supervisor would."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from mpc_engine.harness.children import Nursery, cpu_of, forget_peak, peak_of
from mpc_engine.harness.layout import Home
from mpc_engine.harness.logbook import last_words
from mpc_engine.harness.record import Usage

END_S: Final = 45.0
"""What a process is given to end; the service gives its sessions less when it is stopped."""
RESTART_S: Final = 1.0
"""What a supervisor waits before it starts a party again that has ended by itself."""
_LOOK_S: Final = 0.02


class Fleet:
    """The processes of all parties, by name. A party has one at a time."""

    def __init__(self, nursery: Nursery, homes: Mapping[str, Home], namespace: Callable[[str], str]) -> None:
        self._nursery, self._homes, self._namespace = nursery, homes, namespace
        self._pids: dict[str, int] = {}
        """Only of processes that nobody has reaped: no other process can have their numbers."""
        self._started: dict[str, float] = {}
        self._cpu_before: dict[str, float] = {}
        self._cpu_gone: dict[str, float] = {}
        self._peak_gone: dict[str, float] = {}

    async def start(self, name: str) -> None:
        """Start a party's process."""
        # Not to be interrupted: nobody else would know of the process.
        await asyncio.shield(asyncio.ensure_future(self._start(name)))

    async def _start(self, name: str) -> None:
        self._started[name] = time.monotonic()
        self._cpu_before[name] = 0.0
        self._pids[name] = await self._nursery.fork(self._homes[name], self._namespace(name))

    async def ended(self, name: str) -> str:
        """Return how a party's process ended, with its last words; "" while it runs."""
        if name not in self._pids:
            return "it has ended"
        # Not to be interrupted: that a process has ended is told once.
        return await asyncio.shield(asyncio.ensure_future(self._reaped(name)))

    async def _reaped(self, name: str) -> str:
        pid = self._pids[name]
        end = await self._nursery.poll(pid)
        if end is None:
            return "" if self._pids.get(name) == pid else "it has ended"
        del self._pids[name]
        cpu = end.cpu_s - self._cpu_before[name]
        self._cpu_gone[name] = self._cpu_gone.get(name, 0.0) + max(0.0, cpu)
        self._peak_gone[name] = max(self._peak_gone.get(name, 0.0), end.peak_mib)
        return f"it ended with status {end.status}: {last_words(self._homes[name])}"

    async def end(self, name: str) -> None:
        """Wait until a party's process has ended; one that takes too long is killed."""
        ends = time.monotonic() + END_S
        while not await self.ended(name):
            if time.monotonic() > ends:
                self.signal(name, signal.SIGKILL)
            await asyncio.sleep(_LOOK_S)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a party's process, if there is one."""
        if name in self._pids:
            with suppress(ProcessLookupError):
                os.kill(self._pids[name], number)

    async def restart(self, name: str) -> bool:
        """Start a party whose process has ended, but not too often; return whether that was done."""
        if not await self.ended(name) or time.monotonic() < self._started[name] + RESTART_S:
            return False
        await self.start(name)
        return True

    async def revive(self, name: str, serves: Callable[[str], Awaitable[bool]]) -> None:
        """Start a party whose process has ended, again and again until it serves."""
        await self.start(name)
        while not await serves(name):
            await self.restart(name)
            await asyncio.sleep(_LOOK_S)

    # --- what they use ----------------------------------------------------------------------------------

    def count_from_now(self) -> None:
        """Measure what is used from now on."""
        for name, pid in self._pids.items():
            forget_peak(pid)
            self._cpu_before[name] = cpu_of(pid)

    def usage(self, name: str, links: tuple[int, int]) -> Usage:
        """Return what all processes of a party have used; bytes are those that its present one says."""
        cpu, peak = self._cpu_gone.get(name, 0.0), self._peak_gone.get(name, 0.0)
        if name in self._pids:
            cpu += max(0.0, cpu_of(self._pids[name]) - self._cpu_before[name])
            peak = max(peak, peak_of(self._pids[name]))
        return Usage(round(cpu, 3), peak, links[0], links[1])
