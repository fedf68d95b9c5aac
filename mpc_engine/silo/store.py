"""Files that only their owner may read, and the folder in which a silo's registration lies.

A registration is prepared in a folder of its own beside the one in force, and moved into place when it is
complete; whatever a killed one left behind goes at the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from mpc_engine.errors import DataError

_DRAFT: Final = ".draft-"
_LOCK: Final = ".lock"


def create(path: Path) -> IO[bytes]:
    """Return the new file ``path``, open for writing, that only its owner may read from the start."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn failures of the operating system in the block into a DataError: ``place`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{place}: cannot be written ({error.strerror or 'no reason given'})") from None


@contextmanager
def draft(state: Path) -> Iterator[Path]:
    """Yield an empty private folder in ``state`` that goes at the end; one process at a time may have one.

    ``state`` is made if need be and closed to other users. Raises :class:`~mpc_engine.errors.DataError` if
    it cannot be used, or if another process holds it.
    """
    with writing(state):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(state.stat().st_mode) & 0o077:
            state.chmod(0o700)
        lock = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(lock, state / _LOCK):
            raise DataError(f"{state}: another registration is under way; wait until it has ended")
        try:
            for left in state.glob(f"{_DRAFT}*"):
                shutil.rmtree(left, ignore_errors=True)
            with writing(state):
                folder = tempfile.TemporaryDirectory(prefix=_DRAFT, dir=state)
            with folder as name:
                yield Path(name)
        finally:
            (state / _LOCK).unlink(missing_ok=True)
    finally:
        os.close(lock)


def _locked(lock: int, path: Path) -> bool:
    """Return whether this process now holds the lock on the file ``path``, open as ``lock``."""
    try:
        # The system gives the lock back when the process ends, however it ends.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Whoever had it before may have removed the file meanwhile; the lock then keeps nobody out.
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
