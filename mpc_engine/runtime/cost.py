"""What a protocol costs, as declared by the protocol and as measured by the runtime."""

from __future__ import annotations

from dataclasses import dataclass, field

from mpc_engine.runtime.link import Section


@dataclass(frozen=True)
class Cost:
    """Rounds, and bytes that all parties together send.

    `a.then(b)` is a followed by b; `a.beside(b)` is both in the same rounds.
    """

    rounds: int = 0
    sent_bytes: int = 0

    def then(self, other: Cost) -> Cost:
        """Return the cost of this and then `other`."""
        return Cost(self.rounds + other.rounds, self.sent_bytes + other.sent_bytes)

    def beside(self, other: Cost) -> Cost:
        """Return the cost of this and `other` side by side."""
        return Cost(max(self.rounds, other.rounds), self.sent_bytes + other.sent_bytes)


@dataclass
class Meter:
    """What one party's protocols really did: rounds (the most of any block) and bytes sent, by section."""

    rounds: dict[Section, int] = field(default_factory=dict)
    sent_bytes: dict[Section, int] = field(default_factory=dict)

    def count(self, section: Section, round_number: int, sent_bytes: int) -> None:
        """Record one round of one block."""
        self.rounds[section] = max(self.rounds.get(section, 0), round_number + 1)
        self.sent_bytes[section] = self.sent_bytes.get(section, 0) + sent_bytes

    @property
    def total_rounds(self) -> int:
        """Rounds one after the other, over all sections."""
        return sum(self.rounds.values())

    @property
    def total_bytes(self) -> int:
        """Bytes this party sent, over all sections."""
        return sum(self.sent_bytes.values())
