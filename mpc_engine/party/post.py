"""Messages over the lines: durable ones from the ledger's outbox, in order and once, and those said once.

A line may break at any moment and be made again. Each side then says how far it has received; durable
messages go on from there. A message is handled and noted as received in one transaction, so a crash
between the two cannot lose or repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from mpc_engine.errors import EngineError, LedgerBrokenError, LedgerWriteError, ProtocolOrderError
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.journal import Journal
from mpc_engine.party.lines import (
    DURABLE,
    Ack,
    Hello,
    Message,
    body_of,
    frame,
    kind_of,
    read_frame,
)
from mpc_engine.party.process import place_of
from mpc_engine.runtime.switchboard import Switchboard

_GREATEST_GREETED = 10**12
"""Above it there is room for this party's own messages, which go on from there."""
_NOTE_EVERY_S = 1.0
"""The same refusal of one peer's messages is noted at most so often."""

Durable = Callable[[Transaction, int, Any], None]
"""Handles a durable message from a party, within a transaction; must not await."""
Live = Callable[[int, Any], None]
"""Handles any other message."""


class Post:
    """The messages of one party. `names` are the parties' names by number."""

    def __init__(
        self, ledger: Ledger, switchboard: Switchboard, names: Mapping[int, str], journal: Journal
    ) -> None:
        self._ledger, self._switchboard, self._names = ledger, switchboard, names
        self._journal = journal
        self._durable: dict[str, Durable] = {}
        self._live: dict[str, Live] = {}
        self._greeted: set[int] = set()
        self._sent: dict[int, int] = {}
        self._missed: dict[int, int] = {}
        self._after: list[Callable[[], None]] = []
        self._noted: dict[tuple[str, str], float] = {}
        self.on_broken: Callable[[EngineError], None] = lambda error: None
        """Told when the ledger fails in a way that the process must end for."""

    def handle(self, durable: Mapping[str, Durable], live: Mapping[str, Live]) -> None:
        """Add handlers by kind."""
        self._durable.update(durable)
        self._live.update(live)

    # --- sending ------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change the ledger; what was posted inside is sent, and what was deferred is done, once durable."""
        self._after.clear()
        try:
            with self._ledger.transaction() as tx:
                yield tx
        except LedgerWriteError as error:
            if self._ledger.broken:
                self.on_broken(error)
            raise
        # The change is durable: what follows may fail, but must not look as if the change had.
        waiting, self._after = self._after, []
        actions: list[Callable[[], None]] = [partial(self.flush, peer) for peer in sorted(self._greeted)]
        for action in [*actions, *waiting]:
            try:
                action()
            except Exception as error:
                self._journal("party.failed", kind=type(error).__name__, **place_of(error))

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something when the present transaction is durable."""
        self._after.append(action)

    def post(self, tx: Transaction, peer: int, message: Message) -> None:
        """Put a durable message into the outbox."""
        kind, body = kind_of(message), body_of(message)
        frame(kind, 1 << 62, body)  # refuses what no line would carry
        tx.post(self._names[peer], kind, body)

    def say(self, peer: int, message: Message) -> bool:
        """Say something once; returns whether the line took it."""
        return self._switchboard.say(peer, frame(kind_of(message), 0, body_of(message)))

    def flush(self, peer: int) -> None:
        """Send the durable messages for a peer that wait, as far as the line takes them."""
        for waiting in self._ledger.outgoing(self._names[peer], self._sent.get(peer, 0)):
            if not self._switchboard.say(peer, frame(waiting.kind, waiting.id, waiting.body)):
                return
            self._sent[peer] = waiting.id

    # --- the line -----------------------------------------------------------------------------------

    def line_up(self, peer: int) -> None:
        """Greet a peer; durable messages follow when it has greeted back."""
        self._greeted.discard(peer)
        self._missed.pop(peer, None)
        self.greet(peer)

    def greet(self, peer: int) -> None:
        """Tell a peer how far this party has received, so that it goes on from there."""
        name = self._names[peer]
        line, waiting = self._ledger.line(name), self._ledger.outgoing(name)
        first = waiting[0].id if waiting else line.sent + 1
        self.say(peer, Hello(received=line.received, first=first))

    def line_down(self, peer: int) -> None:
        """Send nothing more until the line stands again."""
        self._greeted.discard(peer)

    def heard(self, peer: int, content: bytes) -> None:
        """Act on a message. What cannot be understood is dropped, with a note in the journal."""
        name = self._names[peer]
        try:
            number, message = read_frame(content, name)
            if isinstance(message, Hello):
                self._hello(peer, message)
            elif isinstance(message, Ack):
                self._acknowledged(peer, message)
            elif kind_of(message) in DURABLE:
                self._receive(peer, number, message)
            else:
                self._live[kind_of(message)](peer, message)
        except LedgerWriteError as error:
            # Not acknowledged: the peer sends it again after the next greeting.
            self._journal("ledger.write_failed", peer=name, reason=error.reason)
        except LedgerBrokenError as error:
            self.on_broken(error)
        except EngineError as error:
            self._refused(name, error)

    def _refused(self, name: str, error: EngineError) -> None:
        """Note that a message was refused, but not often: a peer could fill the disk with such notes."""
        now = asyncio.get_running_loop().time()
        if now - self._noted.get((name, error.reason), -_NOTE_EVERY_S) >= _NOTE_EVERY_S:
            self._noted[name, error.reason] = now
            self._journal("line.refused", peer=name, reason=error.reason)

    def _hello(self, peer: int, hello: Hello) -> None:
        name = self._names[peer]
        if max(hello.received, hello.first) > _GREATEST_GREETED:
            raise ProtocolOrderError(f"{name} counts more messages than there can be")
        line = self._ledger.line(name)
        if hello.received > line.sent or hello.first - 1 > line.received:
            # One of the two ledgers was put back to an earlier state: go on with numbers that both accept.
            with self._ledger.transaction() as tx:
                tx.advance(name, hello.received)
                if hello.first > 1:
                    tx.received(name, hello.first - 1)
        self._greeted.add(peer)
        with self._ledger.transaction() as tx:
            tx.acknowledge(name, hello.received)
        self._sent[peer] = hello.received
        waiting = self._ledger.outgoing(name)
        if waiting and waiting[0].id > hello.received + 1:
            # It waits for messages that are not there any more, and would ask for them for ever.
            self.greet(peer)
        self.flush(peer)

    def _acknowledged(self, peer: int, ack: Ack) -> None:
        with self._ledger.transaction() as tx:
            tx.acknowledge(self._names[peer], ack.upto)
        if peer in self._greeted:
            self.flush(peer)

    def _receive(self, peer: int, number: int, message: Message) -> None:
        name = self._names[peer]
        expected = self._ledger.line(name).received + 1
        if number > expected:
            # Something is missing: have it sent again. Asked once; the tick asks on, and a message that
            # cannot be stored now, nor those after it, are not sent to and fro for as long as that lasts.
            if self._missed.get(peer) != expected:
                self._missed[peer] = expected
                self.greet(peer)
            return
        if number == expected:
            try:
                with self.transaction() as tx:
                    tx.received(name, number)
                    self._durable[kind_of(message)](tx, peer, message)
            except (LedgerWriteError, LedgerBrokenError):
                raise
            except EngineError as error:
                # It will not get better by being sent again.
                self._refused(name, error)
                with self._ledger.transaction() as tx:
                    tx.received(name, number)
        self.say(peer, Ack(upto=number))

    def check_sender(self, peer: int, allowed: bool) -> None:
        """Raise ProtocolOrderError unless a message may come from this party."""
        if not allowed:
            raise ProtocolOrderError(f"{self._names[peer]} may not say this")
