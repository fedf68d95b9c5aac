"""A silo's registered records as a running party meets them: their id, how they stand, and counts of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.documents import read
from mpc_engine.errors import DataError, DocumentError, EngineError
from mpc_engine.party.situation import Counted
from mpc_engine.silo.registration import (
    FILE,
    Newer,
    Registration,
    check_snapshot,
    check_use,
    mapping_newer,
    read_registration,
    snapshot_digest,
    snapshot_path,
    source_files,
    source_newer,
)
from mpc_engine.statistics.query import Query

MOST_AT_ONCE = 2
"""Counts that run at a time: each may take much memory."""
LOOK_S: Final = 1.0
"""So long a look at the records may take; a longer one goes on by itself."""
_MOST_READ: Final = 1 << 28
"""Most bytes of a source that a running party reads to learn whether it has changed."""

_T = TypeVar("_T")

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


UNSEEN: Final = Standing("not looked at yet", "the first look at them has not ended")
"""How records stand before anything is known of them: a party is not ready on a guess."""


class RegisteredCounter:
    """Counts what `mpc-engine data register` put into `folder`; None stands for a helper, which has none.

    `count_bound` is the greatest bound on counts that the roster allows. The registration is read anew
    whenever its file has changed, and its snapshot verified whole before each count; a look in between reads
    the snapshot, the source and the mapping each only if it has changed since it was read last.
    """

    def __init__(self, folder: Path | None, count_bound: int, *, away: Away = asyncio.to_thread) -> None:
        self.folder, self.count_bound = folder, count_bound
        self._away = away
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._seen: tuple[int, int, int] | None = None
        self._id = ""
        self._looking: asyncio.Future[Any] | None = None
        self._findings = _Findings()
        self.standing = Standing() if folder is None else UNSEEN
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
        """See how the records stand, and return after `LOOK_S` at most even if that takes longer."""
        if self.folder is None:
            return
        if self._looking is None or self._looking.done():
            seeing = self._away(self._see, self.folder, codebook.digest(), self.count_bound)
            self._looking = asyncio.ensure_future(seeing)
        # A disk may hang, and a snapshot be long: readiness is told all the same.
        await asyncio.wait({self._looking}, timeout=LOOK_S)

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Count the registered records for a query; if they are registered anew meanwhile, those.

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
                # Whatever the looks have found so far, the next one finds out for itself.
                self._findings = _Findings()
                raise
        return Counted(id, sums)

    def _see(self, folder: Path, codebook: str, bound: int) -> None:
        try:
            registration = read_registration(folder)
            found = self._stand(registration, codebook, bound)
            if found.fault and (later := _registered_since(registration, folder)) is not None:
                found = self._stand(later, codebook, bound)
        except Exception as error:
            found = Standing(fault=_why(error))
        self.standing = found

    def _stand(self, registration: Registration, codebook: str, bound: int) -> Standing:
        # Those of a count that fails in the meantime are others, and do not learn what is found here.
        findings = self._findings
        try:
            check_use(registration, codebook, bound)
            digest = findings.of(
                "snapshot",
                registration,
                [snapshot_path(registration)],
                lambda: snapshot_digest(registration),
            )
            check_snapshot(registration, digest)
            source = findings.of(
                "source",
                registration,
                source_files(registration),
                lambda: source_newer(registration, _MOST_READ),
            )
            mapping = findings.of(
                "mapping", registration, [Path(registration.mapping)], lambda: mapping_newer(registration)
            )
        except Exception as error:
            return Standing(registration.words, _why(error))
        return Standing(registration.words, newer=source + mapping)

    def _count(
        self, folder: Path, query: Query, codebook: Codebook
    ) -> tuple[str, tuple[NDArray[np.int64], ...]]:
        self.running += 1
        try:
            registration = read_registration(folder)
            try:
                return self._counted(registration, query, codebook)
            except DataError:
                # Registering removes the snapshot before. The peers see from the new id that they have to
                # begin again, which a failure of the count would keep them from.
                later = _registered_since(registration, folder)
                if later is None:
                    raise
            return self._counted(later, query, codebook)
        finally:
            self.running -= 1

    def _counted(
        self, registration: Registration, query: Query, codebook: Codebook
    ) -> tuple[str, tuple[NDArray[np.int64], ...]]:
        # Imported here, for a helper has no records and need not load the table libraries.
        from mpc_engine.silo.tabulate import tabulate

        check_snapshot(registration)
        check_use(registration, codebook.digest(), self.count_bound)
        return registration.snapshot_id, tabulate(query, codebook, registration).take()


class _Findings:
    """What was found in the files of a registration, each kept until one of the files it is about changes."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Any]] = {}

    def of(self, name: str, registration: Registration, files: Iterable[Path], find: Callable[[], _T]) -> _T:
        """Return the finding called `name`; `find` is called if there is none yet of the files as they are.

        A digest "" is not kept: a file that could not be read may be readable the next time.
        """
        # Taken before the files are read: what changes meanwhile is seen the next time.
        about = (registration, *map(_state, files))
        if name not in self._kept or self._kept[name][0] != about:
            found = find()
            if found == "":
                return found
            self._kept[name] = (about, found)
        kept: _T = self._kept[name][1]
        return kept


def _registered_since(registration: Registration, folder: Path) -> Registration | None:
    """Return what has been registered since `registration` was read, None if it is still the same."""
    try:
        found = read_registration(folder)
    except (EngineError, OSError):
        return None
    return None if found.snapshot_id == registration.snapshot_id else found


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, EngineError) else "they cannot be read"


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
