"""Bringing a ledger that was restored from a backup back in line with what its peers have seen.

The restored party asks every peer for the commitments that it once signed, and adopts those that its ledger
lacks as spent. Its own signature is the proof: nobody can invent a debit, and one honest peer is enough to
bring it back. (What it debited and told nobody, nobody has used.) What was released it takes over too, if the
receipt bears the signatures of all. Then it tells the peers, who write down that its ledger goes on from
another head: that is public, and for people to judge. A ledger protects its owner's data; no peer can prove
what an owner does with a copy of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from mpc_engine.documents import canonical
from mpc_engine.errors import DeadlineError, DocumentError, ProtocolOrderError
from mpc_engine.identity.signing import verify
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.charge import Charge
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.rows import SessionRow
from mpc_engine.party.encoding import read_result
from mpc_engine.party.journal import Journal
from mpc_engine.party.lines import (
    MOST_DEBITS,
    MOST_RELEASE_BYTES,
    PART_BYTES,
    Account,
    AskDebits,
    AskRelease,
    Debit,
    Debits,
    Recovered,
    ReleasePart,
)
from mpc_engine.party.post import Post
from mpc_engine.party.publish import COMMIT_PURPOSE
from mpc_engine.party.receipt import check_receipt
from mpc_engine.party.situation import Situation
from mpc_engine.party.witnessing import rolled_back
from mpc_engine.release.table import release_digest
from mpc_engine.transport.control import Commit

SPENT = ("COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED", "LOST", "ADOPTED")
BEHIND, RECOVERED = "behind", "recovered"
"""Notes in the audit chain: peers have seen more of this ledger than there is; none of them does any more."""


def is_behind(reading: Reading) -> bool:
    """Tell whether a ledger was found to be older than what peers have seen, and has not recovered since."""
    return reading.latest(BEHIND, RECOVERED) == BEHIND


class Recovery:
    """Both sides of a recovery, at one party."""

    def __init__(
        self, ledger: Ledger, post: Post, situation: Callable[[], Situation], journal: Journal
    ) -> None:
        self._ledger, self._post, self._situation, self._journal = ledger, post, situation, journal
        self._pages: dict[int, asyncio.Queue[Debits]] = {}
        self._parts: dict[tuple[int, str], asyncio.Queue[ReleasePart]] = {}
        self._told: dict[int, list[str]] = {}
        self._one = asyncio.Lock()
        self.behind = is_behind(ledger)
        """Whether peers have seen more of this ledger than there is, as far as is known."""
        post.handle(
            {},
            {
                "ask-debits": self._asked,
                "debits": self._page,
                "ask-release": self._asked_for_release,
                "release-part": self._part,
                "recovered": self._recovered,
            },
        )

    def learn(self, request: str) -> None:
        """Note it if a request was returned because this ledger is older than one that was seen.

        A session must have been tried here: a peer's words alone, about one that never was, are nothing.
        """
        row, tried = self._ledger.request(request), bool(self._ledger.sessions_of(request))
        if row is not None and tried and rolled_back(row.reason, row.detail, self._situation().name):
            self.found()

    def found(self) -> None:
        """Note, durably, that this ledger lacks what peers have seen. Raises LedgerWriteError."""
        if self.behind:
            return
        with self._post.transaction() as tx:
            tx.note(BEHIND, {})
        self.behind = True
        self._journal("ledger.behind")

    def accepted(self) -> None:
        """Note that all peers have taken up this ledger as it is, as they do in a session that releases."""
        if not self.behind:
            return
        with self._post.transaction() as tx:
            tx.note(RECOVERED, {})
        self.behind = False

    async def recover(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """Adopt what the peers witnessed; return what was adopted, who answered and who did not."""
        async with self._one:
            return await self._recover(timeout_s)

    async def _recover(self, timeout_s: float) -> dict[str, Any]:
        here = self._situation()
        adopted: list[dict[str, Any]] = []
        answered, missing = [], []
        tickets: dict[int, str] = {}
        for peer in here.peers:
            try:
                debits = await self._fetch(peer, timeout_s)
            except DeadlineError:
                missing.append(here.names[peer])
                continue
            adopted += self._adopt(peer, debits)
            tickets[peer] = _digest([debit.ticket for debit in debits])
            await self._restore(peer, [debit.ticket for debit in debits if debit.released], timeout_s)
            answered.append(peer)
        if not missing:
            self.accepted()
        head = self._ledger.head()
        for peer in answered:
            self._post.say(peer, Recovered(entries=head.seq, hash=head.hash.hex(), tickets=tickets[peer]))
        self._journal("ledger.recovered", count=len(adopted))
        return {
            "adopted": adopted,
            "peers": [here.names[peer] for peer in answered],
            "missing": missing,
        }

    async def _fetch(self, peer: int, timeout_s: float) -> list[Debit]:
        """Return all debits that a peer knows of. Raises DeadlineError."""
        queue: asyncio.Queue[Debits] = asyncio.Queue(1)
        self._pages[peer] = queue
        debits: list[Debit] = []
        after = ""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._post.say(peer, AskDebits(after=after))
                    page = await queue.get()
                    if page.after != after:
                        continue
                    debits += page.debits
                    if not page.more or not page.debits:
                        return debits
                    after = page.debits[-1].ticket
        except TimeoutError:
            name = self._situation().names[peer]
            raise DeadlineError(f"{name} did not tell its debits within {timeout_s:g} s") from None
        finally:
            del self._pages[peer]

    def _adopt(self, peer: int, debits: list[Debit]) -> list[dict[str, Any]]:
        here = self._situation()
        adopted = []
        for debit in debits:
            row = self._ledger.session(debit.ticket)
            account = self._proved(debit)
            if account is None or (row is not None and row.state in SPENT):
                continue
            limits = here.limits(account.analyst, account.analyst_name, account.project)
            with self._post.transaction() as tx:
                tx.adopt(
                    account.ticket,
                    request=account.request,
                    question=account.question,
                    charge=Charge(account.micro_epsilon, int(account.delta)),
                    scopes=[limit.scope for limit in limits],
                    peer=here.names[peer],
                    analyst_name=account.analyst_name,
                    project=account.project,
                )
            adopted.append(
                {
                    "request": account.request,
                    "analyst": account.analyst_name,
                    "micro_epsilon": account.micro_epsilon,
                    "peer": here.names[peer],
                }
            )
        return adopted

    def _proved(self, debit: Debit) -> Account | None:
        """Return what this party once committed to, if the commitment bears its own signature."""
        here = self._situation()
        try:
            commit = Commit.decode(bytes.fromhex(debit.commit))
            content = commit.signed_content(bytes.fromhex(debit.session_id), debit.plan)
            account = Account.decode(commit.account)
        except (ProtocolOrderError, DocumentError):
            return None
        own = any(verify(key, COMMIT_PURPOSE, content, commit.signature) for key in here.keys(here.number))
        if not own or commit.party != here.number or account.ticket != debit.ticket:
            self._journal("ledger.debit_not_proved", ticket=debit.ticket)
            return None
        return account

    async def _restore(self, peer: int, tickets: list[str], timeout_s: float) -> None:
        """Take over what was released in adopted sessions; what cannot be verified is left out."""
        for ticket in tickets:
            row = self._ledger.session(ticket)
            if row is None or row.state != "ADOPTED" or self._ledger.receipt(ticket) is not None:
                continue
            found = await self.fetch(peer, ticket, timeout_s)
            if found is None:
                continue
            release, receipt = found
            content = json.dumps(release, ensure_ascii=False).encode()
            with self._post.transaction() as tx:
                tx.restore(ticket, content, release_digest(release), canonical(receipt))

    async def fetch(
        self, peer: int, ticket: str, timeout_s: float = 30.0
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return release and receipt of a session as a peer has them, None unless all parties signed them."""
        try:
            release, receipt = read_result(await self._fetch_release(peer, ticket, timeout_s))
            if receipt is not None and self._verified(ticket, release, receipt):
                return release, receipt
        except (DeadlineError, DocumentError):
            pass
        self._journal("session.not_fetched", ticket=ticket, peer=self._situation().names[peer])
        return None

    def _verified(self, ticket: str, release: Mapping[str, Any], receipt: Mapping[str, Any]) -> bool:
        """Tell whether all parties of the present roster, this one among them, signed this release."""
        here = self._situation()
        cards = {name: here.directory.cards[number - 1] for number, name in here.names.items()}
        findings = check_receipt(receipt, release, cards)
        names = {party["name"] for party in receipt["parties"]}
        return receipt["ticket"] == ticket and names == set(cards) and all(finding.ok for finding in findings)

    async def _fetch_release(self, peer: int, ticket: str, timeout_s: float) -> bytes:
        """Return release and receipt as a peer has them. Raises DeadlineError."""
        queue: asyncio.Queue[ReleasePart] = asyncio.Queue(1)
        self._parts[peer, ticket] = queue
        content = b""
        try:
            while True:
                self._post.say(peer, AskRelease(ticket=ticket, offset=len(content)))
                async with asyncio.timeout(timeout_s):
                    part = await queue.get()
                if part.offset != len(content):
                    continue
                more = base64.b64decode(part.content)
                content += more
                if len(content) > MOST_RELEASE_BYTES:
                    raise ValueError
                if len(content) >= part.total or not more:
                    return content
        except (TimeoutError, ValueError):
            name = self._situation().names[peer]
            raise DeadlineError(f"{name} did not send a release in time") from None
        finally:
            self._parts.pop((peer, ticket), None)

    # --- from peers ---------------------------------------------------------------------------------

    def _asked_for_release(self, sender: int, ask: AskRelease) -> None:
        """A peer wants a release once more that it had; all parties had it."""
        release, receipt = self._ledger.release(ask.ticket), self._ledger.receipt(ask.ticket)
        if release is None or receipt is None:
            return
        content = b'{"release":' + release + b',"receipt":' + receipt + b"}"
        part = base64.b64encode(content[ask.offset : ask.offset + PART_BYTES]).decode()
        self._post.say(
            sender, ReleasePart(ticket=ask.ticket, offset=ask.offset, total=len(content), content=part)
        )

    def _part(self, sender: int, part: ReleasePart) -> None:
        queue = self._parts.get((sender, part.ticket))
        if queue is not None and not queue.full():
            queue.put_nowait(part)

    def _asked(self, sender: int, ask: AskDebits) -> None:
        """A peer wants to know which of its commitments this party has seen."""
        name = self._situation().names[sender]
        rows = [row for row in self._ledger.sessions(*SPENT) if row.ticket > ask.after]
        rows.sort(key=lambda row: row.ticket)
        page = []
        for row in rows:
            debit = self._debit(row, name)
            if debit is not None:
                page.append(debit)
            if len(page) > MOST_DEBITS:
                break
        told = tuple(page[:MOST_DEBITS])
        tickets = self._told.get(sender, []) if ask.after else []
        self._told[sender] = [*tickets, *(debit.ticket for debit in told)]
        self._post.say(sender, Debits(after=ask.after, debits=told, more=len(page) > MOST_DEBITS))

    def _debit(self, row: SessionRow, name: str) -> Debit | None:
        """Return a peer's commitment to a session, None if this party does not have it."""
        commit = self._ledger.vouched(row.ticket).get(name)
        if commit is None or row.facts is None:
            return None
        return Debit(
            ticket=row.ticket,
            commit=commit.hex(),
            plan=json.loads(row.facts)["plan"],
            session_id=row.session_id,
            released=self._ledger.receipt(row.ticket) is not None,
        )

    def _page(self, sender: int, page: Debits) -> None:
        if sender in self._pages and not self._pages[sender].full():
            self._pages[sender].put_nowait(page)

    def _recovered(self, sender: int, recovered: Recovered) -> None:
        """A peer's ledger goes on from another head than the one this party has seen."""
        name = self._situation().names[sender]
        told = self._told.pop(sender, None)
        self._post.check_sender(sender, told is not None and recovered.tickets == _digest(told))
        with self._post.transaction() as tx:
            tx.rewitness(name, Head(recovered.entries, bytes.fromhex(recovered.hash)))
        self._journal("peer.recovered", peer=name)


def _digest(tickets: list[str]) -> str:
    return sha256("\n".join(tickets).encode()).hexdigest()
