"""What a party tells its peers when an exception ends a link."""

from __future__ import annotations

import asyncio

from mpc_engine.errors import EngineError, StoppedError


def first_cause(error: BaseException) -> EngineError:
    """Return what to tell the peers: the first engine error in `error`, or that it was something else."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, BaseExceptionGroup):
        causes = error.split(EngineError)[0]
        if causes is not None:
            return first_cause(causes.exceptions[0])
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return StoppedError("this party was stopped")
    return EngineError("an unexpected error")
