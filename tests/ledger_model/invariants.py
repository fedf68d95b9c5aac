"""What must hold in every state of the budget protocol, whichever single party colludes."""

from __future__ import annotations

from enum import Enum

from tests.ledger_model.protocol import PARTIES, Draw, Model, Part, Phase, State

_PROGRESS = ("send commit", "open pattern", "learn pattern", "open values", "store", "release")


class Fault(Enum):
    """A promise that a state breaks."""

    UNDER_COUNT = "an honest party has debited less than could have been opened"
    NOT_EVEN_HELD = "an honest party neither debited nor holds what could have been opened"
    UNDEBITED_DRAW = "a draw could have been opened that an honest party has not debited"
    TWO_RELEASES = "two noise draws of one session could have been opened"
    STUCK = "an opening has begun that somebody can never complete"


class Invariants:
    """Checks states of one model; remembers what it has checked."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._budget: dict[tuple[object, ...], frozenset[Fault]] = {}
        self._completion: dict[tuple[Part, ...], frozenset[int]] = {}

    def faults(self, state: State) -> frozenset[Fault]:
        """Return every promise that the state breaks."""
        openings = state.sent & self.model.messages.openings
        if not openings:
            return frozenset()
        books = tuple((part.debits, _held(part)) for part in state.parts)
        key = (openings, books)
        if key not in self._budget:
            self._budget[key] = self._budget_faults(state, openings)
        found = self._budget[key]
        # A party that lies can always spoil a release; that nobody else can is checked without one.
        if self.model.liar is None and self._stuck(state, openings):
            found |= {Fault.STUCK}
        return found

    def _budget_faults(self, state: State, openings: int) -> frozenset[Fault]:
        found: set[Fault] = set()
        for colluder in PARTIES if self.model.liar is None else (self.model.liar,):
            out: dict[int, set[Draw]] = {}
            for message in self.model.messages.read(openings):
                if message.sender != colluder and isinstance(message.draw, tuple):
                    out.setdefault(message.ticket, set()).add(message.draw)
            for ticket, draws in out.items():
                if len(draws) > 1:
                    found.add(Fault.TWO_RELEASES)
                for honest in PARTIES:
                    if honest != colluder:
                        part = self.model.part(state, honest, ticket)
                        found |= _unpaid(part, draws)
        return frozenset(found)

    def _stuck(self, state: State, openings: int) -> bool:
        begun = {message.ticket for message in self.model.messages.read(openings)}
        if state.parts not in self._completion:
            self._completion[state.parts] = self._completed(state.parts)
        return not begun <= self._completion[state.parts]

    def _completed(self, parts: tuple[Part, ...]) -> frozenset[int]:
        """Return the tickets whose release all parties end with, once all run and every message is new.

        All that is under way is lost first, so what helps is only what the disks hold.
        """
        model = self.model
        state = State(parts, 0)
        for ticket in range(1, model.tickets + 1):
            for party in PARTIES:
                state = State(
                    parts, state.sent | _said_again(model, party, ticket, model.part(state, party, ticket))
                )
        moved = True
        while moved:
            moved = False
            for step, after in model.successors(state):
                if step.action in _PROGRESS:
                    state, moved = after, True
                    break
        held = (Phase.OPENED, Phase.RELEASED)
        return frozenset(
            ticket
            for ticket in range(1, model.tickets + 1)
            if all(model.part(state, party, ticket).phase in held for party in PARTIES)
        )


def _held(part: Part) -> bool:
    """Tell whether a party still keeps the budget aside."""
    return not part.debits and part.phase in (Phase.RESERVED, Phase.COMMITTED, Phase.PATTERN)


def _unpaid(part: Part, draws: set[Draw]) -> set[Fault]:
    found: set[Fault] = set()
    if len(part.debits) < len(draws):
        found.add(Fault.UNDER_COUNT)
    if len(part.debits) + _held(part) < len(draws):
        found.add(Fault.NOT_EVEN_HELD)
    if not draws <= set(part.debits):
        found.add(Fault.UNDEBITED_DRAW)
    return found


def _said_again(model: Model, party: int, ticket: int, part: Part) -> int:
    """Return what a party says after a restart, from what is on its disk."""
    said, bit, share = 0, model.messages.bit, part.share
    if part.phase in (Phase.OPENED, Phase.RELEASED):
        said |= bit("stored", ticket, party, None)
    if share is not None and part.phase in (Phase.COMMITTED, Phase.PATTERN, Phase.OPENED):
        said |= bit("commit", ticket, party, share)
        if part.phase is not Phase.COMMITTED:
            said |= bit("pattern share", ticket, party, share) | bit("hash", ticket, party, share)
        if part.phase is Phase.OPENED:
            said |= bit("values share", ticket, party, share)
    return said
