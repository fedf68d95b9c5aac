"""A silo's registered records as a running party meets them: their id, how they stand, and counts of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.documents import read
from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.party.situation import Counted
from mpc_engine.silo.registration import (
    FILE,
    Newer,
    check_snapshot,
    check_use,
    load_registration,
    newer,
    read_registration,
    watched,
)
from mpc_engine.statistics.query import Query

MOST_AT_ONCE = 2
"""Counts that run at a time: each may take much memory."""
LOOK_S: Final = 1.0
"""So long a look at the records may take; a longer one goes on by itself."""
_MOST_READ: Final = 1 << 28
"""Most bytes of a source that a running party reads to learn whether it has changed."""

Away = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments outside the event loop, as `asyncio.to_thread` does."""


@dataclass(frozen=True)
class Standing:
    """How registered records stand, for their own operator.

    Attributes:
        words: when they were registered, and how many; "" if none are.
        fault: why they cannot be counted; "" if they can.
        newer: what has changed since they were registered, which keeps nothing from being counted.
    """

    words: str = ""
    fault: str = ""
    newer: tuple[Newer, ...] = ()

    def as_fields(self) -> dict[str, Any]:
        """Return it for `party status`."""
        return {"words": self.words, "fault": self.fault, "newer": [each.words for each in self.newer]}


class RegisteredCounter:
    """Counts what `mpc-engine data register` put into `folder`; None stands for a helper, which has none.

    `count_bound` is the greatest bound on counts that the roster allows. The registration is read anew
    whenever its file has changed, and its snapshot verified whole before each count.
    """

    def __init__(self, folder: Path | None, count_bound: int, *, away: Away = asyncio.to_thread) -> None:
        self.folder, self.count_bound = folder, count_bound
        self._away = away
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._seen: tuple[int, int, int] | None = None
        self._id = ""
        self._looking: asyncio.Future[Any] | None = None
        self._looked_at: tuple[object, ...] | None = None
        self.standing = Standing()
        """How the records stood when they were looked at last."""
        self.running = 0
        """Counts that run now, those that nobody waits for any more included."""

    def snapshot(self) -> str:
        """Return the id of the registered snapshot, "" if there is none or it cannot be read."""
        if self.folder is None:
            return ""
        path = self.folder / FILE
        try:
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._id = _id(read(path).get("snapshot_id"))
                self._seen = seen
        except (OSError, DocumentError):
            self._seen, self._id = None, ""
        return self._id

    @property
    def usable(self) -> str:
        """The id of the snapshot if it could be counted when it was looked at last, "" otherwise."""
        return "" if self.standing.fault else self.snapshot()

    @property
    def busy(self) -> bool:
        """Whether a count or a look is under way, perhaps in vain."""
        return self.running > 0 or (self._looking is not None and not self._looking.done())

    async def look(self, codebook: Codebook) -> None:
        """See how the records stand, unless none of their files has changed since the last look."""
        if self.folder is None:
            return
        if self._looking is None or self._looking.done():
            seeing = self._away(self._see, self.folder, codebook.digest(), self.count_bound)
            self._looking = asyncio.ensure_future(seeing)
        # A disk may hang, and a snapshot be long: readiness is told all the same.
        await asyncio.wait({self._looking}, timeout=LOOK_S)

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Count the registered records for a query.

        Raises DataError if there are none, if the snapshot is not whole, or if it was registered with another
        codebook or too large a bound on counts; whatever else counting raises may quote records, and so may
        that: none of it leaves this machine.
        """
        if self.folder is None:
            return Counted("", None)
        async with self._places:
            try:
                id, sums = await self._away(self._count, self.folder, query, codebook)
            except EngineError:
                self._looked_at = None
                raise
        return Counted(id, sums)

    def _see(self, folder: Path, codebook: str, bound: int) -> None:
        found = self._stand(folder, codebook, bound)
        if found is not None and found.fault:
            # They may just have been registered anew, and what was being read is gone.
            found = self._stand(folder, codebook, bound)
        self.standing = found or self.standing

    def _stand(self, folder: Path, codebook: str, bound: int) -> Standing | None:
        """Return how the records stand, None if that cannot have changed since the last look."""
        words = ""
        try:
            registration = read_registration(folder)
            words = registration.words
            files = map(_state, (folder / FILE, *watched(registration)))
            looked_at = (registration.snapshot_id, codebook, bound, *files)
            if looked_at == self._looked_at:
                return None
            self._looked_at = None
            check_use(registration, codebook, bound)
            check_snapshot(registration)
            found = Standing(words, newer=newer(registration, _MOST_READ))
            self._looked_at = looked_at
            return found
        except Exception as error:
            self._looked_at = None
            return Standing(words, str(error) if isinstance(error, EngineError) else "they cannot be read")

    def _count(
        self, folder: Path, query: Query, codebook: Codebook
    ) -> tuple[str, tuple[NDArray[np.int64], ...]]:
        # Imported here, for a helper has no records and need not load the table libraries.
        from mpc_engine.silo.tabulate import tabulate

        self.running += 1
        try:
            registration = load_registration(folder)
            check_use(registration, codebook.digest(), self.count_bound)
            return registration.snapshot_id, tabulate(query, codebook, registration).take()
        finally:
            self.running -= 1


def _state(path: Path) -> tuple[int, ...]:
    """Return what tells without reading it that a file may have changed; () if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _id(found: object) -> str:
    digits = found if isinstance(found, str) else ""
    return digits if len(digits) == 32 and not set(digits) - set("0123456789abcdef") else ""
