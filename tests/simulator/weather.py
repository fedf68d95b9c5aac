"""What befalls messages in a simulated world: delays, losses, repetitions, and lies."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from mpc_engine.party.lines import DURABLE
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory_lines import Faults

NEVER_S = 1e7
"""So late a message comes that is withheld."""
Watch = Callable[[int, int, MessageKey, bytes, bytes], None]
"""Shown every message of a link: sender, receiver, key, session id and content."""
Say = Callable[[int, bytes], bool]


class Weather(Faults):
    """Delays and losses, drawn from the world's seed; and what one party's lies make of its messages."""

    def __init__(self, rng: random.Random, watch: Watch | None) -> None:
        self._rng, self._watch = rng, watch
        self.now = "calm"
        self._liar, self._how = 0, ""
        self._withheld = False
        self._earlier: dict[tuple[Section, int], bytes] = {}
        self._said: list[bytes] = []

    def lie(self, party: int, how: str) -> None:
        """Let a party lie from now on, in one of the ways of `operations.LIES`; 0: nobody."""
        self._liar, self._how = party, how

    def latency_s(self, sender: int, receiver: int) -> float:
        """Return up to a fifth of a second, or now and then far more."""
        if self._withheld:
            self._withheld = False
            return NEVER_S
        if self.now == "calm":
            return 0.001
        slow = self.now != "lossy" and self._rng.random() < 0.02
        return self._rng.random() * (20.0 if slow else 0.2)

    def line_copies(self, sender: int, receiver: int, message: bytes) -> Sequence[float] | None:
        """Lose one message in ten and repeat another; in wild weather, leave no order either."""
        if self.now not in ("lossy", "wild"):
            return None
        drawn = self._rng.random()
        if drawn < 0.1:
            return ()
        copies = 2 if drawn > 0.9 else 1
        if self.now == "lossy" and copies == 1:
            return None
        return [self._rng.random() * 5.0 for _ in range(copies)]

    def link_message(
        self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes
    ) -> bytes:
        """Show a message to whoever watches; links lose nothing, they break. A liar's is changed."""
        if sender != self._liar:
            if self._watch is not None:
                self._watch(sender, receiver, key, session, content)
            return content
        kind = (key.section, key.round if key.section is Section.CONTROL else 0)
        drawn = self._rng.random() < 0.15
        earlier = self._earlier.setdefault(kind, content)
        if drawn and self._how == "corrupt" and content:
            return _flipped(content, self._rng)
        if drawn and self._how == "replay":
            return earlier
        self._withheld = drawn and self._how == "withhold"
        return content

    def said_by(self, party: int, say: Say) -> Say:
        """Return how a party says things over its lines: as `say` does, unless it lies."""

        def said(peer: int, message: bytes) -> bool:
            if party != self._liar or self._how != "lines":
                return say(peer, message)
            self._said.append(message)
            drawn = self._rng.random()
            if drawn < 0.15:
                return True  # as if it had been sent
            if drawn < 0.3:
                say(peer, self._rng.choice(self._said))
            elif drawn < 0.45 and json.loads(message)["kind"] not in (*DURABLE, "hello", "ack"):
                # What is stored as it came cannot be put right when the liar is honest again.
                message = _flipped(message, self._rng)
            return say(peer, message)

        return said


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)
