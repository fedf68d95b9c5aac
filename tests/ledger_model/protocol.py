"""The budget protocol as a state machine of three parties, in the right way and in several wrong ones.

A state says, for every party and ticket, what is on its disk and whether it holds an output share, and
which messages were ever sent. Nothing leaves the set of messages: any of them may be delivered at any
time, in any order, as often as one likes, or never. That is loss, duplication and reordering at once, and
it lets a message outlive the process that sent it. What a party has *heard* is therefore not kept: a step
that needs messages of all peers is possible when they were sent, and a crash, which forgets what was
heard, costs nothing but time.

A crash and the restart after it are one step: in between a party does nothing, as any party may at any
time. It can fall between every two steps, hence also between a transaction and the sending of what it
allows. Messages that a party sends in the same step as its transaction (AGREE, HASH, STORED) are covered as
well: a message never sent and one never delivered look the same to everybody else.

A noise draw is named by the runs of all parties that took part in it, so a session run again has another
draw. A draw is *out* as soon as an honest party has sent its share of the pattern or of the values: the
colluder adds its own. (The pattern's shares are additive, so that all of them are needed; the model is the
stricter one.)

Place in the code of each step, for replaying a recorded run (`replay`):

===============  ==========================================================================================
begin, reserve   party/sequencer.py passes BEGIN on, every party's ledger takes a hold (`Ledger.reserve`)
join             party/session.py: AGREE has come from all, `Ledger.computing`
compute          party/session.py: everything is computed except the two openings
commit           `Ledger.commit`: hold → spent, sealed shares, state COMMITTED, in one transaction
send commit      party/publish.py: COMMIT leaves, now or after a restart
open pattern     party/publish.py: this party's stored share of the pattern leaves
learn pattern    party/publish.py: the pattern is known and stored (`Ledger.pattern`), its hash leaves
open values      party/publish.py: all hashes agree; this party's stored share of the values leaves
store            `Ledger.opened` and `Ledger.signed` (one step here: signing opens nothing); peers are told
release          all peers have stored: `Ledger.released`, and the key of the sealed shares is destroyed
abort            any failure or deadline before the own commit; also a ticket that a party denies to a peer
lose             a peer states that it never committed: LOST, the shares are destroyed
crash            kill and restart: RESERVED and COMPUTING become ABORTED, what is later is resumed
===============  ==========================================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

PARTIES = (1, 2, 3)
DEGREE = 1
SEQUENCER = 1
Draw = tuple[int, int, int]
"""The number of every party's run that took part in drawing the noise."""


class Phase(IntEnum):
    """What a party's disk says of a ticket. COMPUTING differs from RESERVED in memory only."""

    IDLE = 0
    RESERVED = 1
    COMMITTED = 2
    PATTERN = 3
    OPENED = 4
    RELEASED = 5
    ABORTED = 6
    LOST = 7


_PAID = (Phase.COMMITTED, Phase.PATTERN, Phase.OPENED, Phase.RELEASED)


@dataclass(frozen=True)
class Rules:
    """What distinguishes the protocol (all defaults) from protocols that do not work.

    Attributes:
        debit: when the hold becomes a debit.
        open_after: whose word a party waits for before its first opening.
        pattern_before_commit: the pattern is opened while computing.
        written_ahead: the output share is stored together with the debit.
        rerun: a session that a crash ended before its commit is run again under the same ticket.
        compare_openings: a COMMIT counts only if it names the draw that this party holds.
        shred: when the stored shares are destroyed.
        refund: a debit can be taken back, by an operator or at a deadline, until the values are stored.
        tombstone: who denies a ticket can no longer commit it.
    """

    debit: Literal["commit", "release"] = "commit"
    open_after: Literal["all commits", "a quorum of commits", "all reserved"] = "all commits"
    pattern_before_commit: bool = False
    written_ahead: bool = True
    rerun: bool = False
    compare_openings: bool = True
    shred: Literal["all stored", "own release"] = "all stored"
    refund: bool = False
    tombstone: bool = True


class Part(NamedTuple):
    """One party's side of one ticket."""

    phase: Phase = Phase.IDLE
    debits: tuple[Draw, ...] = ()
    run: int = 0
    share: Draw | None = None


class State(NamedTuple):
    """`parts` by ticket and party, and the set of messages ever sent, as bits (see `Messages`)."""

    parts: tuple[Part, ...]
    sent: int


class Step(NamedTuple):
    """What happened: an action of a party on a ticket; `draw` where there is a choice."""

    action: str
    party: int
    ticket: int
    draw: Draw | None = None

    def __str__(self) -> str:
        draw = "" if self.draw is None else f"  (noise draw {'.'.join(map(str, self.draw))})"
        return f"party {self.party}, ticket {self.ticket}: {self.action}{draw}"


class Message(NamedTuple):
    """What one party says to all others about a ticket; a draw or a run tells messages of a kind apart."""

    kind: str
    ticket: int
    sender: int
    draw: Draw | int | None


class Messages:
    """Gives every message that turns up a bit, so that a set of them is a number."""

    def __init__(self) -> None:
        self.bits: dict[Message, int] = {}
        self.openings = 0
        """The bits of all shares of patterns and values."""

    def bit(self, kind: str, ticket: int, sender: int, draw: Draw | int | None = None) -> int:
        """Return the message's bit."""
        message = Message(kind, ticket, sender, draw)
        found = self.bits.get(message)
        if found is None:
            found = self.bits[message] = 1 << len(self.bits)
            if kind in ("pattern share", "values share"):
                self.openings |= found
        return found

    def read(self, sent: int) -> Iterator[Message]:
        """Return the messages of a set."""
        return (message for message, bit in self.bits.items() if sent & bit)


class Model:
    """The protocol under some rules, for a number of tickets that answer one request one after another.

    `liar` is the number of a party that is not modelled but says whatever it likes at any time: every
    message of its own exists from the start, and as a sequencer it begins all tickets at once. Without
    one all parties keep to the protocol. Crashes are not bounded, except that wrong rules run a session
    again only after the first `reruns` of them.
    """

    def __init__(self, rules: Rules, *, tickets: int = 2, reruns: int = 1, liar: int | None = None) -> None:
        self.rules, self.tickets, self.reruns, self.liar = rules, tickets, reruns, liar
        self.messages = Messages()
        self.modelled = tuple(i for i in PARTIES if i != liar)
        repeats = self.reruns if rules.rerun or not rules.written_ahead else 0
        runs = range(max(repeats, liar is not None) + 1)
        self._all_draws: list[Draw] = [
            draw
            for draw in itertools.product(runs, runs, runs)
            if sum(run for i, run in zip(PARTIES, draw, strict=True) if i != liar) <= repeats
        ]

    @property
    def start(self) -> State:
        """The state before anything happens."""
        return State((Part(),) * (len(PARTIES) * self.tickets), 0)

    def part(self, state: State, party: int, ticket: int) -> Part:
        """Return a party's side of a ticket; parties and tickets count from 1."""
        return state.parts[(ticket - 1) * len(PARTIES) + party - 1]

    def successors(self, state: State) -> Iterator[tuple[Step, State]]:
        """Return every possible step with the state after it, without steps that change nothing."""
        for ticket in range(1, self.tickets + 1):
            for party in self.modelled:
                yield from self._steps(state, party, ticket, self.part(state, party, ticket))

    def step(self, state: State, step: Step) -> State | None:
        """Return the state after a step, or None if it is not possible.

        A crash, or sending again what was sent, which change nothing here, lead to the same state. A step
        without a draw stands for the only possible one of its kind.
        """
        for candidate, after in self.successors(state):
            if candidate[:3] == step[:3] and step.draw in (None, candidate.draw):
                return after
        kind = {"send commit": "commit", "open pattern": "pattern share", "open values": "values share"}
        repeated = step.action == "crash" or any(
            message[:3] == (kind.get(step.action), step.ticket, step.party)
            for message in self.messages.read(state.sent)
        )
        return state if step.party in self.modelled and repeated else None

    def replay(self, steps: Iterable[Step]) -> Iterator[State]:
        """Return the state after each step of a recorded run; ValueError at a step that is not allowed."""
        state = self.start
        for number, step in enumerate(steps, start=1):
            after = self.step(state, step)
            if after is None:
                raise ValueError(f"step {number} is not one of the protocol's: {step}")
            state = after
            yield state

    def _sent(self, state: State, kind: str, ticket: int, sender: int, draw: Draw | int | None) -> bool:
        return bool(state.sent & self.messages.bit(kind, ticket, sender, draw))

    def _all_say(self, state: State, kind: str, ticket: int, me: int, draw: Draw | int | None) -> int:
        """Count the peers that have said something."""
        return sum(
            peer == self.liar or self._sent(state, kind, ticket, peer, draw) for peer in PARTIES if peer != me
        )

    def _steps(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        phase, rules = part.phase, self.rules
        if phase is Phase.IDLE:
            yield from self._beginning(state, me, ticket, part)
        elif phase is Phase.RESERVED:
            yield from self._computing(state, me, ticket, part)
        elif phase in (Phase.COMMITTED, Phase.PATTERN):
            yield from self._publishing(state, me, ticket, part)
            if not rules.written_ahead and part.share is None:
                yield from self._drawing(state, me, ticket, part)
            if rules.refund:
                yield self._ended("refund", state, me, ticket, part, debits=())
            if rules.debit == "release":
                yield self._ended("abort", state, me, ticket, part)
        elif phase is Phase.OPENED:
            stored = self._all_say(state, "stored", ticket, me, None)
            if stored == len(PARTIES) - 1 or rules.shred == "own release":
                gone = part._replace(phase=Phase.RELEASED, share=None)
                yield self._moved("release", state, me, ticket, gone)
        if (rules.rerun or not rules.written_ahead) and phase in _PAID[:3] and part.share is not None:
            yield from self._joining(state, me, ticket, part)
        yield from self._crash(state, me, ticket, part)

    def _beginning(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        if me == SEQUENCER:
            before = None if ticket == 1 else self.part(state, me, ticket - 1).phase
            if before in (None, Phase.ABORTED, Phase.LOST):
                yield self._moved("begin", state, me, ticket, part._replace(phase=Phase.RESERVED), "agree", 0)
        elif self.liar == SEQUENCER or self.part(state, SEQUENCER, ticket).phase is not Phase.IDLE:
            yield self._moved("reserve", state, me, ticket, part._replace(phase=Phase.RESERVED), "agree", 0)
            yield self._ended("abort", state, me, ticket, part)

    def _computing(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        rules = self.rules
        yield self._ended("abort", state, me, ticket, part)
        if part.share is None:
            yield from self._drawing(state, me, ticket, part)
            return
        if rules.pattern_before_commit:
            if not self._sent(state, "pattern share", ticket, me, part.share):
                yield self._said("open pattern", state, me, ticket, "pattern share", part.share)
                return
            if self._all_say(state, "pattern share", ticket, me, part.share) < len(PARTIES) - 1:
                return
        debits = (part.share,) if rules.debit == "commit" else ()
        done = "commit" if debits else "finish computing"
        yield self._moved(done, state, me, ticket, part._replace(phase=Phase.COMMITTED, debits=debits))

    def _drawing(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        """Join a session, or finish computing in one that all have joined."""
        yield from self._joining(state, me, ticket, part)
        for draw in self._draws(me, part.run):
            joined = self._sent(state, "joined", ticket, me, draw)
            if joined and self._all_say(state, "joined", ticket, me, draw) == len(PARTIES) - 1:
                yield self._moved("compute", state, me, ticket, part._replace(share=draw), draw=draw)

    def _joining(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        for draw in self._draws(me, part.run):
            agreed = all(
                peer in (me, self.liar) or self._sent(state, "agree", ticket, peer, draw[peer - 1])
                for peer in PARTIES
            )
            if agreed and not self._sent(state, "joined", ticket, me, draw):
                yield self._said("join", state, me, ticket, "joined", draw)

    def _draws(self, me: int, run: int) -> Iterator[Draw]:
        """Return every draw that could be made with this party's run."""
        return (draw for draw in self._all_draws if draw[me - 1] == run)

    def _publishing(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        share, rules = part.share, self.rules
        if share is None:
            return
        if not self._sent(state, "commit", ticket, me, share):
            yield self._said("send commit", state, me, ticket, "commit", share)
        if part.phase is Phase.COMMITTED:
            may_open = self._may_open(state, me, ticket, share)
            opened = self._sent(state, "pattern share", ticket, me, share)
            if may_open and not opened:
                yield self._said("open pattern", state, me, ticket, "pattern share", share)
            if (
                may_open
                and opened
                and self._all_say(state, "pattern share", ticket, me, share) == len(PARTIES) - 1
            ):
                known = part._replace(phase=Phase.PATTERN)
                yield self._moved("learn pattern", state, me, ticket, known, "hash", share)
        else:
            opened = self._sent(state, "values share", ticket, me, share)
            if not opened and self._all_say(state, "hash", ticket, me, share) == len(PARTIES) - 1:
                yield self._said("open values", state, me, ticket, "values share", share)
            if opened and self._all_say(state, "values share", ticket, me, share) == len(PARTIES) - 1:
                debits = part.debits or (share,)
                stored = part._replace(phase=Phase.OPENED, debits=debits)
                yield self._moved("store", state, me, ticket, stored, "stored", None)
        if (
            any(self._denies(state, peer, ticket) for peer in PARTIES if peer != me)
            and rules.debit == "commit"
        ):
            yield self._moved("lose", state, me, ticket, part._replace(phase=Phase.LOST, share=None))

    def _may_open(self, state: State, me: int, ticket: int, share: Draw) -> bool:
        rules = self.rules
        if rules.open_after == "all reserved":
            return True  # nobody computes before all have reserved
        committed = 1
        for peer in PARTIES:
            if peer != me:
                named: Iterable[Draw] = [share] if rules.compare_openings else self._all_draws
                committed += peer == self.liar or any(
                    self._sent(state, "commit", ticket, peer, draw) for draw in named
                )
        return committed >= (DEGREE + 1 if rules.open_after == "a quorum of commits" else len(PARTIES))

    def _denies(self, state: State, peer: int, ticket: int) -> bool:
        if peer == self.liar:
            return True
        phase = self.part(state, peer, ticket).phase
        return phase is Phase.ABORTED or (not self.rules.tombstone and phase is Phase.RESERVED)

    def _crash(self, state: State, me: int, ticket: int, part: Part) -> Iterator[tuple[Step, State]]:
        rules = self.rules
        again = sum(self.part(state, i, ticket).run for i in PARTIES) < self.reruns
        if part.phase is Phase.RESERVED:
            if rules.rerun and again:
                fresh = part._replace(share=None, run=part.run + 1)
                yield self._moved("crash", state, me, ticket, fresh, "agree", fresh.run)
            else:
                yield self._ended("crash", state, me, ticket, part)
        elif part.phase in (Phase.COMMITTED, Phase.PATTERN):
            if rules.debit == "release":
                yield self._ended("crash", state, me, ticket, part)
            elif not rules.written_ahead and part.share is not None and again:
                fresh = part._replace(phase=Phase.COMMITTED, share=None, run=part.run + 1)
                yield self._moved("crash", state, me, ticket, fresh, "agree", fresh.run)

    def _ended(
        self,
        action: str,
        state: State,
        me: int,
        ticket: int,
        part: Part,
        debits: tuple[Draw, ...] | None = None,
    ) -> tuple[Step, State]:
        kept = part.debits if debits is None else debits
        return self._moved(action, state, me, ticket, Part(Phase.ABORTED, kept, part.run))

    def _moved(
        self,
        action: str,
        state: State,
        me: int,
        ticket: int,
        part: Part,
        kind: str | None = None,
        content: Draw | int | None = None,
        draw: Draw | None = None,
    ) -> tuple[Step, State]:
        """Return a step that changes what the party holds, and perhaps says something."""
        place = (ticket - 1) * len(PARTIES) + me - 1
        parts = (*state.parts[:place], part, *state.parts[place + 1 :])
        sent = state.sent if kind is None else state.sent | self.messages.bit(kind, ticket, me, content)
        return Step(action, me, ticket, draw), State(parts, sent)

    def _said(
        self, action: str, state: State, me: int, ticket: int, kind: str, draw: Draw
    ) -> tuple[Step, State]:
        sent = state.sent | self.messages.bit(kind, ticket, me, draw)
        return Step(action, me, ticket, draw), State(state.parts, sent)
