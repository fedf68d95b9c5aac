"""What can be called on the analyst port: names, how long each may take, and what may be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mpc_engine.transport.options import CLIENT_OPTIONS, SERVER_OPTIONS

SERVICE: Final = "mpc_engine.analyst.v1.Analyst"
MOST_REQUEST_BYTES: Final = 1 << 18
"""Largest message to a party."""
CHUNK_BYTES: Final = 1 << 20
"""Largest part of an answer."""
MOST_ANSWER_BYTES: Final = 1 << 28
"""Largest answer that a client takes: a release of four million cells has a quarter of it."""
LONGEST_WAIT_S: Final = 60.0
"""The longest that one call waits for a request to change."""


@dataclass(frozen=True)
class Method:
    """One method.

    ``most_s`` is the longest that a party works on a call. ``idempotent``: sending the message again cannot
    do anything twice. ``changes``: what was begun is finished even if the caller goes away. ``at_once`` is
    how many calls of it one analyst may have under way.
    """

    name: str
    most_s: float = 30.0
    idempotent: bool = True
    changes: bool = False
    at_once: int = 8

    @property
    def path(self) -> str:
        """The path of the method in gRPC."""
        return f"/{SERVICE}/{self.name}"


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        # A submission carries its idempotency key, so a second one finds the first.
        Method("Submit", changes=True),
        Method("Status"),
        Method("List"),
        # Whoever waits for many requests can still ask for something else.
        Method("Wait", most_s=LONGEST_WAIT_S + 15, at_once=6),
        Method("Withdraw", idempotent=False, changes=True),
        # Answers of many megabytes wait in memory for a slow reader.
        Method("Result", most_s=300.0, at_once=2),
        Method("Cost"),
        Method("Policy"),
        Method("Parties"),
    )
}
"""All methods by name. Each takes one message and answers in parts of at most :data:`CHUNK_BYTES`."""

PORT_OPTIONS: Final[list[tuple[str, int]]] = list(
    {
        **dict(SERVER_OPTIONS),
        "grpc.max_receive_message_length": MOST_REQUEST_BYTES,
        # A connection ends after an hour, and with it what an expired or revoked certificate still holds.
        "grpc.max_connection_age_ms": 3_600_000,
        "grpc.max_connection_age_grace_ms": 360_000,
        "grpc.max_connection_idle_ms": 600_000,
    }.items()
)
"""Settings of the server of analysts."""

CALL_OPTIONS: Final[list[tuple[str, int | str]]] = list(
    {**dict(CLIENT_OPTIONS), "grpc.max_send_message_length": MOST_REQUEST_BYTES}.items()
)
"""Settings of an analyst's channel."""
