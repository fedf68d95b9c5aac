"""Committed sessions on their way to everybody: forward only, over any number of links and restarts.

A session is published over one link after another until all parties have stored release and receipt. Only
then is the key to the stored shares destroyed: until then somebody may need them. It ends otherwise only if
a party states, signed, that it never committed or has given up, or a check has failed here again and again:
then nothing can be opened any more, the budget stays spent, and the key is destroyed too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

from mpc_engine.documents import canonical
from mpc_engine.errors import (
    EngineError,
    IntegrityError,
    PeerError,
    ProtocolOrderError,
    PublicationError,
)
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import PUBLISHING, SessionRow
from mpc_engine.ledger.sealing import Sealing
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.control import known_failures
from mpc_engine.party.failpoints import reach
from mpc_engine.party.journal import Journal
from mpc_engine.party.lines import Ask, Stored, Told
from mpc_engine.party.post import Post
from mpc_engine.party.process import place_of
from mpc_engine.party.publish import publish
from mpc_engine.party.record import Record, remembered
from mpc_engine.party.situation import Situation
from mpc_engine.runtime.switchboard import Switchboard

CONTROL_ALLOWANCE = 4 << 20
"""Bytes a peer may be ahead with besides what the plan foresees: control messages."""
INTEGRITY_TRIES = 3
"""So often a session is published before a failed check is taken for more than a disturbance."""
GONE = frozenset(("ABORTED", "UNKNOWN", "LOST", "ADOPTED"))
"""States in which a party will never open its shares of a session."""

LONGEST_PAUSE_S = 60.0
"""Longest pause between two tries."""

Fetch = Callable[[int, str], Awaitable[tuple[dict[str, Any], dict[str, Any]] | None]]
"""Returns release and receipt of a session as a peer has them, None if not all parties signed them."""
Ended = Callable[[str, str, EngineError | None], None]
"""Told when a session has ended, or is published here: ticket, state, and why it failed."""


def link_name(purpose: str, ticket: str) -> bytes:
    """Return the name of a session's link."""
    return sha256(f"mpc-engine/link/1\0{purpose}\0{ticket}".encode()).digest()


def error_of(reason: str, words: str) -> EngineError:
    """Return the failure with a reason of the catalogue."""
    return known_failures().get(reason, EngineError)(words)


async def _fetch_nothing(peer: int, ticket: str) -> None:
    return None


class Publishing:
    """The committed sessions of one party.

    `fetch` is to be set to what gets a release from a peer.

    Args:
        record: returns a session's book.
        ended: see `Ended`.
        phase: told the phase of a session.
    """

    def __init__(
        self,
        ledger: Ledger,
        keys: Sealing,
        post: Post,
        switchboard: Switchboard,
        situation: Callable[[], Situation],
        journal: Journal,
        record: Callable[[str], Record],
        ended: Ended,
        phase: Callable[[str, str], None],
    ) -> None:
        self._ledger, self._keys, self._post = ledger, keys, post
        self._switchboard, self._situation, self._journal = switchboard, situation, journal
        self._record, self._ended, self._phase = record, ended, phase
        self.fetch: Fetch = _fetch_nothing
        self._asked: dict[str, dict[int, Told]] = {}
        self._done: dict[str, set[str]] = {}
        self._news: dict[str, asyncio.Event] = {}
        post.handle({"stored": self._stored}, {"ask": self._ask, "told": self._take_told})

    async def run(self, ticket: str, failure: EngineError | None = None) -> None:
        """Publish a session until everybody has the release, or it is lost.

        `failure` is why the first try, over the session's own link, did not succeed.
        """
        tries = failed_checks = 0
        while (row := self._ledger.session(ticket)) is not None and row.state in PUBLISHING:
            if self._complete(row):
                self._release(ticket)
                return
            if row.state == "SIGNED":
                if await self._pause(ticket) or await self._others_are_done(ticket):
                    continue
            elif failure is not None:
                self._journal("session.not_published", ticket=ticket, reason=failure.reason)
                failed_checks += isinstance(failure, IntegrityError) and not isinstance(
                    failure, ProtocolOrderError
                )
                if await self._resolve(ticket, failure if failed_checks >= INTEGRITY_TRIES else None):
                    continue
                await self._rest(ticket, tries)
                tries += 1
            if not all(self._switchboard.connected(peer) for peer in self._situation().peers):
                failure, tries = PeerError("a line is down"), 0
                await self._pause(ticket)
            elif not self._has_key(ticket):
                failure = PeerError("only the others can have the release: the key to the shares is not here")
            else:
                failure = await self._try(ticket)

    def line_up(self) -> None:
        """Let all sessions try again: a line stands."""
        for news in self._news.values():
            news.set()

    def forget(self, ticket: str) -> None:
        """Drop what was kept of a session that does not run any more."""
        for kept in (self._news, self._asked, self._done):
            kept.pop(ticket, None)

    async def states(self, ticket: str) -> dict[int, str]:
        """Ask all peers for the state of a session, and return the answers that come in time."""
        told = self._asked.setdefault(ticket, {})
        told.clear()
        for peer in self._situation().peers:
            self._post.say(peer, Ask(ticket=ticket))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._situation().deadlines.pause_s
        while len(told) < len(self._situation().peers) and (left := until - loop.time()) > 0:
            await self._pause(ticket, left)
        return {peer: each.state for peer, each in told.items()}

    # --- trying -------------------------------------------------------------------------------------

    async def _try(self, ticket: str) -> EngineError | None:
        """Publish once, over a link of its own; return why it did not work. Ends early if all have stored."""
        work = asyncio.get_running_loop().create_task(self._publish(ticket))
        try:
            while not work.done():
                news = asyncio.get_running_loop().create_task(self._event(ticket).wait())
                try:
                    await asyncio.wait([work, news], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                self._event(ticket).clear()
                row = self._ledger.session(ticket)
                if row is None or row.state not in PUBLISHING or self._complete(row):
                    break
        finally:
            if not work.done():
                work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        error = None if work.cancelled() else work.exception()
        if error is None or isinstance(error, EngineError):
            return error
        self._journal("session.publish_failed", ticket=ticket, kind=type(error).__name__, **place_of(error))
        return EngineError(f"unexpected {type(error).__name__}")

    async def _publish(self, ticket: str) -> None:
        here = self._situation()
        deadlines = here.deadlines
        committed = remembered(self._ledger, self._keys, ticket, here.codebook)
        self._phase(ticket, "connect")
        async with self._switchboard.link(
            link_name("publish", ticket),
            connect_timeout_s=deadlines.connect_s,
            round_timeout_s=deadlines.round_s,
            max_ahead_bytes=committed.plan.sent_bytes // committed.plan.computing + CONTROL_ALLOWANCE,
        ) as link:
            link.bind_session(committed.session_id)
            await publish(
                committed,
                link,
                here.credentials(""),
                self._record(ticket),
                announce=lambda phase: self._phase(ticket, phase),
            )

    def _has_key(self, ticket: str) -> bool:
        """Tell whether this party can open its shares: not after a backup without the key was put back."""
        return self._ledger.sealed(ticket) is None or ticket in self._keys.tickets()

    async def _resolve(self, ticket: str, given_up: EngineError | None) -> bool:
        """Ask all peers for a session's state, and act on it; tell whether that has changed anything.

        Whoever has release and receipt gives them to this party. Else the session is lost if a peer will
        never open its shares, or if this party gives it up for a check that fails again and again.
        """
        states = await self.states(ticket)
        for peer, state in sorted(states.items()):
            if state in ("SIGNED", "RELEASED") and await self._take_over(ticket, peer):
                return True
        if any(state in ("SIGNED", "RELEASED") for state in states.values()):
            return False  # it exists: sooner or later it can be had
        row = self._ledger.session(ticket)
        if row is None or row.state not in ("COMMITTED", "PATTERN", "OPENED"):
            return True
        for peer, told in sorted(self._asked.get(ticket, {}).items()):
            if told.state in GONE:
                name = self._situation().names[peer]
                failure = PublicationError(f"{name} did not commit the session, or has given it up")
                self._lose(ticket, failure, canonical(told.model_dump()))
                return True
        if given_up is not None:
            self._lose(ticket, given_up, b"")
        return given_up is not None

    async def _take_over(self, ticket: str, peer: int) -> bool:
        """Take release and receipt from a peer that has them, if all parties signed them."""
        found = await self.fetch(peer, ticket)
        row = self._ledger.session(ticket)
        if found is None or row is None or row.state not in ("COMMITTED", "PATTERN", "OPENED"):
            return False
        release, receipt = found
        if receipt.get("session_id") != row.session_id:
            return False
        record = self._record(ticket)
        record.pattern(bytes.fromhex(receipt["pattern_sha256"]))
        record.opened(release, receipt["release_sha256"])
        record.signed(receipt)
        self._journal("session.taken_over", ticket=ticket, peer=self._situation().names[peer])
        return True

    async def _others_are_done(self, ticket: str) -> bool:
        """Ask the peers that have not said that they stored the release; tell whether none needs us."""
        states = await self.states(ticket)
        self._done[ticket] = {
            self._situation().names[peer]
            for peer, state in states.items()
            if state == "RELEASED" or state in GONE
        }
        row = self._ledger.session(ticket)
        return row is None or self._complete(row)

    # --- ends ---------------------------------------------------------------------------------------

    def _complete(self, row: SessionRow) -> bool:
        """Tell whether all have the release, or have said that they will never need this party's shares."""
        here = self._situation()
        done = row.stored_by | self._done.get(row.ticket, set())
        return row.state == "SIGNED" and done >= {here.names[peer] for peer in here.peers}

    def _release(self, ticket: str) -> None:
        """Everybody has the release: destroy what could open it again."""
        reach("before_released")
        self._keys.shred(ticket)
        with self._post.transaction() as tx:
            tx.released(ticket)
        reach("after_released")
        self._journal("session.released", ticket=ticket)
        self._ended(ticket, "RELEASED", None)

    def _lose(self, ticket: str, failure: EngineError, evidence: bytes) -> None:
        with self._post.transaction() as tx:
            tx.lose(ticket, failure.reason, evidence)
        self._keys.shred(ticket)
        self._journal("session.lost", ticket=ticket, reason=failure.reason)
        self._ended(ticket, "LOST", failure)

    # --- news ---------------------------------------------------------------------------------------

    def _event(self, ticket: str) -> asyncio.Event:
        return self._news.setdefault(ticket, asyncio.Event())

    async def _pause(self, ticket: str, timeout_s: float | None = None) -> bool:
        """Wait a while, or until there is news of a session; tell whether there was."""
        event = self._event(ticket)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s or self._situation().deadlines.pause_s):
                await event.wait()
        came = event.is_set()
        event.clear()
        return came

    async def _rest(self, ticket: str, tries: int) -> None:
        """Wait between two tries: a little in any case, then the longer the more there were, or for news."""
        pause_s = self._situation().deadlines.pause_s
        await asyncio.sleep(pause_s)
        if tries:
            await self._pause(ticket, min(LONGEST_PAUSE_S, pause_s * 2 ** min(tries, 10)))

    def _stored(self, tx: Transaction, sender: int, stored: Stored) -> None:
        """A peer has stored release and receipt."""
        row = self._ledger.session(stored.ticket)
        if row is not None and row.state in PUBLISHING:
            tx.stored(stored.ticket, self._situation().names[sender])
            self._post.afterwards(lambda: self._notify(stored.ticket))

    def _ask(self, sender: int, ask: Ask) -> None:
        here = self._situation()
        row = self._ledger.session(ask.ticket)
        state, session_id = ("UNKNOWN", "") if row is None else (row.state, row.session_id)
        told = Told.make(ask.ticket, here.name, state, here.identity.signing, session_id)
        self._post.say(sender, told)

    def _take_told(self, sender: int, told: Told) -> None:
        here = self._situation()
        self._post.check_sender(
            sender, told.party == here.names[sender] and told.signed_by(here.keys(sender))
        )
        if told.ticket in self._asked:
            self._asked[told.ticket][sender] = told
            self._notify(told.ticket)

    def _notify(self, ticket: str) -> None:
        if ticket in self._news:
            self._news[ticket].set()
