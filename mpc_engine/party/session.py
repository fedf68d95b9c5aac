"""One session at one party: agree, reserve, compute, commit, publish.

The order is the protocol's: everything up to the last opening of the small-cell test, then the commit
point, then the suppression pattern, then the values. Whatever fails, every peer is told before this
party raises, and nothing is released unless all parties committed.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mpc_engine import __version__
from mpc_engine.dp import Rule, publication_probability
from mpc_engine.errors import (
    DataError,
    DocumentError,
    EngineError,
    IntegrityError,
    MismatchError,
    PolicyError,
    ProtocolOrderError,
    PublicationError,
    StoppedError,
)
from mpc_engine.party.proposal import Proposal
from mpc_engine.release.execute import Computed, Execution, Progress
from mpc_engine.release.plan import Plan
from mpc_engine.release.table import Release
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, MessageKey, Section
from mpc_engine.sharing.keys import SessionKeys, confirmation, contribute, derive, groups_of
from mpc_engine.transport.control import (
    HASH_BYTES,
    MAX_CONTROL_BYTES,
    NONCE_BYTES,
    SESSION_ID_BYTES,
    Agree,
    Commit,
    KeyContribution,
    Pattern,
    Reserve,
)

AGREE, RESERVE, COMMIT, PATTERN = range(4)
"""Control rounds."""

CommitPoint = Callable[[Plan, Computed], Awaitable[None]]
"""Called between the last computation and COMMIT; must make durable what is to be opened."""

Announce = Callable[[str], None]
"""Told the name of each phase as it begins."""


@dataclass(frozen=True)
class Policy:
    """What one party accepts, whatever a query asks.

    ε as a plain decimal, k, the rules and their δ, the greatest chance that a group of nobody is shown, and
    the presets (None: all).
    """

    greatest_epsilon: str
    least_threshold: int
    rules: tuple[Rule, ...] = (Rule.NOISY, Rule.STRICT)
    greatest_delta: Fraction = Fraction(1, 10**5)
    greatest_chance_for_nobody: Fraction = Fraction(1)
    presets: tuple[str, ...] | None = None


async def _commit_nothing(plan: Plan, computed: Computed) -> None:
    """Commit without a ledger: there is nothing to make durable."""


class Session:
    """One party's part in one release.

    Args:
        me: this party's number, 1..m.
        proposal: the query, codebook and roster as this party holds them.
        policy: what this party accepts.
        link: its connections.
        snapshot_id: the registered data's id at a silo, "" at a helper.
        sums: a silo's sums, for each line of the plan int64 (rows, cells); None at a helper.
        agree_timeout_s: longest wait for the first message of a peer, who may still be connecting.
        round_timeout_s: longest wait for a message of one round.
        commit_point: see `CommitPoint`.
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
        *,
        agree_timeout_s: float = 60.0,
        round_timeout_s: float = 60.0,
        commit_point: CommitPoint = _commit_nothing,
        progress: Progress | None = None,
        announce: Announce = lambda phase: None,
    ) -> None:
        self.me, self.proposal, self.policy, self.link = me, proposal, policy, link
        self.snapshot_id, self.sums = snapshot_id, sums
        self.commit_point, self.progress, self.announce = commit_point, progress, announce
        self.agree_timeout_s, self.round_timeout_s = agree_timeout_s, round_timeout_s
        self.meter = Meter()
        self._committed = False

    @property
    def _computes(self) -> bool:
        return self.me <= self.proposal.computing

    async def run(self) -> Release:
        """Take part in the session and return the release. Raises EngineError; peers are told first."""
        try:
            return await self._run()
        except EngineError as error:
            # What concerns this party's own files and records stays here; peers learn that it stopped.
            private = isinstance(error, DataError | DocumentError)
            told = f"{self._name(self.me)}: {'see its own message' if private else error}"
            await self.link.abort(error.reason, told)
            if self._committed:
                raise PublicationError(str(error)) from error
            raise
        except asyncio.CancelledError as stopped:
            await self.link.abort(StoppedError.reason, f"{self._name(self.me)} was stopped")
            if self._committed:
                raise PublicationError("stopped after the parties had committed") from stopped
            raise
        except Exception as error:
            # The text of an unforeseen failure may quote data, so only its kind leaves this machine.
            what = f"failed: {type(error).__name__}"
            await self.link.abort("INTERNAL", f"{self._name(self.me)} {what}")
            if self._committed:
                raise PublicationError(f"this party {what}") from error
            raise

    async def _run(self) -> Release:
        self.announce("agree")
        contributions = contribute(self.me, self.proposal.computing, len(self.proposal.members))
        agrees, received = await self._agree(contributions)
        self.announce("reserve")
        session_id, keys, agrees, plan = await self._reserve(agrees, contributions, received)
        self.announce("compute")
        execution = Execution(plan, self.me, keys, self.link, self.sums, self.progress)
        self.meter = execution.meter
        computed = await execution.compute()
        self.announce("commit")
        await self.commit_point(plan, computed)
        self._committed = True
        openings = await self._commit(computed, plan)
        self.announce("open")
        shown = await execution.publish_pattern(computed)
        bits = np.packbits(np.concatenate(shown)).tobytes()
        pattern = sha256(b"mpc-engine/pattern/1\0" + bits).digest()
        await self._control(PATTERN, Pattern(pattern).encode())
        for peer, data in (await self._receive(PATTERN)).items():
            if not hmac.compare_digest(Pattern.decode(data).hash, pattern):
                raise IntegrityError(
                    f"{self._name(peer)} opened another suppression pattern than {self._name(self.me)}"
                )
        published = await execution.publish_values(computed, shown)
        # The goodbye says that this party found nothing wrong; whoever did says so instead.
        await self.link.finish()
        session = {
            "session_id": session_id.hex(),
            "openings_sha256": openings.hex(),
            "pattern_sha256": pattern.hex(),
            "engine": __version__,
            **{
                f"snapshot:{self._name(number)}": agree.snapshot_id
                for number, agree in sorted(agrees.items())
                if agree.snapshot_id
            },
        }
        return Release(plan, self.proposal.query_fields, published, session)

    # --- control rounds -----------------------------------------------------------------------------

    def _name(self, number: int) -> str:
        return self.proposal.members[number - 1].name

    async def _control(self, step: int, content: bytes) -> None:
        for peer in self.link.peers:
            await self.link.send(peer, MessageKey(0, Section.CONTROL, step), [content])

    async def _receive(self, step: int, timeout_s: float | None = None) -> dict[int, bytes]:
        key = MessageKey(0, Section.CONTROL, step)
        return {
            peer: await self.link.receive_control(peer, key, MAX_CONTROL_BYTES, timeout_s)
            for peer in self.link.peers
        }

    async def _agree(
        self, contributions: Mapping[tuple[int, ...], bytes]
    ) -> tuple[dict[int, Agree], dict[int, Agree]]:
        """Exchange what each party holds; return the public part of each, and what peers sent to this one."""
        mine = await self._send_agree(contributions)
        messages = await self._receive(AGREE, self.agree_timeout_s)
        received = {peer: Agree.decode(data) for peer, data in messages.items()}
        public = {peer: replace(agree, contributions=()) for peer, agree in received.items()}
        public[self.me] = mine
        for peer, agree in sorted(public.items()):
            self._compare(peer, agree)
        self._check_policy()
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
        )
        for peer in self.link.peers:
            parts = tuple(
                KeyContribution(members, value) for members, value in contributions.items() if peer in members
            )
            message = replace(mine, contributions=parts).encode()
            await self.link.send(peer, MessageKey(0, Section.CONTROL, AGREE), [message])
        return mine

    def _check_policy(self) -> None:
        """Check the query's rule against this party's own policy."""
        name, rule, delta = self._name(self.me), self.proposal.rule, self.proposal.delta
        preset = str(self.proposal.query_fields.get("preset"))
        if self.policy.presets is not None and preset not in self.policy.presets:
            raise PolicyError(
                f"the query is a {preset}, but {name} accepts only {', '.join(self.policy.presets)}. "
                "No count was shared"
            )
        if rule not in self.policy.rules:
            accepted = ", ".join(each.value for each in self.policy.rules)
            raise PolicyError(
                f"the query asks for rule {rule.value}, but {name} accepts only {accepted}. "
                "No count was shared"
            )
        if delta is not None and delta > self.policy.greatest_delta:
            raise PolicyError(
                f"the query asks for δ = {float(delta):g}, but {name} accepts at most "
                f"δ = {float(self.policy.greatest_delta):g}. No count was shared"
            )

    def _compare(self, peer: int, agree: Agree) -> None:
        """Check a peer's documents against this party's, and the query against the peer's policy."""
        name = self._name(peer)
        if agree.engine_version != __version__:
            raise MismatchError(
                f"the field `engine` differs: {name} runs version {agree.engine_version}, "
                f"{self._name(self.me)} runs {__version__}"
            )
        for field, digest in self.proposal.digests.items():
            theirs = agree.digests.get(field, "")
            if theirs != digest:
                raise MismatchError(
                    f"the field `{field}` differs: {name} has {theirs[:16] or 'none'}…, "
                    f"{self._name(self.me)} has {digest[:16]}…. No count was shared"
                )
        if set(agree.digests) != set(self.proposal.digests):
            raise MismatchError(f"{name} compares other fields than {self._name(self.me)}")
        if self.proposal.epsilon > Fraction(agree.greatest_epsilon):
            raise PolicyError(
                f"the query asks for ε = {self.proposal.epsilon_text}, but {name} accepts at most "
                f"ε = {agree.greatest_epsilon} in one release. No count was shared"
            )

    async def _reserve(
        self,
        agrees: dict[int, Agree],
        contributions: Mapping[tuple[int, ...], bytes],
        received: Mapping[int, Agree],
    ) -> tuple[bytes, SessionKeys, dict[int, Agree], Plan]:
        """Fix the plan and the session id, derive the keys and confirm both with every peer."""
        everyone = range(1, len(self.proposal.members) + 1)
        relays: dict[int, Reserve] = {}
        if not self._computes:
            # An input-only silo learns of its like from the computing parties, which must all say the same.
            relays = {peer: Reserve.decode(data) for peer, data in (await self._receive(RESERVE)).items()}
            missing = [number for number in everyone if number not in agrees]
            for peer, reserve in relays.items():
                if reserve.relayed != next(iter(relays.values())).relayed or len(missing) != len(
                    reserve.relayed
                ):
                    raise ProtocolOrderError(f"{self._name(peer)} relays other parties than its peers do")
            for number, data in zip(missing, next(iter(relays.values())).relayed, strict=True):
                agrees[number] = Agree.decode(data)
                self._compare(number, agrees[number])
        plan = self._plan(agrees)
        transcript = b"".join(sha256(agrees[number].encode()).digest() for number in everyone)
        named = b"mpc-engine/session/1\0" + transcript + bytes.fromhex(plan.digest)
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
            relayed: tuple[bytes, ...] = ()
            if peer > self.proposal.computing:
                others = everyone[self.proposal.computing :]
                relayed = tuple(agrees[number].encode() for number in others if number != peer)
            proof = confirmation(self.me, peer, confirmation_keys)
            await self.link.send(
                peer,
                MessageKey(0, Section.CONTROL, RESERVE),
                [Reserve(session_id, proof, relayed).encode()],
            )
        reserves = relays or {
            peer: Reserve.decode(data) for peer, data in (await self._receive(RESERVE)).items()
        }
        for peer, reserve in reserves.items():
            if not hmac.compare_digest(reserve.session_id, session_id):
                raise IntegrityError(f"{self._name(peer)} and {self._name(self.me)} see different sessions")
            expected = confirmation(peer, self.me, confirmation_keys)
            if not hmac.compare_digest(reserve.confirmation, expected):
                raise IntegrityError(f"{self._name(peer)} and {self._name(self.me)} derived different keys")
        self.link.bind_session(session_id)
        return session_id, SessionKeys(self.me, keys), agrees, plan

    def _plan(self, agrees: Mapping[int, Agree]) -> Plan:
        """Return the plan with the largest k that the query or any party asks for."""
        strictest = max(agrees, key=lambda number: agrees[number].least_threshold)
        threshold = max(self.proposal.threshold, agrees[strictest].least_threshold)
        try:
            plan = self.proposal.plan(threshold)
        except DocumentError as error:
            raise PolicyError(
                f"{self._name(strictest)} accepts no k below {threshold}, and with that {error}. "
                "No count was shared"
            ) from None
        most = self.policy.greatest_chance_for_nobody
        for index, allotment in enumerate(plan.guarantee.allotments):
            if allotment.part.guard and publication_probability(plan.guarantee, 0, guard=index) > most:
                raise PolicyError(
                    f"{allotment.part.name} gets so little of ε that a group of nobody would be shown with "
                    f"a chance above {float(most):g}, the greatest that {self._name(self.me)} accepts; give "
                    "it a larger weight, or ask for a larger k. No count was shared"
                )
        return plan

    async def _commit(self, computed: Computed, plan: Plan) -> bytes:
        """Tell every peer that this party committed, wait for all, and compare what was opened so far."""
        mine = computed.openings_hash if self._computes else bytes(HASH_BYTES)
        await self._control(COMMIT, Commit(mine).encode())
        # An input-only silo has nothing to do while the others compute, and waits as long as they may.
        rounds = 1 if self._computes else 1 + plan.rounds * len(plan.blocks)
        received = await self._receive(COMMIT, rounds * self.round_timeout_s)
        hashes = {peer: Commit.decode(data).openings_hash for peer, data in received.items()}
        reference = mine if self._computes else hashes[1]
        for peer, value in hashes.items():
            if peer <= self.proposal.computing and not hmac.compare_digest(value, reference):
                raise IntegrityError(f"{self._name(peer)} saw other masked coins than its peers")
        return reference
