"""What a party sets up in its operating-system process, and how that process is stopped."""

from __future__ import annotations

import asyncio
import ctypes
import resource
import signal
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from mpc_engine.errors import EngineError, StoppedError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PR_SET_DUMPABLE = 4
_PACKAGE = Path(__file__).parent.parent

R = TypeVar("R")


def harden() -> None:
    """Forbid core dumps, which would hold records, shares and keys; other users' debuggers too, on Linux."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def keep_memory() -> None:
    """Let the C library keep freed buffers of up to 256 MiB instead of returning and faulting them in again.

    Every block needs the same few buffers; getting them anew from the kernel costs more than the
    arithmetic on them. Does nothing where the C library has no such setting.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 28)


def stop_on_signals() -> None:
    """Let SIGTERM, and SIGINT unless it is ignored, raise StoppedError from now on."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise StoppedError(f"stopped by {signal.Signals(number).name}")


def run_until_stopped(work: Coroutine[Any, Any, R]) -> R:
    """Run `work` in an event loop of its own and return its result.

    SIGTERM, and SIGINT unless it is ignored, cancel it, so that it can tell its peers, and raise
    StoppedError. A second signal ends the process at once.
    """

    async def guarded() -> R:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        watched = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            watched.append(signal.SIGINT)
        received: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            received.append(number)
            for each in watched:
                loop.remove_signal_handler(each)
            task.cancel()

        for each in watched:
            loop.add_signal_handler(each, stop, each)
        try:
            return await task
        except asyncio.CancelledError:
            if not received:
                raise
            raise StoppedError(f"stopped by {received[0].name}") from None

    return asyncio.run(guarded())


def unexpected(error: Exception) -> EngineError:
    """Return the failure to show for an error that nobody foresaw: its kind and its place in the engine.

    Its text is left out, because it may quote records.
    """
    where = place_of(error).get("where")
    return EngineError(f"unexpected {type(error).__name__}" + (f" at {where}" if where else ""))


def place_of(error: BaseException) -> dict[str, str]:
    """Return where an error was raised, ``{"where": "FILE, line N"}``: the last place in the engine.

    If it never passed through the engine, it is the last place of all; {} for an error that was not raised.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)] or frames
    if not own:
        return {}
    path = Path(own[-1].filename)
    name = path.relative_to(_PACKAGE.parent) if path.is_relative_to(_PACKAGE) else path.name
    return {"where": f"{name}, line {own[-1].lineno}"}
