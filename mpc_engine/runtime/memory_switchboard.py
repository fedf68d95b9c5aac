"""The switchboard of parties in one process: for simulations, with faults at will.

All parties share a `MemoryExchange`. Waiting goes through the running event loop's clock, so that a loop
with a clock of its own makes hours pass at once. Over a network a line loses messages only by breaking;
`Faults` can lose, repeat and reorder them too, because nothing that a party does may rest on the line.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from mpc_engine.errors import DeadlineError, EngineError, PeerError, StoppedError
from mpc_engine.runtime.endings import first_cause
from mpc_engine.runtime.link import MessageKey
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.runtime.memory import Carrier, MemoryLink
from mpc_engine.runtime.memory_lines import MESSAGE_COST, QUEUE_BYTES, Cable, Faults, Flow
from mpc_engine.runtime.switchboard import MAX_LINE_BYTES, NAME_BYTES, Listener, Switchboard


class MemoryExchange:
    """The lines and links among parties 1..`parties`, of which 1..`computing` compute (default: all).

    Two input-only parties are not connected. `reconnect_s` is how long a line takes to be made again.
    """

    def __init__(
        self,
        parties: int,
        computing: int | None = None,
        *,
        faults: Faults | None = None,
        reconnect_s: float = 1.0,
    ) -> None:
        computing = parties if computing is None else computing
        if not 1 <= computing <= parties:
            raise EngineError(f"{computing} of {parties} parties cannot be the computing ones")
        self.faults = Faults() if faults is None else faults
        self.computing = computing
        self.reconnect_s = reconnect_s
        self._boards: dict[int, MemorySwitchboard] = {}
        self._cables = {
            (one, two): Cable(one, two)
            for one in range(1, computing + 1)
            for two in range(one + 1, parties + 1)
        }

    # --- parties ------------------------------------------------------------------------------------

    def switchboard(self, party: int) -> MemorySwitchboard:
        """Return a new switchboard for a party that has none, or whose last one was stopped or killed."""
        if party in self._boards and not self._boards[party].over:
            raise EngineError(f"party {party} runs already")
        board = MemorySwitchboard(self, party, self.peers(party))
        self._boards[party] = board
        return board

    def peers(self, party: int) -> tuple[int, ...]:
        """Return the parties that a party is connected with, ascending."""
        ends = (cable.ends for cable in self._cables.values() if party in cable.ends)
        return tuple(sorted(one + two - party for one, two in ends))

    def kill(self, party: int) -> None:
        """Let a party vanish without a word, as a crash would; nothing that it does is seen any more."""
        self._boards[party].die()
        self._unplug(party, f"the connection to party {party} was lost: reset")

    def restart(self, party: int) -> MemorySwitchboard:
        """Return a new switchboard for a party that was killed or stopped."""
        return self.switchboard(party)

    # --- cables -------------------------------------------------------------------------------------

    def cut(self, one: int, two: int) -> None:
        """Break the connection of two parties, with its line and the links over it, until it is healed."""
        cable = self._cable(one, two)
        cable.holds = False
        self._break(cable, "the connection was cut")

    def heal(self, one: int, two: int) -> None:
        """Let two parties connect again."""
        cable = self._cable(one, two)
        cable.holds = True
        self.plug(cable.ends)

    # --- called by the switchboards -----------------------------------------------------------------

    def plug(self, parties: Iterable[int], delay_s: float | None = None) -> None:
        """Make the lines of parties that can be made, and bring their links together."""
        wanted = set(parties)
        for cable in self._cables.values():
            idle = cable.attempt is None and not cable.line
            if idle and not wanted.isdisjoint(cable.ends) and self._possible(cable):
                wait_s = self.reconnect_s if delay_s is None else delay_s
                cable.attempt = asyncio.get_running_loop().call_later(wait_s, self._connect, cable)

    def line(self, sender: int, receiver: int) -> Flow | None:
        """Return the line one way, if it stands."""
        return self._cable(sender, receiver).line.get(sender)

    def say(self, sender: int, receiver: int, message: bytes) -> bool:
        """Send a message over a line; see `Switchboard.say`."""
        cable = self._cable(sender, receiver)
        flow = cable.line.get(sender)
        cost = len(message) + MESSAGE_COST
        if flow is None or cable.queued[sender] + cost > QUEUE_BYTES:
            return False
        board = self._boards[receiver]

        def arrive() -> None:
            if cable.line.get(sender) is flow:
                board.hear(sender, message)

        def arrive_in_order() -> None:
            cable.queued[sender] -= cost
            arrive()

        copies = self.faults.line_copies(sender, receiver, message)
        if copies is None:
            cable.queued[sender] += cost
            flow.send(self.faults.latency_s(sender, receiver), arrive_in_order)
        else:
            for delay_s in copies:
                asyncio.get_running_loop().call_later(delay_s, arrive)
        return True

    def attach(self, name: bytes, party: int) -> None:
        """Bring a party's link of this name together with those peers' that are open and have no partner."""
        mine = self._boards[party].wires.get(name)
        for peer in self.peers(party):
            theirs = self._boards[peer].wires.get(name) if peer in self._boards else None
            if mine is not None and theirs is not None and self._cable(party, peer).line:
                mine.join(theirs)

    def leave(self, party: int) -> None:
        """Break everything of a party that has stopped in good order."""
        self._unplug(party, f"the connection to party {party} was lost: it is shutting down")

    # --- within -------------------------------------------------------------------------------------

    def _cable(self, one: int, two: int) -> Cable:
        cable = self._cables.get((min(one, two), max(one, two)))
        if cable is None:
            raise EngineError(f"there is no channel from party {one} to party {two}")
        return cable

    def _possible(self, cable: Cable) -> bool:
        boards = [self._boards.get(end) for end in cable.ends]
        return cable.holds and all(board is not None and board.runs for board in boards)

    def _connect(self, cable: Cable) -> None:
        cable.attempt = None
        if not self._possible(cable) or cable.line:
            return
        cable.line = {end: Flow() for end in cable.ends}
        cable.queued = dict.fromkeys(cable.ends, 0)
        one, two = cable.ends
        for me, peer in ((one, two), (two, one)):
            self._boards[me].tell(lambda listener, peer=peer: listener.line_up(peer))  # type: ignore[misc]
        for name in list(self._boards[one].wires):
            self.attach(name, one)

    def _unplug(self, party: int, why: str) -> None:
        for cable in self._cables.values():
            if party in cable.ends:
                self._break(cable, why)

    def _break(self, cable: Cable, why: str) -> None:
        if cable.attempt is not None:
            cable.attempt.cancel()
            cable.attempt = None
        stood = bool(cable.line)
        for flow in cable.line.values():
            flow.cut()
        cable.line = {}
        one, two = cable.ends
        for me, peer in ((one, two), (two, one)):
            board = self._boards.get(me)
            if board is not None:
                for wires in list(board.wires.values()):
                    wires.lose(peer)
                if stood:
                    board.tell(lambda listener, peer=peer: listener.line_down(peer, why))  # type: ignore[misc]


class _Wires(Carrier):
    """One party's end of one link: to whose link it is attached at every peer, and what is under way."""

    def __init__(self, board: MemorySwitchboard, round_timeout_s: float, max_ahead_bytes: int) -> None:
        self._board = board
        self._exchange = board.exchange
        box = Mailbox(
            {peer: f"party {peer}" for peer in board.peers},
            round_timeout_s=round_timeout_s,
            max_ahead_bytes=max_ahead_bytes,
        )
        self._box = box
        self._partners: dict[int, _Wires] = {}
        self._flows: dict[int, Flow] = {}
        self._change = asyncio.Event()
        box.on_failure = self._change.set
        self.link = MemoryLink(self, board.me, board.peers, self._exchange.computing, box)

    @property
    def flows(self) -> list[Flow]:
        """What is under way to the partners."""
        return list(self._flows.values())

    def join(self, other: _Wires) -> None:
        """Attach to a peer's end, unless either is attached already or has ended."""
        me, peer = self._board.me, other._board.me
        if peer in self._partners or me in other._partners or self.link.ended or other.link.ended:
            return
        for end, far in ((self, other), (other, self)):
            end._partners[far._board.me] = far
            end._flows[far._board.me] = Flow()
            end._change.set()

    def lose(self, peer: int) -> None:
        """Note that the connection with a peer broke."""
        if peer in self._partners:
            self._flows[peer].cut()
            self.link.lose(peer)

    def die(self) -> None:
        """Cut everything without a word."""
        for flow in self._flows.values():
            flow.cut()
        self.link.fail(PeerError(f"party {self._board.me} was killed"))

    async def complete(self, timeout_s: float) -> None:
        """Wait until there is a partner at every peer. Raises what makes that impossible."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self._partners) < len(self._board.peers):
                    self._box.raise_failure()
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            missing = "; ".join(
                f"party {peer} {'has not opened the session' if self._board.connected(peer) else 'is away'}"
                for peer in self._board.peers
                if peer not in self._partners
            )
            raise DeadlineError(f"not connected within {timeout_s:g} s: {missing}") from None
        self._box.raise_failure()

    def carry(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Take one message to the partner; see `Carrier.carry`."""
        content = self._exchange.faults.link_message(sender, receiver, key, session, content)
        self._send(receiver, lambda partner: partner.arrive(sender, key, session, content))

    def goodbye(self, sender: int, receiver: int) -> None:
        """Take a goodbye to the partner."""
        self._send(receiver, lambda partner: partner.leave(sender))

    def tell_abort(self, sender: int, receiver: int, reason: str, message: str) -> None:
        """Take the end of the session to the partner."""
        self._send(receiver, lambda partner: partner.hear_abort(sender, reason, message))

    def _send(self, receiver: int, deliver: Callable[[MemoryLink], None]) -> None:
        partner = self._partners.get(receiver)
        if partner is not None:
            delay_s = self._exchange.faults.latency_s(self._board.me, receiver)
            self._flows[receiver].send(delay_s, lambda: deliver(partner.link))


class MemorySwitchboard(Switchboard):
    """One party's switchboard at a `MemoryExchange`, until it is stopped or killed."""

    def __init__(self, exchange: MemoryExchange, me: int, peers: tuple[int, ...]) -> None:
        self.exchange = exchange
        self.wires: dict[bytes, _Wires] = {}
        """This party's ends of its open links, by name."""
        self._me = me
        self._peers = peers
        self._listener: Listener | None = None
        self._context = contextvars.copy_context()
        self._over = False

    @property
    def me(self) -> int:
        """This party's number."""
        return self._me

    @property
    def peers(self) -> tuple[int, ...]:
        """The parties it has lines and links with."""
        return self._peers

    @property
    def runs(self) -> bool:
        """Whether it was started and is not over."""
        return self._listener is not None and not self._over

    @property
    def over(self) -> bool:
        """Whether it was stopped or killed."""
        return self._over

    def connected(self, peer: int) -> bool:
        """Tell whether the line with a peer stands."""
        return not self._over and self.exchange.line(self._me, peer) is not None

    async def start(self, listener: Listener) -> None:
        """Make lines with all peers that have started; see `Switchboard.start`."""
        if self._listener is not None or self._over:
            raise EngineError("a switchboard is started once")
        self._listener = listener
        self._context = contextvars.copy_context()
        self.exchange.plug([self._me], 0.0)

    def say(self, peer: int, message: bytes) -> bool:
        """Queue a message for a peer; see `Switchboard.say`. Raises EngineError if it is too long."""
        if len(message) > MAX_LINE_BYTES:
            raise EngineError(f"a message of {len(message)} bytes is too long for a line")
        return not self._over and self.exchange.say(self._me, peer, bytes(message))

    def link(
        self,
        name: bytes,
        *,
        connect_timeout_s: float,
        round_timeout_s: float,
        max_ahead_bytes: int,
    ) -> AbstractAsyncContextManager[MemoryLink]:
        """Open a link with all peers under a name of 32 bytes; see `Switchboard.link`.

        Entering raises DeadlineError naming who is missing, PeerError, PeerAbortedError, and StoppedError
        once this party is over.
        """
        return self._link(bytes(name), connect_timeout_s, round_timeout_s, max_ahead_bytes)

    async def stop(self, grace_s: float) -> None:
        """End links and lines; peers are told. Never raises."""
        if self._over:
            return
        self._over = True
        stopped = StoppedError("this party was stopped")
        for wires in list(self.wires.values()):
            wires.link.fail(stopped)
            await wires.link.abort(stopped.reason, str(stopped))
        # What was said last is to arrive before the connections end.
        limit = asyncio.get_running_loop().time() + grace_s
        lines = [self.exchange.line(self._me, peer) for peer in self._peers]
        flows = [flow for flow in lines if flow is not None]
        for flow in [*flows, *(flow for wires in self.wires.values() for flow in wires.flows)]:
            await flow.settle(limit)
        self.exchange.leave(self._me)

    # --- called by the exchange -----------------------------------------------------------------------

    def hear(self, peer: int, message: bytes) -> None:
        """Take a message that came over the line."""
        self.tell(lambda listener: listener.heard(peer, message))

    def tell(self, say: Callable[[Listener], None]) -> None:
        """Tell the listener, in the context in which it was started, unless this party is over."""
        if self._listener is not None and not self._over:
            self._context.copy().run(say, self._listener)

    def die(self) -> None:
        """Be over without a word."""
        self._over = True
        for wires in list(self.wires.values()):
            wires.die()

    # --- within -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _link(
        self, name: bytes, connect_timeout_s: float, round_timeout_s: float, max_ahead_bytes: int
    ) -> AsyncIterator[MemoryLink]:
        if len(name) != NAME_BYTES or name in self.wires:
            raise EngineError(f"a link's name has {NAME_BYTES} bytes, and only one link at a time has it")
        if not self.runs:
            raise StoppedError("this party's connections are not running")
        wires = self.wires[name] = _Wires(self, round_timeout_s, max_ahead_bytes)
        link = wires.link
        try:
            self.exchange.attach(name, self._me)
            await wires.complete(connect_timeout_s)
            yield link
        except BaseException as error:
            cause = first_cause(error)
            await link.abort(cause.reason, str(cause))
            raise
        else:
            await link.close()
        finally:
            del self.wires[name]
