"""What real parties did, told as steps of the model of the budget protocol, which must know every one.

Steps are taken from the ledgers' entries and from the messages of the links, in the order in which they
happened; see the table in :mod:`tests.ledger_model.protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpc_engine.runtime.link import MessageKey, Section
from tests.ledger_model.protocol import PARTIES, SEQUENCER, Model, Rules, Step
from tests.simulator.operations import Op
from tests.simulator.registry import registries
from tests.simulator.world import World

_COMMIT = 2
"""Control round of the commitments; see `mpc_engine.party.publish`."""
_ENTRIES = {
    "computing": ("join",),
    "committed": ("compute", "commit"),
    "pattern": ("learn pattern",),
    "signed": ("store",),
    "released": ("release",),
    "aborted": ("abort",),
    "lost": ("lose",),
}


class Chronicle:
    """Takes down the steps of one run."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, str]] = []
        """Action, party and ticket."""
        self.requests: dict[str, list[str]] = {}
        """The tickets of each request, in the order in which the sequencer began them."""
        self._tickets: dict[bytes, str] = {}
        self._said: set[tuple[str, int, str]] = set()
        self.session: Callable[[int, str], str] = lambda number, ticket: ""

    def happened(self, number: int, kind: str, ticket: str, request: str) -> None:
        """Take down an entry of a ledger."""
        if kind == "reserved":
            if number == SEQUENCER:
                self.requests.setdefault(request, []).append(ticket)
            self._add("begin" if number == SEQUENCER else "reserve", number, ticket)
        if kind == "computing":
            self._tickets[bytes.fromhex(self.session(number, ticket))] = ticket
        for action in _ENTRIES.get(kind, ()):
            self._add(action, number, ticket)

    def sent(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Take down a message of a link; repetitions say nothing new."""
        said = {
            (Section.PATTERN, True): "open pattern",
            (Section.VALUES, True): "open values",
            (Section.CONTROL, key.round == _COMMIT): "send commit",
        }.get((key.section, key.section is not Section.CONTROL or key.round == _COMMIT))
        ticket = self._tickets.get(session)
        if said is not None and ticket is not None and (said, sender, ticket) not in self._said:
            self._said.add((said, sender, ticket))
            self._add(said, sender, ticket)

    def _add(self, action: str, party: int, ticket: str) -> None:
        self.steps.append((action, party, ticket))


def run(seed: int, ops: Sequence[Op] | None = None) -> tuple[World, Chronicle]:
    """Run a world and return it with what happened in it. Raises BrokenError."""
    chronicle = Chronicle()
    world = registries(seed, ops, chronicle.happened)
    watch = world.watch

    def both(sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        chronicle.sent(sender, receiver, key, session, content)
        if watch is not None:
            watch(sender, receiver, key, session, content)

    def session_of(number: int, ticket: str) -> str:
        row = world.stations[number].ledger.session(ticket)  # type: ignore[attr-defined]
        return str(row.session_id)

    chronicle.session = session_of
    world.watch = both
    world.run()
    return world, chronicle


def foreign_step(chronicle: Chronicle, request: str) -> str | None:
    """Return the first step of a request's sessions that the model does not know, or None."""
    tickets = chronicle.requests[request]
    model = Model(Rules(), tickets=len(tickets))
    state = model.start
    steps = [(action, party, ticket) for action, party, ticket in chronicle.steps if ticket in tickets]
    for action, party, ticket in _with_nothing_opened(steps):
        step = Step(action, party, tickets.index(ticket) + 1)
        after = model.step(state, step)
        if after is None:
            return str(step)
        state = after
    return None


def _with_nothing_opened(steps: Sequence[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """Add the opening of the values where every cell was suppressed, so that no message carried any."""
    opened = {ticket for action, _, ticket in steps if action == "open values"}
    whole: list[tuple[str, int, str]] = []
    for step in steps:
        action, _, ticket = step
        if action == "store" and ticket not in opened:
            opened.add(ticket)
            whole += [("open values", party, ticket) for party in PARTIES]
        whole.append(step)
    return whole
