"""What a party tells its log: events and public fields, never values, rows or texts of failures elsewhere."""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """Takes note of an event; the composition root decides where it goes."""

    def __call__(self, event: str, /, **fields: str | int) -> None:
        """Note an event, such as ``session.committed``, with fields of the log's schema."""


def silent(event: str, /, **fields: str | int) -> None:
    """Note nothing."""
