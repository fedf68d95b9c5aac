"""All parties in one process: the adapter of the port for tests and what-if runs.

A message is copied once, into the receiver's mailbox, before `send` returns. Everything a test wants
to see or spoil passes through one place: the transcript and the interceptor of `MemoryNetwork`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from mpc_engine.errors import EngineError, IntegrityError, PeerAbortedError, PeerError
from mpc_engine.runtime.link import Buffer, Link, MessageKey
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.runtime.traffic import TrafficStats

Interceptor = Callable[[int, int, MessageKey, bytearray], None]
"""Called with sender, receiver, key and content before delivery; may change the content and its length."""


class Sent(NamedTuple):
    """One line of the transcript. `payload` is kept only on request."""

    sender: int
    receiver: int
    key: MessageKey
    size: int
    payload: bytes | None


class Carrier(Protocol):
    """What lies between memory links: takes what one says to the other's `arrive`, `leave`, `hear_abort`."""

    def carry(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Take one message along."""

    def goodbye(self, sender: int, receiver: int) -> None:
        """Tell that the sender ends in good order."""

    def tell_abort(self, sender: int, receiver: int, reason: str, message: str) -> None:
        """Tell that the sender ends the session, and why."""


class MemoryNetwork(Carrier):
    """Links between parties 1..`parties`, of which 1..`computing` compute (default: all).

    Two input-only parties are not connected with each other. `round_timeout_s` is the longest wait
    for one message, `max_ahead_bytes` how far one party may run ahead of another.
    `transcript` lists every message as delivered, with its bytes if `record_payloads`.
    """

    def __init__(
        self,
        parties: int,
        computing: int | None = None,
        *,
        round_timeout_s: float = 60.0,
        max_ahead_bytes: int = 1 << 30,
        record_payloads: bool = False,
        intercept: Interceptor | None = None,
    ) -> None:
        self.transcript: list[Sent] = []
        self.intercept = intercept
        self._record_payloads = record_payloads
        self._timeout_s = round_timeout_s
        computing = parties if computing is None else computing
        if not 1 <= computing <= parties:
            raise EngineError(f"{computing} of {parties} parties cannot be the computing ones")
        self._links: dict[int, MemoryLink] = {}
        for me in range(1, parties + 1):
            peers = tuple(peer for peer in range(1, parties + 1) if peer != me and min(me, peer) <= computing)
            names = {peer: f"party {peer}" for peer in peers}
            box = Mailbox(names, round_timeout_s=round_timeout_s, max_ahead_bytes=max_ahead_bytes)
            self._links[me] = MemoryLink(self, me, peers, computing, box)

    def link(self, party: int) -> MemoryLink:
        """Return the link of `party`; always the same one."""
        return self._links[party]

    def links(self) -> list[MemoryLink]:
        """Return the links of all parties in order."""
        return [self._links[party] for party in sorted(self._links)]

    def kill(self, party: int) -> None:
        """Let `party` vanish without a word, as a crash or a pulled cable would."""
        self._links[party].fail(PeerError(f"party {party} was killed"))
        for peer in self._links[party].peers:
            self._links[peer].lose(party)

    def carry(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Take one message from its sender to its receiver's mailbox."""
        if self.intercept is not None:
            changed = bytearray(content)
            self.intercept(sender, receiver, key, changed)
            content = bytes(changed)
        payload = content if self._record_payloads else None
        self.transcript.append(Sent(sender, receiver, key, len(content), payload))
        self._links[receiver].arrive(sender, key, session, content)

    def goodbye(self, sender: int, receiver: int) -> None:
        """Tell the receiver's link that the sender ends in good order."""
        self._links[receiver].leave(sender)

    def tell_abort(self, sender: int, receiver: int, reason: str, message: str) -> None:
        """Tell the receiver's link that the sender ends the session, and why."""
        self._links[receiver].hear_abort(sender, reason, message)


class MemoryLink(Link):
    """One party's link; what it says goes through a carrier. Parties 1..`computing` compute."""

    def __init__(
        self, carrier: Carrier, me: int, peers: tuple[int, ...], computing: int, box: Mailbox
    ) -> None:
        self.stats = TrafficStats()
        self._carrier = carrier
        self._me = me
        self._peers = peers
        self._computing = computing
        self._box = box
        self._present = set(peers)
        self._closed = False

    @property
    def me(self) -> int:
        """This party's number."""
        return self._me

    @property
    def peers(self) -> tuple[int, ...]:
        """Numbers of the parties this link is connected to."""
        return self._peers

    def bind_session(self, session: bytes) -> None:
        """Mark messages sent, and demand of those received, from now on, with this 16-byte session id."""
        self._box.bind_session(session)

    async def send(self, peer: int, key: MessageKey, parts: Sequence[Buffer]) -> None:
        """Send one message; see `Link.send`."""
        self._box.raise_failure()
        if self._closed or peer not in self._peers:
            raise EngineError(f"there is no channel from party {self._me} to party {peer}")
        content = b"".join(parts)
        self.stats.add(peer, key, len(content))
        self._carrier.carry(self._me, peer, key, self._box.session, content)

    async def receive(self, peer: int, key: MessageKey, size: int) -> memoryview:
        """Wait for a message of exactly `size` bytes; see `Link.receive`."""
        return await self._box.take(peer, key, size)

    async def receive_control(
        self, peer: int, key: MessageKey, limit: int, timeout_s: float | None = None, *, unbound: bool = False
    ) -> bytes:
        """Wait for a control message of at most `limit` bytes; see `Link.receive_control`."""
        taken = self._box.take(peer, key, limit, exact=False, timeout_s=timeout_s, unbound=unbound)
        return bytes(await taken)

    async def abort(self, reason: str, message: str) -> None:
        """Tell every peer that this party ends the session, and why; never raises."""
        if self._closed:
            return
        self._closed = True
        for peer in self._peers:
            self._carrier.tell_abort(self._me, peer, reason, message)
        self.fail(PeerAbortedError(f"this party ended the session: {reason}: {message}", reason))

    async def close(self) -> None:
        """End in good order; never raises."""
        with suppress(EngineError):
            await self.finish()

    async def finish(self) -> None:
        """Say goodbye and wait, up to the round's deadline, for every peer's; see `Link.finish`."""
        if self._closed:
            return
        first = [peer for peer in self._peers if self._me > self._computing or peer <= self._computing]
        try:
            self._box.raise_failure()
            for peer in first:
                self._carrier.goodbye(self._me, peer)
            await self._box.goodbyes()
        except EngineError as error:
            await self.abort(error.reason, str(error))
            raise
        self._closed = True
        for peer in self._peers:
            if peer not in first:
                self._carrier.goodbye(self._me, peer)
        self.fail(PeerError(f"party {self._me} has closed its link"))

    # --- called by the carrier --------------------------------------------------------------------

    def arrive(self, sender: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Take a whole message from `sender`."""
        try:
            self._box.deliver(sender, key, session, len(content), 0, memoryview(content))
        except IntegrityError as error:
            self.fail(error)

    def leave(self, sender: int) -> None:
        """Note that `sender` has closed its link."""
        self._box.end(sender)
        self._present.discard(sender)

    @property
    def ended(self) -> bool:
        """Whether the session is over at this party, in good order or not."""
        return self._closed or self._box.failed

    def lose(self, sender: int) -> None:
        """Note that `sender` is gone without having closed its link."""
        if sender in self._present:
            self.fail(PeerError(f"the connection to party {sender} was lost"))

    def hear_abort(self, sender: int, reason: str, message: str) -> None:
        """Note that `sender` ended the session."""
        self.fail(PeerAbortedError(f"party {sender} ended the session: {reason}: {message}", reason))

    def fail(self, error: EngineError) -> None:
        """End the session at this party with `error`, unless it has ended already."""
        self._box.fail(error)
