"""A test world: all parties of a protocol in one process, with inspectable and corruptible messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc_engine.field.binary import BinaryField, unpack
from mpc_engine.field.mersenne import MersenneField
from mpc_engine.runtime.context import Context, Protocol, run
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Section
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.sharing.keys import Group, SessionKeys, contribute, derive, groups_of
from mpc_engine.sharing.shamir import opening_weights
from mpc_engine.sharing.shared import Shared, SharedBits


def session_keys(computing: int, parties: int | None = None, session: bytes | None = None) -> list[SessionKeys]:
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

    def __init__(self, computing: int, parties: int | None = None, **network: Any) -> None:
        self.computing = computing
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
        keys = keys or session_keys(self.computing, self.parties)
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


def share_vector(field: MersenneField, values: np.ndarray, parties: int, rng: np.random.Generator) -> list[Shared]:
    """Return all parties' shares of a known vector, with polynomials from a seeded generator."""
    t = (parties - 1) // 2
    values = np.asarray(values)
    if values.ndim == 1:
        values = values[None]
    secret = field.vector(values.astype(np.int64))
    coefficients = [rng.integers(0, field.p, values.shape, dtype=np.uint64) for _ in range(t)]
    return [
        Shared(field, field.combine([1, *(pow(i, k + 1, field.p) for k in range(t))], [secret, *coefficients]))
        for i in range(1, parties + 1)
    ]


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
