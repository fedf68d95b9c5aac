"""What one party has sent: messages and payload bytes by peer and section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mpc_engine.runtime.link import MessageKey, Section


class Traffic(NamedTuple):
    """Messages and payload bytes sent to one peer in one section."""

    peer: int
    section: Section
    messages: int
    payload_bytes: int


class TrafficStats:
    """Running totals of one link. Payload excludes frame headers, TLS and TCP."""

    def __init__(self) -> None:
        self._messages: dict[tuple[int, int], int] = {}
        self._bytes: dict[tuple[int, int], int] = {}

    def add(self, peer: int, key: MessageKey, size: int) -> None:
        """Count one message of `size` payload bytes sent to `peer`."""
        index = (peer, key.section)
        self._messages[index] = self._messages.get(index, 0) + 1
        self._bytes[index] = self._bytes.get(index, 0) + size

    def messages(self, peer: int | None = None, section: Section | None = None) -> int:
        """Return the number of messages sent, to one peer or all, in one section or all."""
        return sum(row.messages for row in self._rows(peer, section))

    def payload_bytes(self, peer: int | None = None, section: Section | None = None) -> int:
        """Return the payload bytes sent, to one peer or all, in one section or all."""
        return sum(row.payload_bytes for row in self._rows(peer, section))

    def __iter__(self) -> Iterator[Traffic]:
        """Yield one row for each peer and section that was sent to, in order of peer and section."""
        for peer, section in sorted(self._messages):
            index = (peer, section)
            yield Traffic(peer, Section(section), self._messages[index], self._bytes[index])

    def _rows(self, peer: int | None, section: Section | None) -> Iterator[Traffic]:
        return (row for row in self if peer in (None, row.peer) and section in (None, row.section))
