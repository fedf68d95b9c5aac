"""One session at one party, up to its commit: agree, reserve, compute, commit.

The order is the protocol's: everything up to the last opening of the small-cell test, then the commit. What
follows it is in :mod:`mpc_engine.party.publish`. Whatever fails, every peer is told before this party
raises, and nothing that depends on records has been opened before the commit.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine import __version__
from mpc_engine.errors import (
    MISMATCHES,
    DataError,
    DocumentError,
    EngineError,
    EngineMismatchError,
    IntegrityError,
    LocalComputeError,
    MismatchError,
    ProtocolOrderError,
    PublicationError,
    StaleSessionError,
    StoppedError,
    UnknownCertificateError,
)
from mpc_engine.party.book import Book, Committed, Credentials, Unrecorded
from mpc_engine.party.judgement import agreed_plan, check_epsilon, check_plan, check_terms
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.publish import Finished, publish, receive_commits
from mpc_engine.party.witnessing import Witnessing
from mpc_engine.release.blocks import Progress
from mpc_engine.release.execute import Computed, Execution
from mpc_engine.release.plan import Plan
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, MessageKey, Section
from mpc_engine.sharing.keys import Group, SessionKeys, confirmation, contribute, derive, groups_of
from mpc_engine.transport.control import (
    MAX_CONTROL_BYTES,
    NONCE_BYTES,
    SESSION_ID_BYTES,
    Agree,
    Commit,
    KeyContribution,
    Reserve,
)

AGREE, RESERVE = 0, 1
"""Control rounds; those after the commit are in `party.publish`."""

Announce = Callable[[str], None]
"""Told the name of each phase as it begins."""
Confirm = Callable[[int], Coroutine[None, None, None]]
"""Waits until a peer has confirmed plan, session, keys and ledger; raises EngineError if one differs."""
CheckAgreed = Callable[[Mapping[int, Agree], Plan], None]
"""Given what all parties declared, and the plan; raises EngineError to end it before anything is shared."""


class Session:
    """One party's part in one release.

    Args:
        me: this party's number, 1..m.
        proposal: the query, codebook and roster as this party holds them.
        policy: what this party accepts.
        link: its connections.
        snapshot_id: the registered data's id at a silo, "" at a helper.
        sums: a silo's sums, for each line of the plan int64 (rows, cells); None at a helper.
        credentials: what it declares of itself, and whose signatures it trusts.
        book: where it is written down.
        ticket: of the attempt that a service runs; empty without one.
        check_agreed: see `CheckAgreed`.
        agree_timeout_s: longest wait for the first message of a peer, who may still be connecting.
        round_timeout_s: longest wait for a message of one round.
        progress, announce: for showing progress.
    """

    def __init__(
        self,
        me: int,
        proposal: Proposal,
        policy: Policy,
        link: Link,
        snapshot_id: str,
        sums: Sequence[NDArray[np.int64]] | None,
        credentials: Credentials,
        *,
        book: Book | None = None,
        ticket: bytes = b"",
        check_agreed: CheckAgreed = lambda agrees, plan: None,
        agree_timeout_s: float = 60.0,
        round_timeout_s: float = 60.0,
        progress: Progress | None = None,
        announce: Announce = lambda phase: None,
    ) -> None:
        self.me, self.proposal, self.policy, self.link = me, proposal, policy, link
        self.snapshot_id, self.sums, self.credentials = snapshot_id, sums, credentials
        self.book: Book = Unrecorded() if book is None else book
        self.ticket, self.check_agreed = ticket, check_agreed
        self.progress, self.announce = progress, announce
        self.agree_timeout_s, self.round_timeout_s = agree_timeout_s, round_timeout_s
        self.meter = Meter()
        self.committed: Committed | None = None
        self._commits: Mapping[int, Commit] | None = None
        names = {number: member.name for number, member in enumerate(proposal.members, start=1)}
        self.witnessing = Witnessing(link, self.book, me, names)

    @property
    def _computes(self) -> bool:
        return self.me <= self.proposal.computing

    async def run(self) -> Finished:
        """Commit and publish over the one link, and return release and receipt.

        Raises EngineError; peers are told first. After the commit it is a PublicationError.
        """
        try:
            await self.compute()
            finished = await self.publish()
            # The goodbye says that this party found nothing wrong; whoever did says so instead.
            await self.link.finish()
            return finished
        except (Exception, asyncio.CancelledError) as error:
            await self.tell(error)
            if self.committed is None or isinstance(error, PublicationError):
                raise
            if isinstance(error, EngineError):
                raise PublicationError(str(error)) from error
            if isinstance(error, asyncio.CancelledError):
                raise PublicationError("stopped after the parties had committed") from error
            raise PublicationError(f"this party failed: {type(error).__name__}") from error

    async def tell(self, error: BaseException) -> None:
        """Tell the peers that this party ends the session because of an error, without quoting data."""
        name = self._name(self.me)
        if isinstance(error, asyncio.CancelledError):
            await self.link.abort(StoppedError.reason, f"{name} was stopped")
        elif isinstance(error, DataError | DocumentError):
            # What concerns this party's own files and records stays here; peers learn that it stopped.
            await self.link.abort(LocalComputeError.reason, f"{name} cannot count: see its own message")
        elif isinstance(error, EngineError):
            await self.link.abort(error.reason, f"{name}: {error}")
        else:
            # The text of an unforeseen failure may quote data, so only its kind leaves this machine.
            await self.link.abort("INTERNAL", f"{name} failed: {type(error).__name__}")

    async def publish(self) -> Finished:
        """Publish what was committed, over the same link."""
        if self.committed is None:
            raise EngineError("only what is committed can be published")
        return await publish(
            self.committed,
            self.link,
            self.credentials,
            self.book,
            commits=self._commits,
            progress=self.progress,
            meter=self.meter,
            announce=self.announce,
        )

    async def compute(self) -> Committed:
        """Agree, compute and commit. Raises EngineError; nothing is spent then."""
        self.announce("agree")
        contributions = contribute(self.me, self.proposal.computing, len(self.proposal.members))
        agrees, received = await self._agree(contributions)
        self.announce("reserve")
        session_id, keys, agrees, plan, confirm = await self._reserve(agrees, contributions, received)
        self.book.computing(session_id)
        self.announce("compute")
        computed = await self._compute(plan, keys, confirm)
        self.announce("commit")
        fields = self.proposal.query_fields
        draft = Committed(plan, fields, self.me, session_id, agrees, computed)
        if not self._computes:
            # It pays only when all have computed; nothing is opened before it has.
            timeout_s = (1 + plan.rounds * len(plan.blocks)) * self.round_timeout_s
            self._commits = await receive_commits(draft, self.link, self.credentials, self.book, timeout_s)
        head = self.book.commit(draft)
        self.committed = replace(draft, head=head)
        return self.committed

    async def _compute(self, plan: Plan, keys: SessionKeys, confirm: Confirm) -> Computed:
        """Compute while the peers' RESERVE messages are under way; no count is shared before all are here.

        Noise needs no records, so its first round need not wait. What a RESERVE says is checked as it comes,
        and beats what follows from it: a peer in another session also sends noise of another session.
        """
        admissions: list[asyncio.Task[None]] = []

        async def admitted() -> None:
            for admission in admissions:
                await asyncio.shield(admission)

        # Before any task, for it refuses counts that are not the plan's.
        execution = Execution(
            plan, self.me, keys, self.link, self.sums, self.progress, self.meter, admitted=admitted
        )
        admissions += [asyncio.create_task(confirm(peer)) for peer in self.link.peers]
        computing = asyncio.create_task(execution.compute())
        tasks: tuple[asyncio.Task[Any], ...] = (*admissions, computing)
        ended: list[asyncio.Task[Any]] = []
        for task in tasks:
            task.add_done_callback(ended.append)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in sorted(ended, key=lambda each: each is computing):
                task.result()
            return computing.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- control rounds -----------------------------------------------------------------------------

    def _name(self, number: int) -> str:
        return self.proposal.members[number - 1].name

    async def _receive(self, peer: int, step: int, timeout_s: float | None = None) -> bytes:
        key = MessageKey(0, Section.CONTROL, step)
        return await self.link.receive_control(peer, key, MAX_CONTROL_BYTES, timeout_s, unbound=True)

    async def _agree(
        self, contributions: Mapping[tuple[int, ...], bytes]
    ) -> tuple[dict[int, Agree], dict[int, Agree]]:
        """Exchange what each party holds; return the public part of each, and what peers sent to this one."""
        mine = await self._send_agree(contributions)
        messages = {peer: await self._receive(peer, AGREE, self.agree_timeout_s) for peer in self.link.peers}
        received = {peer: Agree.decode(data) for peer, data in messages.items()}
        public = {peer: replace(agree, contributions=()) for peer, agree in received.items()}
        public[self.me] = mine
        for peer, agree in sorted(public.items()):
            self._compare(peer, agree)
        proposal = self.proposal
        check_terms(self.policy, self._name(self.me), proposal.query_fields, proposal.rule, proposal.delta)
        return public, received

    async def _send_agree(self, contributions: Mapping[tuple[int, ...], bytes]) -> Agree:
        """Send every peer this party's side, with its contributions to their common keys; return the rest."""
        mine = Agree(
            engine_version=__version__,
            nonce=os.urandom(NONCE_BYTES),
            digests=self.proposal.digests,
            contributions=(),
            least_threshold=self.policy.least_threshold,
            greatest_epsilon=self.policy.greatest_epsilon,
            snapshot_id=self.snapshot_id,
            ticket=self.ticket,
            source_digest=self.credentials.source,
            policy_digest=self.credentials.policy,
            signing_key=self.credentials.signer.public,
            head=self.book.head(),
            witnessed=self.witnessing.begin(),
        )
        for peer in self.link.peers:
            parts = tuple(
                KeyContribution(members, value) for members, value in contributions.items() if peer in members
            )
            message = replace(mine, contributions=parts).encode()
            await self.link.send(peer, MessageKey(0, Section.CONTROL, AGREE), [message])
        return mine

    def _compare(self, peer: int, agree: Agree) -> None:
        """Check a peer's documents against this party's, and the query against the peer's policy."""
        name, mine = self._name(peer), self._name(self.me)
        if agree.engine_version != __version__:
            raise EngineMismatchError(
                f"the field `engine` differs: {name} runs version {agree.engine_version}, "
                f"{mine} runs {__version__}"
            )
        accepted = (self.credentials.source, *self.credentials.engines)
        if agree.source_digest not in accepted:
            raise EngineMismatchError(
                f"the field `engine` differs: {name} runs version {agree.engine_version} from the source "
                f"{agree.source_digest.hex()[:16]}…, {mine} accepts {self.credentials.source.hex()[:16]}…"
                f"{' and others' * bool(self.credentials.engines)}. No count was shared"
            )
        if agree.ticket != self.ticket:
            raise StaleSessionError(f"{name} and {mine} are in different sessions")
        if agree.signing_key not in self.credentials.keys.get(peer, ()):
            raise UnknownCertificateError(
                f"{name} signs with a key that {mine} does not know; add its new card. No count was shared"
            )
        for field, digest in self.proposal.digests.items():
            theirs = agree.digests.get(field, "")
            if theirs != digest:
                raise MISMATCHES.get(field, MismatchError)(
                    f"the field `{field}` differs: {name} has {theirs[:16] or 'none'}…, "
                    f"{mine} has {digest[:16]}…. No count was shared"
                )
        if set(agree.digests) != set(self.proposal.digests):
            raise MismatchError(f"{name} compares other fields than {mine}")
        check_epsilon(agree.greatest_epsilon, name, self.proposal)

    async def _reserve(
        self,
        agrees: dict[int, Agree],
        contributions: Mapping[tuple[int, ...], bytes],
        received: Mapping[int, Agree],
    ) -> tuple[bytes, SessionKeys, dict[int, Agree], Plan, Confirm]:
        """Fix the plan and the session id, derive the keys and tell every peer of both.

        Also returns what waits for a peer to have done the same, and raises if it differs.
        """
        everyone = range(1, len(self.proposal.members) + 1)
        reserves: dict[int, Reserve] = {}
        if not self._computes:
            # An input-only silo learns of its like from the computing parties, which must all say the same.
            reserves = {peer: await self._receive_reserve(peer) for peer in self.link.peers}
            relayed = [reserve.relayed for reserve in reserves.values()]
            missing = [number for number in everyone if number not in agrees]
            for peer, reserve in reserves.items():
                if reserve.relayed != relayed[0] or len(missing) != len(reserve.relayed):
                    raise ProtocolOrderError(f"{self._name(peer)} relays other parties than its peers do")
            for number, data in zip(missing, relayed[0], strict=True):
                agrees[number] = Agree.decode(data)
                self._compare(number, agrees[number])
        plan = self._plan(agrees)
        self.check_agreed(agrees, plan)
        transcript = b"".join(sha256(agrees[number].encode()).digest() for number in everyone)
        named = b"mpc-engine/session/2\0" + transcript + bytes.fromhex(plan.digest)
        session_id = sha256(named).digest()[:SESSION_ID_BYTES]
        keys, confirmation_keys = {}, {}
        for group in groups_of(self.me, self.proposal.computing, len(everyone)):
            parts = {self.me: contributions[group.members]}
            for peer in group.members:
                if peer != self.me:
                    given = {part.members: part.value for part in received[peer].contributions}
                    parts[peer] = given.get(group.members, b"")
            keys[group], confirmation_keys[group] = derive(group, parts, session_id)
        for peer in self.link.peers:
            relays: tuple[bytes, ...] = ()
            if peer > self.proposal.computing:
                others = everyone[self.proposal.computing :]
                relays = tuple(agrees[number].encode() for number in others if number != peer)
            proof = confirmation(self.me, peer, confirmation_keys)
            head, extension = self.witnessing.prove(peer, agrees[peer].witnessed.get(self.me))
            reserve = Reserve(session_id, proof, relays, head, next(extension))
            await self.link.send(peer, MessageKey(0, Section.CONTROL, RESERVE), [reserve.encode()])
            await self.witnessing.send(peer, extension)
        self.link.bind_session(session_id)
        confirm = partial(self._confirm, session_id, confirmation_keys, reserves)
        return session_id, SessionKeys(self.me, keys), agrees, plan, confirm

    async def _confirm(
        self,
        session_id: bytes,
        confirmation_keys: Mapping[Group, bytes],
        reserves: Mapping[int, Reserve],
        peer: int,
    ) -> None:
        """Wait for a peer's RESERVE, unless it came already, and compare it with this party's."""
        reserve = reserves[peer] if peer in reserves else await self._receive_reserve(peer)
        if not hmac.compare_digest(reserve.session_id, session_id):
            raise IntegrityError(f"{self._name(peer)} and {self._name(self.me)} see different sessions")
        expected = confirmation(peer, self.me, confirmation_keys)
        if not hmac.compare_digest(reserve.confirmation, expected):
            raise IntegrityError(f"{self._name(peer)} and {self._name(self.me)} derived different keys")
        await self.witnessing.check(peer, reserve)

    async def _receive_reserve(self, peer: int) -> Reserve:
        return Reserve.decode(await self._receive(peer, RESERVE))

    def _plan(self, agrees: Mapping[int, Agree]) -> Plan:
        """Return the plan with the largest k that the query or any party asks for."""
        plan = agreed_plan(
            self.proposal, {self._name(number): agree.least_threshold for number, agree in agrees.items()}
        )
        check_plan(self.policy, self._name(self.me), plan)
        return plan
