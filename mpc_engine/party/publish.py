"""Publishing a committed session: commitments, the suppression pattern, the values, and the receipt.

Everything sent here follows from what the party stored when it committed, signatures included. Publishing
may therefore be run any number of times, over one link after another and after a restart, until all have
the release: the same bytes are sent each time, and no noise is ever drawn again. Nothing is opened before the
commitments of all parties are there: t + 1 shares would open a value, so opening on fewer commitments would
publish the data of a silo that has not debited its budget.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from mpc_engine.errors import EquivocationError, IntegrityError, ProtocolOrderError
from mpc_engine.identity.signing import verify
from mpc_engine.party.book import Book, Committed, Credentials
from mpc_engine.party.receipt import RECEIPT_PURPOSE, complete, receipt_content, receipt_fields
from mpc_engine.release.blocks import Progress
from mpc_engine.release.publication import Publication
from mpc_engine.release.table import Release, release_digest
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, MessageKey, Section
from mpc_engine.transport.control import HASH_BYTES, MAX_CONTROL_BYTES, Commit, Pattern, Signatures

COMMIT, PATTERN, SIGN, SIGNED = 2, 3, 4, 5
"""Control rounds; those before the commit are in `party.session`."""

COMMIT_PURPOSE = "commit"


@dataclass(frozen=True)
class Finished:
    """What a session published: the release, its digest, and the receipt that all parties signed."""

    release: Release
    digest: str
    receipt: Mapping[str, Any]


async def publish(
    committed: Committed,
    link: Link,
    credentials: Credentials,
    book: Book,
    *,
    commits: Mapping[int, Commit] | None = None,
    progress: Progress | None = None,
    meter: Meter | None = None,
    announce: Callable[[str], None] = lambda phase: None,
) -> Finished:
    """Publish over a link that is bound to the session, and return what all parties hold then.

    `commits` are the commitments of the computing parties, if they have come over this link already. Raises
    EngineError as the link does, and IntegrityError for what cannot come from parties in order. The link is
    left open.
    """
    return await _Publisher(committed, link, credentials, book, announce).run(commits, progress, meter)


async def receive_commits(
    committed: Committed, link: Link, credentials: Credentials, book: Book, timeout_s: float | None = None
) -> dict[int, Commit]:
    """Wait for the commitments of all peers, check and keep them, and return them by number.

    An input-only silo does this before its own commit: it has nothing to do while the others compute, and
    must not pay for what they do not finish. `committed` need not have been written down yet.
    """
    return await _Publisher(committed, link, credentials, book, lambda phase: None).receive(timeout_s)


class _Publisher:
    def __init__(
        self,
        committed: Committed,
        link: Link,
        credentials: Credentials,
        book: Book,
        announce: Callable[[str], None],
    ) -> None:
        self.committed, self.link, self.credentials, self.book = committed, link, credentials, book
        self.plan, self.me, self.announce = committed.plan, committed.me, announce
        self.account = book.account()
        # What was begun with a key is signed with it to the end, whatever key has come since.
        self.signer = credentials.signer_for(committed.agrees[committed.me].signing_key)

    @property
    def _computes(self) -> bool:
        return self.me <= self.plan.computing

    async def run(
        self, received: Mapping[int, Commit] | None, progress: Progress | None, meter: Meter | None
    ) -> Finished:
        committed, plan = self.committed, self.plan
        commits = await self._commit(received)
        openings = commits[1].openings_hash
        self.announce("open")
        publication = Publication(plan, self.me, self.link, progress, meter)
        shown = await publication.publish_pattern(committed.computed)
        bits = np.packbits(np.concatenate(shown)).tobytes()
        pattern = sha256(b"mpc-engine/pattern/1\0" + bits).digest()
        self.book.pattern(pattern)
        await self._compare_patterns(pattern, commits)
        published = await publication.publish_values(committed.computed, shown)
        session = {
            "session_id": committed.session_id.hex(),
            "openings_sha256": openings.hex(),
            "pattern_sha256": pattern.hex(),
            "engine": committed.agrees[committed.me].engine_version,
            **{
                f"snapshot:{self._name(number)}": agree.snapshot_id
                for number, agree in sorted(committed.agrees.items())
                if agree.snapshot_id
            },
        }
        release = Release(plan, committed.query, published, session)
        fields = release.as_fields()
        digest = release_digest(fields)
        self.book.opened(fields, digest)
        self.announce("sign")
        unsigned = receipt_fields(committed, commits, pattern, digest)
        receipt = complete(unsigned, await self._signatures(unsigned))
        self.book.signed(receipt)
        return Finished(release, digest, receipt)

    def _name(self, number: int) -> str:
        return self.plan.members[number - 1].name

    def _unconnected(self, peer: int) -> list[int]:
        """Return the parties that a peer has no channel to."""
        if peer <= self.plan.computing:
            return []
        return [number for number in self.plan.input_only if number != peer]

    async def _send(self, peer: int, step: int, content: bytes) -> None:
        await self.link.send(peer, MessageKey(0, Section.CONTROL, step), [content])

    async def _receive(self, step: int, timeout_s: float | None = None) -> dict[int, bytes]:
        key = MessageKey(0, Section.CONTROL, step)
        return {
            peer: await self.link.receive_control(peer, key, MAX_CONTROL_BYTES, timeout_s)
            for peer in self.link.peers
        }

    # --- commitments --------------------------------------------------------------------------------

    async def _commit(self, received: Mapping[int, Commit] | None) -> dict[int, Commit]:
        """Tell every peer that this party committed, and wait until all its peers have."""
        committed = self.committed
        hash_ = committed.computed.openings_hash if self._computes else bytes(HASH_BYTES)
        unsigned = Commit(hash_, self.me, committed.head, bytes(64), self.account)
        content = unsigned.signed_content(committed.session_id, self.plan.digest)
        mine = replace(unsigned, signature=self.signer.sign(COMMIT_PURPOSE, content))
        for peer in self.link.peers:
            await self._send(peer, COMMIT, mine.encode())
        commits = {self.me: mine, **(await self.receive() if received is None else received)}
        reference = commits[1].openings_hash
        for peer in range(1, self.plan.computing + 1):
            if not hmac.compare_digest(commits[peer].openings_hash, reference):
                raise IntegrityError(f"{self._name(peer)} saw other masked coins than its peers")
        return commits

    async def receive(self, timeout_s: float | None = None) -> dict[int, Commit]:
        """Wait for the commitments of all peers."""
        commits = {}
        for peer, data in (await self._receive(COMMIT, timeout_s)).items():
            commits[peer] = self._checked(Commit.decode(data), peer)
            self.book.vouch(peer, commits[peer])
        return commits

    def _checked(self, commit: Commit, party: int) -> Commit:
        """Return a commitment if it is this party's, signed with the key that it agreed with, to the same."""
        content = commit.signed_content(self.committed.session_id, self.plan.digest)
        key = self.committed.agrees[party].signing_key
        if commit.party != party or not verify(key, COMMIT_PURPOSE, content, commit.signature):
            raise IntegrityError(f"the commitment of {self._name(party)} is not signed by it")
        if commit.account != self.account:
            raise EquivocationError(
                f"{self._name(party)} debited something else for this session than {self._name(self.me)}"
            )
        return commit

    # --- the pattern --------------------------------------------------------------------------------

    async def _compare_patterns(self, pattern: bytes, commits: dict[int, Commit]) -> None:
        """Check that all opened the same pattern; learn the commitments of those without a channel to us."""
        for peer in self.link.peers:
            relayed = tuple(commits[number].encode() for number in self._unconnected(peer))
            await self._send(peer, PATTERN, Pattern(pattern, relayed).encode())
        strangers = self._unconnected(self.me)
        for peer, data in (await self._receive(PATTERN)).items():
            message = Pattern.decode(data)
            if not hmac.compare_digest(message.hash, pattern):
                raise IntegrityError(
                    f"{self._name(peer)} opened another suppression pattern than {self._name(self.me)}"
                )
            if len(message.relayed) != len(strangers):
                raise ProtocolOrderError(f"{self._name(peer)} relays other commitments than it should")
            for number, encoded in zip(strangers, message.relayed, strict=True):
                commit = self._checked(Commit.decode(encoded), number)
                if commits.setdefault(number, commit) != commit:
                    raise EquivocationError(f"{self._name(number)} made two commitments in one session")

    # --- the receipt --------------------------------------------------------------------------------

    async def _signatures(self, unsigned: Mapping[str, Any]) -> dict[int, bytes]:
        """Exchange signatures of the receipt; who signs holds the release and found nothing wrong."""
        content = receipt_content(unsigned)
        mine = self.signer.sign(RECEIPT_PURPOSE, content)
        for peer in self.link.peers:
            await self._send(peer, SIGN, Signatures({self.me: mine}).encode())
        signatures = {self.me: mine}
        for peer, data in (await self._receive(SIGN)).items():
            values = Signatures.decode(data).values
            if set(values) != {peer}:
                raise ProtocolOrderError(f"{self._name(peer)} signs for others than itself")
            signatures[peer] = values[peer]
        strangers = self._unconnected(self.me)
        if self._computes:
            for peer in self.plan.input_only:
                others = {number: signatures[number] for number in self._unconnected(peer)}
                await self._send(peer, SIGNED, Signatures(others).encode())
        else:
            for peer, data in (await self._receive(SIGNED)).items():
                values = Signatures.decode(data).values
                if set(values) != set(strangers):
                    raise ProtocolOrderError(f"{self._name(peer)} relays other signatures than it should")
                signatures |= values
        for number, signature in signatures.items():
            if not verify(self.committed.agrees[number].signing_key, RECEIPT_PURPOSE, content, signature):
                raise IntegrityError(f"the receipt is not signed by {self._name(number)}")
        return signatures
