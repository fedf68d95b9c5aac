"""Witnessing: each party proves to every peer that its ledger only grew since that peer saw it last.

What a party proves is a chain of hashes, and says nothing about the entries. A ledger that was put back to an
older state, or written anew, cannot continue the chain that others have seen. What a peer tells in a
commitment is a claim until the next session, when its chain must lead through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mpc_engine.errors import LedgerRollbackError, ProtocolOrderError
from mpc_engine.ledger.chain import Head, extend
from mpc_engine.party.book import Book
from mpc_engine.runtime.link import Link, MessageKey, Section
from mpc_engine.transport.control import HASH_BYTES, MAX_EXTENSION, Reserve

EXTENSION = 6
"""Control round of what is too long for RESERVE."""
MOST_EXTENSIONS = 256
"""So many messages prove a million entries, far more than any two sessions are apart."""
_LEDGER = "the ledger of"


def rolled_back(reason: str, words: str, party: str) -> bool:
    """Tell whether a session ended because the ledger of ``party`` is older than one that was seen.

    Whoever finds it tells the others so in words, which are those of `Witnessing`: all run the same engine.
    """
    return reason == LedgerRollbackError.reason and f"{_LEDGER} {party} " in words


class Witnessing:
    """One party's side of it in one session. `names` are the parties' names by number."""

    def __init__(self, link: Link, book: Book, me: int, names: Mapping[int, str]) -> None:
        self._link, self._book, self._me, self._names = link, book, me, names
        self._seen: dict[int, list[Head]] = {}
        self._proved: Mapping[int, Head] = {}

    def begin(self) -> Mapping[int, Head]:
        """Return what this party has seen of the others' ledgers, to be told in AGREE.

        What a peer answers to that comes after all that this party has seen of its ledger by now.
        """
        self._proved = self._book.witnessed()
        for peer in self._link.peers:
            proved = [self._proved[peer]] if peer in self._proved else []
            self._seen[peer] = [*proved, *self._book.claims(peer)]
        return self._proved

    def prove(self, peer: int, seen: Head | None) -> tuple[Head, Iterator[bytes]]:
        """Return the head of this party's ledger, and its body hashes since the head that a peer has seen.

        The hashes come in parts of at most `MAX_EXTENSION`, one part at the least. Raises LedgerRollbackError
        if the peer has seen more than there is.
        """
        head = self._book.head()
        bodies: Sequence[bytes] = []
        if seen is not None:
            if seen.seq > head.seq:
                raise LedgerRollbackError(
                    f"{_LEDGER} {self._names[self._me]} has {head.seq} entries; {self._names[peer]} has "
                    f"seen {seen.seq}"
                )
            bodies = self._book.bodies(seen.seq, head.seq)
        starts = range(0, max(len(bodies), 1), MAX_EXTENSION)
        return head, iter([b"".join(bodies[start : start + MAX_EXTENSION]) for start in starts])

    async def send(self, peer: int, parts: Iterator[bytes]) -> None:
        """Send the parts after the first one, which travels in RESERVE."""
        for chunk, part in enumerate(parts, start=1):
            await self._link.send(peer, MessageKey(chunk, Section.CONTROL, EXTENSION), [part])

    async def check(self, peer: int, reserve: Reserve) -> None:
        """Check that a peer's ledger contains all that this party has seen of it, and note its head.

        Raises LedgerRollbackError, ProtocolOrderError.
        """
        name, points = self._names[peer], self._seen[peer]
        if max((point.seq for point in points), default=0) > reserve.head.seq:
            raise LedgerRollbackError(
                f"{_LEDGER} {name} has {reserve.head.seq} entries; {self._names[self._me]} has seen more"
            )
        path = {reserve.head.seq: reserve.head}
        if peer in self._proved:
            path = await self._follow(peer, reserve, self._proved[peer])
        known = self._book.witnessed().get(peer)  # another session may have moved it since
        for point in [*points, *([] if known is None else [known])]:
            if path.get(point.seq, point) != point:
                raise self._contradiction(peer)
        self._book.witness(peer, reserve.head)

    async def _follow(self, peer: int, reserve: Reserve, seen: Head) -> dict[int, Head]:
        """Return the heads of a peer's ledger from the one seen to the present one, by number of entries."""
        more = reserve.head.seq - seen.seq
        if more > MOST_EXTENSIONS * MAX_EXTENSION:
            raise ProtocolOrderError(f"{self._names[peer]} has made {more} entries since it was last seen")
        parts = [reserve.extension]
        for chunk in range(1, -(-more // MAX_EXTENSION)):
            size = min(MAX_EXTENSION, more - chunk * MAX_EXTENSION) * HASH_BYTES
            key = MessageKey(chunk, Section.CONTROL, EXTENSION)
            parts.append(await self._link.receive_control(peer, key, size, unbound=True))
        content, head = b"".join(parts), seen
        path = {seen.seq: seen}
        for start in range(0, len(content), HASH_BYTES):
            head = extend(head, [content[start : start + HASH_BYTES]])
            path[head.seq] = head
        if head != reserve.head:
            raise self._contradiction(peer)
        return path

    def _contradiction(self, peer: int) -> LedgerRollbackError:
        return LedgerRollbackError(
            f"{_LEDGER} {self._names[peer]} does not contain what {self._names[self._me]} has seen of it"
        )
