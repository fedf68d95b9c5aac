"""A watch on code that is to follow from its arguments: no file, record, socket, clock or chance.

The profiler sees the compiled functions that Python code calls, and audit events tell what those do to files
and sockets. What a compiled library does within itself is not seen, so that of the ways to records (Ibis,
pandas) any use is told.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any

LOOKS = ("open", "os.", "shutil.", "sqlite3.", "socket.", "subprocess.", "glob.", "tempfile.", "mmap.")
"""Audit events of whatever touches files, other programs or the network."""
OUTSIDE = ("time", "_random", "random", "posix", "_socket", "_sqlite3", "_posixsubprocess")
"""Modules whose compiled functions and methods tell, or change, something else than their arguments."""
READERS = ("ibis", "pandas", "pyarrow", "mpc_engine.silo")
"""Packages that read records, of which no function is to be called at all."""
CLOCKS = ("now", "utcnow", "today")
"""Methods of any module that tell the time."""

_watching: tuple[int, list[str]] | None = None


def _tell(what: str) -> None:
    if _watching is not None and _watching[0] == threading.get_ident():
        _watching[1].append(what)


def _hear(event: str, _: object) -> None:
    if _watching is not None and event.startswith(LOOKS):
        _tell(event)


def _look(frame: FrameType, event: str, called: Any) -> None:
    if event == "c_call":
        name = called.__name__
        home = called.__module__ or type(called.__self__).__module__
    elif event == "call":
        name, home = frame.f_code.co_name, str(frame.f_globals.get("__name__"))
    else:
        return
    reads = any(f"{home}.".startswith(f"{reader}.") for reader in READERS)
    if reads or (event == "c_call" and (home in OUTSIDE or name in CLOCKS)):
        _tell(f"{home}.{name}")


@lru_cache(maxsize=1)
def _listen() -> None:
    # An audit hook can never be taken out again: there is one, which hears nothing unless it is to.
    sys.addaudithook(_hear)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Fill a list with whatever this thread looks at meanwhile, beside its memory."""
    global _watching
    _listen()
    before, collecting = sys.getprofile(), gc.isenabled()
    told: list[str] = []
    gc.disable()  # what is collected meanwhile may close files and look at clocks
    _watching = threading.get_ident(), told
    sys.setprofile(_look)
    try:
        yield told
    finally:
        sys.setprofile(before)
        _watching = None
        if collecting:
            gc.enable()
