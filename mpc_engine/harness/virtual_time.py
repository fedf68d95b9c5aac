"""Time that passes only when nothing is left to do, and clocks that tell it wrongly on purpose."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2030, 1, 1, tzinfo=UTC)
"""The wall-clock time at which every loop begins."""
Shuffle = Callable[[list[int]], None]
"""Puts a list into another order, in place: the ``shuffle`` of a seeded generator."""
PARTY: contextvars.ContextVar[int] = contextvars.ContextVar("PARTY", default=0)
"""Whose code runs; set in the context in which a party is started."""


class DeadlockError(RuntimeError):
    """Everybody waits, and no timer would ever wake anybody."""


class _NoWaiting(selectors.BaseSelector):
    """Never waits: moves the loop's time on instead. Files are of no interest to a simulation."""

    def __init__(self) -> None:
        self.now = 0.0
        self._files: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError("everybody waits, and no timer runs")
        if timeout > 0:
            self.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._files[fileobj] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files

    def close(self) -> None:
        self._files.clear()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing is ready.

    Callbacks run in the order in which they became ready; with `shuffle`, those of different parties are
    mixed as it draws, while each party's keep their order, as in processes of their own. Same draws, same
    run. Threads and files do not wake it.
    """

    def __init__(self, shuffle: Shuffle | None = None) -> None:
        self._no_waiting = _NoWaiting()
        self.shuffle = shuffle
        super().__init__(self._no_waiting)
        # A jump may end a rounding error before its timer.
        self._clock_resolution = 1e-6
        self.steps = 0
        """How often callbacks were run."""

    def time(self) -> float:
        """Return the virtual time in seconds, 0 at the start."""
        return self._no_waiting.now

    def _run_once(self) -> None:
        self.steps += 1
        ready = self._ready  # type: ignore[attr-defined]
        if self.shuffle is not None and len(ready) > 1:
            mixed = _mixed(ready, self.shuffle)
            ready.clear()
            ready.extend(mixed)
        super()._run_once()  # type: ignore[misc]


def _mixed(ready: Iterable[asyncio.Handle], shuffle: Shuffle) -> list[asyncio.Handle]:
    """Return the callbacks with the parties' turns drawn anew and each party's order kept."""
    queues: dict[int, deque[asyncio.Handle]] = {}
    turns = []
    for handle in ready:
        party = handle._context.get(PARTY, 0)  # type: ignore[attr-defined]
        queues.setdefault(party, deque()).append(handle)
        turns.append(party)
    if len(queues) > 1:
        shuffle(turns)
    return [queues[party].popleft() for party in turns]


def run(main: Callable[[], Coroutine[Any, Any, T]], shuffle: Shuffle | None = None) -> T:
    """Run a coroutine in virtual time and return its result; what it leaves behind is cancelled.

    Raises DeadlockError if everybody waits for something that will never come.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(shuffle)) as runner:
        return runner.run(main())


class Clock:
    """One party's wall clock: the loop's time since `START`, ahead by what its operator has set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ahead: timedelta = timedelta()) -> None:
        self._loop = loop
        self.ahead = ahead

    def __call__(self) -> datetime:
        """Return the time that this clock tells, in UTC."""
        return START + timedelta(seconds=self._loop.time()) + self.ahead

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self.ahead += timedelta(seconds=seconds)
