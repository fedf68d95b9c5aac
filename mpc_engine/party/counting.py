"""A silo's registered records as a running party meets them: their snapshot's id, and counts of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.documents import read
from mpc_engine.errors import DataError, DocumentError
from mpc_engine.party.situation import Counted
from mpc_engine.statistics.query import Query

MOST_AT_ONCE = 2
"""Counts that run at a time: each may take much memory."""
REGISTRATION = "registration.json"
"""The file of a registration, in the folder of the registered records."""

Away = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments outside the event loop, as `asyncio.to_thread` does."""


class RegisteredCounter:
    """Counts what `mpc-engine data register` put into `folder`; None stands for a helper, which has none.

    `count_bound` is the greatest bound on counts that the roster allows. The registration is read anew
    whenever its file has changed, and verified whole before each count.
    """

    def __init__(self, folder: Path | None, count_bound: int, *, away: Away = asyncio.to_thread) -> None:
        self.folder, self.count_bound = folder, count_bound
        self._away = away
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._seen: tuple[int, int, int] | None = None
        self._id = ""
        self.running = 0
        """Counts that run now, those that nobody waits for any more included."""

    def snapshot(self) -> str:
        """Return the id of the registered snapshot, "" if there is none or it cannot be read."""
        if self.folder is None:
            return ""
        path = self.folder / REGISTRATION
        try:
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._id = _id(read(path).get("snapshot_id"))
                self._seen = seen
        except (OSError, DocumentError):
            self._seen, self._id = None, ""
        return self._id

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Count the registered records for a query.

        Raises DataError if they are not registered as they are now, or with too large a bound on counts;
        whatever else counting raises may quote records, and so may that: none of it leaves this machine.
        """
        if self.folder is None:
            return Counted("", None)
        async with self._places:
            id, sums = await self._away(self._count, self.folder, query, codebook)
        return Counted(id, sums)

    def _count(
        self, folder: Path, query: Query, codebook: Codebook
    ) -> tuple[str, tuple[NDArray[np.int64], ...]]:
        # Imported here, for a helper has no records and need not load the table libraries.
        from mpc_engine.silo.register import load_registration
        from mpc_engine.silo.tabulate import tabulate

        self.running += 1
        try:
            registration = load_registration(folder)
            if registration.count_bound > self.count_bound:
                raise DataError(
                    f"the data were registered with a bound of {registration.count_bound} on counts, "
                    f"the roster allows {self.count_bound}"
                )
            return registration.snapshot_id, tabulate(query, codebook, registration).take()
        finally:
            self.running -= 1


def _id(found: object) -> str:
    digits = found if isinstance(found, str) else ""
    return digits if len(digits) == 32 and not set(digits) - set("0123456789abcdef") else ""
