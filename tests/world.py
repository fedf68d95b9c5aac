"""A test world: all parties of a protocol or of a whole session in one process.

Every message can be inspected and corrupted, and all randomness follows from one printed seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from typing import Any
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mpc_engine.dp.accounting import Rule
from mpc_engine.dp.noise_table import generate
from mpc_engine.field.binary import BinaryField, pack, unpack
from mpc_engine.field.mersenne import MersenneField
from mpc_engine.identity.signing import SigningKey
from mpc_engine.ledger.chain import Head
from mpc_engine.party.book import Committed, Credentials, Unrecorded
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.publish import Finished
from mpc_engine.party.session import Session
from mpc_engine.release.execute import Computed
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.plan import Member, Plan
from mpc_engine.release.table import Release
from mpc_engine.runtime.context import Context, Protocol, run
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Section
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.sharing.keys import Group, SessionKeys, contribute, derive, groups_of
from mpc_engine.sharing.shamir import opening_weights
from mpc_engine.sharing.shared import Shared, SharedBits

TABLE = generate(Fraction(1))
"""The noise table at ε = 1, cap 1."""


@contextlib.contextmanager
def seeded(seed: int | None = None) -> Iterator[int]:
    """Let the operating system's randomness follow from a seed, which is printed; TEST_SEED sets it."""
    if seed is None:
        seed = int(os.environ.get("TEST_SEED") or int.from_bytes(os.urandom(6)))
    print(f"TEST_SEED={seed}")
    with mock.patch("os.urandom", np.random.default_rng(seed).bytes):
        yield seed


def session_keys(
    computing: int, parties: int | None = None, session: bytes | None = None
) -> list[SessionKeys]:
    """Return every party's keys of one session, made as in a real one."""
    parties = parties or computing
    session = session or os.urandom(32)
    contributions = {i: contribute(i, computing, parties) for i in range(1, parties + 1)}

    def key(group: Group) -> bytes:
        return derive(group, {i: contributions[i][group.members] for i in group.members}, session)[0]

    return [
        SessionKeys(i, {group: key(group) for group in groups_of(i, computing, parties)})
        for i in range(1, parties + 1)
    ]


class World:
    """Parties 1..`parties` of which 1..`computing` compute; every `run` uses fresh keys unless given."""

    def __init__(
        self, computing: int, parties: int | None = None, seed: int | None = None, **network: Any
    ) -> None:
        self.computing = computing
        self.seed = seed
        self.runs = 0
        self.parties = parties or computing
        self.network_options = network
        self.meters: list[Meter] = []
        self.network: MemoryNetwork

    def run(
        self,
        protocol: Callable[[Context], Protocol[Any]],
        cells: int,
        chunk: int = 0,
        section: Section = Section.PREPARE,
        keys: Sequence[SessionKeys] | None = None,
    ) -> list[Any]:
        """Run `protocol(ctx)` at every party and return the results in order."""
        seed = None if self.seed is None else self.seed + self.runs
        self.runs += 1
        with seeded(seed):
            return self._run(
                protocol, cells, chunk, section, keys or session_keys(self.computing, self.parties)
            )

    def _run(
        self,
        protocol: Callable[[Context], Protocol[Any]],
        cells: int,
        chunk: int,
        section: Section,
        keys: Sequence[SessionKeys],
    ) -> list[Any]:
        self.meters = [Meter() for _ in range(self.parties)]
        contexts = [Context(i + 1, self.computing, keys[i], chunk, cells) for i in range(self.parties)]

        async def everyone() -> list[Any]:
            self.network = MemoryNetwork(self.parties, self.computing, **self.network_options)
            return await asyncio.gather(
                *(
                    run(protocol(ctx), self.network.link(ctx.me), chunk, section, self.meters[ctx.me - 1])
                    for ctx in contexts
                )
            )

        return asyncio.run(everyone())

    def spent(self) -> tuple[int, int]:
        """Return rounds and bytes of the last run: the most rounds of a party, the bytes of all."""
        return max(m.total_rounds for m in self.meters), sum(m.total_bytes for m in self.meters)


def share_vector(
    field: MersenneField, values: np.ndarray, parties: int, rng: np.random.Generator
) -> list[Shared]:
    """Return all parties' shares of a known vector, with polynomials from a seeded generator."""
    t = (parties - 1) // 2
    values = np.asarray(values)
    if values.ndim == 1:
        values = values[None]
    secret = field.vector(values.astype(np.int64))
    coefficients = [rng.integers(0, field.p, values.shape, dtype=np.uint64) for _ in range(t)]
    return [
        Shared(
            field, field.combine([1, *(pow(i, k + 1, field.p) for k in range(t))], [secret, *coefficients])
        )
        for i in range(1, parties + 1)
    ]


def share_bits(
    field: BinaryField, bits: np.ndarray, parties: int, rng: np.random.Generator
) -> list[SharedBits]:
    """Return all parties' shares of known bits, shape (rows, cells), with random polynomials."""
    secret = pack(np.asarray(bits, np.uint8))[None]
    t = (parties - 1) // 2
    drawn = [rng.integers(0, 1 << 64, (field.d, *secret.shape[1:]), dtype=np.uint64) for _ in range(t)]
    shares = []
    for i in range(1, parties + 1):
        powers = [1]
        for _ in drawn:
            powers.append(field.scalars.multiply(powers[-1], i))
        shares.append(SharedBits(field, field.combine(powers, [secret, *drawn])))
    return shares


def reveal(shares: Sequence[Shared]) -> np.ndarray:
    """Return the signed values that all parties' shares stand for, after checking the degree."""
    field, n = shares[0].field, len(shares)
    t = (n - 1) // 2
    weights = opening_weights(field, range(1, n + 1))
    low = opening_weights(field, range(1, t + 2))
    values = field.canonical(field.combine(weights, [s.values for s in shares]))
    again = field.canonical(field.combine(low, [s.values for s in shares[: t + 1]]))
    np.testing.assert_array_equal(values, again, err_msg="the sharing is not of degree t")
    return field.centred(values)


def reveal_additive(field: MersenneField, shares: Sequence[np.ndarray]) -> np.ndarray:
    """Return the canonical sums of additive shares."""
    return field.canonical(field.add(*shares))


def reveal_bits(shares: Sequence[SharedBits], cells: int) -> np.ndarray:
    """Return the bits that all parties' shares stand for, shape (rows, cells)."""
    field: BinaryField = shares[0].field
    n = len(shares)
    t = (n - 1) // 2
    planes = field.combine(opening_weights(field, range(1, n + 1)), [s.planes for s in shares])
    again = field.combine(opening_weights(field, range(1, t + 2)), [s.planes for s in shares[: t + 1]])
    np.testing.assert_array_equal(planes, again, err_msg="the sharing is not of degree t")
    assert not planes[1:].any(), "a value is not a bit"
    return unpack(planes[0], cells)


# --- whole sessions ---------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of one session: every party's release or failure, and everything that was seen."""

    results: list[Finished | BaseException]
    sessions: list[Session]
    network: MemoryNetwork
    plan: Plan | None
    computed: dict[int, Computed]

    @property
    def releases(self) -> list[Release]:
        """The releases of all parties; fails if a party failed."""
        for result in self.results:
            if isinstance(result, BaseException):
                raise result
        return [result.release for result in self.results if isinstance(result, Finished)]

    def noisy_values(self, line: int = 0) -> np.ndarray:
        """Return the noisy values of all cells of a line, suppressed ones included, as parties committed."""
        assert self.plan is not None
        field, blocks = self.plan.lines[line].field, []
        for block in self.plan.blocks:
            if block.line == line:
                shares = [
                    self.computed[i].outputs[block.number].values for i in range(1, self.plan.computing + 1)
                ]
                blocks.append(reveal([Shared(field, share) for share in shares])[0])
        return np.concatenate(blocks)

    def sent_bytes(self, section: Section) -> int:
        """Return the bytes that all parties sent together in a section."""
        return sum(s.meter.sent_bytes.get(section, 0) for s in self.sessions)

    def rounds(self, section: Section) -> int:
        """Return the most rounds that a party had in a section."""
        return max(s.meter.rounds.get(section, 0) for s in self.sessions)


def credentials(parties: int) -> dict[int, Credentials]:
    """Return the credentials of parties that know each other's signing keys and run the same engine.

    The keys are always the same: they enter the session's id, and with it all that a seed is to repeat.
    """
    signers = {
        number: SigningKey(Ed25519PrivateKey.from_private_bytes(sha256(b"party %d" % number).digest()))
        for number in range(1, parties + 1)
    }
    keys = {number: (signer.public,) for number, signer in signers.items()}
    return {number: Credentials(signer, keys, b"s" * 32) for number, signer in signers.items()}


def axis(name: str, size: int) -> Axis:
    """Return an axis with the categories 0, 1, …"""
    return Axis(name, tuple(map(str, range(size))))


def tally(name: str, *sizes: int, weight: int = 1, step: int = 1, signed: bool = False) -> Tally:
    """Return a tally over axes a, b, c, … of these sizes."""
    axes = tuple(axis("abcdefgh"[i], size) for i, size in enumerate(sizes))
    return Tally(name, Grid(axes), weight, step, signed)


def counted(cells: int) -> Groups:
    """Return groups without members: cells, each its own guard."""
    return Groups("cells", Tally("records", Grid((axis("cell", cells),))))


def proposal(
    groups: int | Sequence[Groups],
    silos: Sequence[bool],
    computing: int,
    rule: Rule = Rule.NOISY,
    threshold: int = 5,
    cap: int = 1,
    epsilon: str = "1",
    count_bound: int = 1 << 20,
) -> Proposal:
    """Return a proposal for groups, or a table of so many cells; `silos` tells which party brings counts."""
    return Proposal(
        groups=(counted(groups),) if isinstance(groups, int) else tuple(groups),
        query_fields={},
        epsilon=Fraction(epsilon),
        epsilon_text=epsilon,
        delta=Fraction(1, 10**6) if rule is Rule.STRICT else None,
        rule=rule,
        threshold=threshold,
        cap=cap,
        members=tuple(
            Member(f"party{i}", i <= computing, silo, f"sha256:{i}", count_bound)
            for i, silo in enumerate(silos, start=1)
        ),
        digests={"query": "a1" * 32, "codebook": "c0" * 32},
    )


def release(
    counts: Sequence[Any],
    computing: int = 3,
    seed: int | None = None,
    network: Mapping[str, Any] | None = None,
    differing: Mapping[int, Mapping[str, Any]] | None = None,
    policies: Mapping[int, Policy] | None = None,
    replaced_counts: Mapping[int, Any] | None = None,
    groups: Sequence[Groups] | None = None,
    **terms: Any,
) -> Outcome:
    """Run a whole session.

    Args:
        counts: every party's counts, shape (rows, cells) or (cells,); with ``groups`` a list of them, one
            for each line; None at a helper.
        network: options of the `MemoryNetwork`.
        differing: what a party's proposal holds in place of the others', by party and field.
        policies: of the parties that do not accept everything.
        replaced_counts: what a party brings in place of its counts, as it is.
        groups: what is released, by default a table of as many cells as the counts have.
        terms: of the `proposal`.
    """
    lines = [c if c is None or groups is not None else [c] for c in counts]
    held = [None if c is None else [np.atleast_2d(np.asarray(x, np.int64)) for x in c] for c in lines]
    cells = next(c[0].shape[1] for c in held if c is not None)
    asked = proposal(groups or cells, [c is not None for c in held], computing, **terms)
    parties = len(held)
    net = MemoryNetwork(parties, computing, **{"round_timeout_s": 20.0, **(network or {})})
    outcome = Outcome([], [], net, None, {})

    class Kept(Unrecorded):
        """Keeps what a party commits, secrets and all."""

        def commit(self, committed: Committed) -> Head:
            outcome.plan = committed.plan
            outcome.computed[committed.me] = committed.computed
            return super().commit(committed)

    sides = credentials(parties)

    async def everyone() -> list[Any]:
        outcome.sessions = [
            Session(
                i,
                replace(asked, **(differing or {}).get(i, {})),
                (policies or {}).get(i, Policy("10", 1, rules=tuple(Rule))),
                net.link(i),
                "" if mine is None else "ab",
                (replaced_counts or {}).get(i, mine),
                sides[i],
                book=Kept(),
            )
            for i, mine in enumerate(held, start=1)
        ]
        return await asyncio.gather(*(s.run() for s in outcome.sessions), return_exceptions=True)

    with seeded(seed):
        outcome.results = asyncio.run(everyone())
    return outcome
