"""Bringing a ledger that was restored from a backup back in line with what its peers have seen.

The restored party asks every peer for the sessions that spent budget, adopts those that its ledger lacks as
spent, and tells the peers so; they then follow its ledger from its new head on. What was released in them it
takes over too, if the receipt bears its own signature among all others. Nothing is refunded, and nobody but
the party itself is trusted in this: its ledger protects its own data.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from mpc_engine.documents import canonical
from mpc_engine.errors import DeadlineError, DocumentError, IntegrityError
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.charge import Charge
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import SessionRow
from mpc_engine.party.encoding import read_result
from mpc_engine.party.journal import Journal
from mpc_engine.party.lines import (
    PART_BYTES,
    AskDebits,
    AskRelease,
    Debit,
    Debits,
    Recovered,
    ReleasePart,
)
from mpc_engine.party.post import Post
from mpc_engine.party.receipt import check_receipt
from mpc_engine.party.situation import Situation
from mpc_engine.release.table import release_digest

SPENT = ("COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED", "LOST", "ADOPTED")
_PAGE = 100


class Recovery:
    """Both sides of a recovery, at one party."""

    def __init__(
        self, ledger: Ledger, post: Post, situation: Callable[[], Situation], journal: Journal
    ) -> None:
        self._ledger, self._post, self._situation, self._journal = ledger, post, situation, journal
        self._pages: dict[int, asyncio.Queue[Debits]] = {}
        self._parts: dict[int, asyncio.Queue[ReleasePart]] = {}
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

    async def recover(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """Adopt what the peers witnessed; return what was adopted, who answered and who did not."""
        here = self._situation()
        adopted: list[dict[str, Any]] = []
        answered, missing = [], []
        for peer in here.peers:
            try:
                debits = await self._fetch(peer, timeout_s)
            except DeadlineError:
                missing.append(here.names[peer])
                continue
            adopted += self._adopt(peer, debits)
            await self._restore(peer, [debit.ticket for debit in debits if debit.released], timeout_s)
            answered.append(peer)
        head = self._ledger.head()
        for peer in answered:
            self._post.say(peer, Recovered(entries=head.seq, hash=head.hash.hex()))
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
            if row is not None and row.state in SPENT:
                continue
            limits = here.limits(debit.analyst, debit.analyst_name, debit.project)
            with self._post.transaction() as tx:
                tx.adopt(
                    debit.ticket,
                    request=debit.request,
                    question=debit.question,
                    charge=Charge(debit.micro_epsilon, int(debit.delta)),
                    scopes=[limit.scope for limit in limits],
                    peer=here.names[peer],
                    analyst_name=debit.analyst_name,
                    project=debit.project,
                )
            adopted.append(
                {
                    "request": debit.request,
                    "analyst": debit.analyst_name,
                    "micro_epsilon": debit.micro_epsilon,
                    "peer": here.names[peer],
                }
            )
        return adopted

    async def _restore(self, peer: int, tickets: list[str], timeout_s: float) -> None:
        """Take over what was released in adopted sessions; what cannot be verified is left out."""
        for ticket in tickets:
            row = self._ledger.session(ticket)
            if row is None or row.state != "ADOPTED" or self._ledger.receipt(ticket) is not None:
                continue
            try:
                release, receipt = read_result(await self._fetch_release(peer, ticket, timeout_s))
                if receipt is None or not self._verified(ticket, release, receipt):
                    raise IntegrityError("a release does not fit its receipt")
                content = json.dumps(release, ensure_ascii=False).encode()
                with self._post.transaction() as tx:
                    tx.restore(ticket, content, release_digest(release), canonical(receipt))
            except (DeadlineError, IntegrityError, DocumentError) as error:
                self._journal("ledger.release_not_restored", ticket=ticket, reason=error.reason)

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
        self._parts[peer] = queue
        content = b""
        try:
            while True:
                self._post.say(peer, AskRelease(ticket=ticket, offset=len(content)))
                async with asyncio.timeout(timeout_s):
                    part = await queue.get()
                if part.ticket != ticket or part.offset != len(content):
                    continue
                more = base64.b64decode(part.content)
                content += more
                if len(content) >= part.total or not more:
                    return content
        except (TimeoutError, ValueError):
            name = self._situation().names[peer]
            raise DeadlineError(f"{name} did not send a release in time") from None
        finally:
            del self._parts[peer]

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
        if sender in self._parts and not self._parts[sender].full():
            self._parts[sender].put_nowait(part)

    def _asked(self, sender: int, ask: AskDebits) -> None:
        """A peer wants to know which debits this party has seen; they are those of all."""
        rows = sorted(
            (row for row in self._ledger.sessions(*SPENT) if row.ticket > ask.after),
            key=lambda row: row.ticket,
        )
        page = tuple(self._debit(row) for row in rows[:_PAGE])
        self._post.say(sender, Debits(after=ask.after, debits=page, more=len(rows) > _PAGE))

    def _debit(self, row: SessionRow) -> Debit:
        request = self._ledger.request(row.request)
        return Debit(
            ticket=row.ticket,
            request=row.request,
            question=row.question,
            micro_epsilon=row.charge.micro_epsilon,
            delta=str(row.charge.delta),
            analyst_name=row.analyst_name,
            analyst="" if request is None else request.analyst,
            project=row.project,
            released=self._ledger.receipt(row.ticket) is not None,
        )

    def _page(self, sender: int, page: Debits) -> None:
        if sender in self._pages and not self._pages[sender].full():
            self._pages[sender].put_nowait(page)

    def _recovered(self, sender: int, recovered: Recovered) -> None:
        """A peer's ledger goes on from another head than the one this party has seen."""
        name = self._situation().names[sender]
        with self._post.transaction() as tx:
            tx.rewitness(name, Head(recovered.entries, bytes.fromhex(recovered.hash)))
        self._journal("peer.recovered", peer=name)
