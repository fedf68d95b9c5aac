"""Failures on the analyst port: an error of the catalogue as a gRPC status, and back.

Beside its code a status carries one google.rpc.ErrorInfo: the reason, what happened, what to do next. A
program in any language can read it; ours makes the same class of error out of it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from mpc_engine.errors import (
    DeadlineError,
    DocumentError,
    EngineError,
    EngineMismatchError,
    PeerError,
    TooLargeError,
    UnknownCertificateError,
    catalogue,
)

DOMAIN: Final = "mpc-engine"
"""Domain of the reasons in ErrorInfo."""
RETRY_AFTER: Final = "retry_after_s"
"""Key of ErrorInfo's metadata: the seconds after which a refused caller may try again."""

# All of a status travels in trailing metadata, of which a receiver takes 8 KiB.
_MOST_DETAIL_BYTES: Final = 600
_MOST_MESSAGE_BYTES: Final = 3_000
_DETAILS_KEY: Final = "grpc-status-details-bin"

_MEANINGS: Final[dict[grpc.StatusCode, tuple[type[EngineError], str]]] = {
    grpc.StatusCode.UNAVAILABLE: (PeerError, "cannot be reached"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineError, "did not answer in time"),
    grpc.StatusCode.CANCELLED: (PeerError, "ended the call"),
    grpc.StatusCode.UNAUTHENTICATED: (UnknownCertificateError, "does not know this certificate"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (TooLargeError, "takes no message of this size"),
    grpc.StatusCode.UNIMPLEMENTED: (EngineMismatchError, "does not know this method"),
    grpc.StatusCode.INVALID_ARGUMENT: (DocumentError, "could not read the message"),
}
"""What a status without our details means: it comes from gRPC itself."""


def status_of(failure: EngineError, **metadata: str) -> grpc.Status:
    """Return a failure as a gRPC status with google.rpc.ErrorInfo; texts are cut to what metadata hold."""
    code: grpc.StatusCode = getattr(grpc.StatusCode, failure.grpc_code)
    info = error_details_pb2.ErrorInfo(
        reason=failure.reason,
        domain=DOMAIN,
        metadata={
            "message": _cut(str(failure), _MOST_MESSAGE_BYTES),
            "next_step": _cut(failure.next_step, _MOST_DETAIL_BYTES),
            **metadata,
        },
    )
    status = status_pb2.Status(code=code.value[0], message=_cut(str(failure), _MOST_DETAIL_BYTES))
    status.details.add().Pack(info)
    return rpc_status.to_status(status)


def failure_of(error: grpc.aio.AioRpcError, who: str) -> EngineError:
    """Return the failure that an analyst's program raises for a call that ``who`` did not answer.

    It is of the catalogue's class for the reason that the status states, with that party's message. Without
    a stated reason it follows from the code, in gRPC's own words.
    """
    info = error_info(error)
    if info is not None:
        classes = {cls.reason: cls for cls in reversed(catalogue())}
        message = printable(info.get("message", "")) or error.code().name
        return classes.get(info["reason"], EngineError)(f"{who}: {message}")
    cls, words = _MEANINGS.get(error.code(), (EngineError, "failed"))
    details = _cut(printable(error.details() or ""), _MOST_DETAIL_BYTES)
    return cls(f"{who} {words}" + (f": {details}" if details else ""))


def error_info(error: grpc.aio.AioRpcError) -> Mapping[str, str] | None:
    """Return ErrorInfo's metadata with ``reason`` beside them; None for a status without one of ours."""
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        info = error_details_pb2.ErrorInfo()
        try:
            packed = status_pb2.Status.FromString(value).details
            if len(packed) == 1 and packed[0].Unpack(info) and info.domain == DOMAIN:
                return {**info.metadata, "reason": info.reason}
        except (DecodeError, UnicodeError, ValueError):
            return None
    return None


def printable(text: str) -> str:
    """Return a text that came from elsewhere without characters that could steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _cut(text: str, most: int) -> str:
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most else data[: most - 3].decode("utf-8", "ignore") + "…"
