"""How a listening party refuses a stream: a status code, a reason of the catalogue, and words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import grpc

_DETAILS = re.compile(r"(?P<reason>[A-Z][A-Z_]{0,63}): (?P<words>.*)", re.DOTALL)
_MAX_WORDS = 300


@dataclass(frozen=True)
class Refusal:
    """What the caller is told. `reason` is empty, and `words` are gRPC's own, if no party said them."""

    code: grpc.StatusCode
    reason: str
    words: str

    @property
    def details(self) -> str:
        """The details of the gRPC status."""
        return f"{self.reason}: {self.words}"

    @classmethod
    def read(cls, code: grpc.StatusCode, details: str | None) -> Refusal:
        """Return what a call's status says, on one line and without what could steer a terminal."""
        found = _DETAILS.fullmatch(details or "")
        reason, words = (found["reason"], found["words"]) if found else ("", details or code.name)
        return cls(code, reason, "".join(c if c.isprintable() else " " for c in words[:_MAX_WORDS]))


class RefusedError(Exception):
    """Raised within the listening side to refuse a stream; it never leaves the transport."""

    def __init__(self, cause: Cause, words: str) -> None:
        super().__init__(words)
        self.refusal = Refusal(cause.code, cause.reason, words)


class Cause(NamedTuple):
    """Why a stream is refused: the status code, and the reason of the catalogue."""

    code: grpc.StatusCode
    reason: str


UNKNOWN = Cause(grpc.StatusCode.UNAUTHENTICATED, "CERT_UNKNOWN")
OTHER_VERSION = Cause(grpc.StatusCode.FAILED_PRECONDITION, "MISMATCH_ENGINE")
MALFORMED = Cause(grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_ORDER")
TOO_LARGE = Cause(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
TOO_MANY = Cause(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
NOT_OPENED = Cause(grpc.StatusCode.DEADLINE_EXCEEDED, "UNKNOWN_OR_FINISHED_SESSION")
REPLACED = Cause(grpc.StatusCode.ABORTED, "STALE_SESSION")
STOPPING = Cause(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
