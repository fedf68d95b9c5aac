"""Every party's nonce is fresh and enters the session's id, and by it every key: a clone repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from mpc_engine.dp.accounting import Rule
from mpc_engine.party.policy import Policy
from mpc_engine.party.session import AGREE, RESERVE, Session
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.sharing.keys import Group, derive, groups, groups_of
from mpc_engine.transport.control import NONCE_BYTES, SESSION_ID_BYTES, Agree, Reserve
from tests.world import credentials, proposal

CELLS = 3


@dataclass
class Heard:
    """What was on the wire of one session, and the keys that its parties made."""

    nonces: dict[int, set[bytes]] = field(default_factory=dict)
    ids: set[bytes] = field(default_factory=set)
    keys: dict[Group, set[tuple[bytes, bytes]]] = field(default_factory=dict)

    @property
    def nonce(self) -> dict[int, bytes]:
        """The nonce of each party, which told everybody the same."""
        assert all(len(told) == 1 for told in self.nonces.values())
        return {party: next(iter(told)) for party, told in self.nonces.items()}

    @property
    def id(self) -> bytes:
        """The session's id, the same for all."""
        (told,) = self.ids
        return told

    @property
    def key(self) -> dict[Group, tuple[bytes, bytes]]:
        """The key and the confirmation key of each group, the same for its members."""
        assert all(len(made) == 1 for made in self.keys.values())
        return {group: next(iter(made)) for group, made in self.keys.items()}


def play(parties: int, computing: int) -> Heard:
    """Run one whole session of silos in memory."""
    heard = Heard()

    def listen(sender: int, receiver: int, key: MessageKey, content: bytearray) -> None:
        if key == MessageKey(0, Section.CONTROL, AGREE):
            heard.nonces.setdefault(sender, set()).add(Agree.decode(bytes(content)).nonce)
        elif key == MessageKey(0, Section.CONTROL, RESERVE):
            heard.ids.add(Reserve.decode(bytes(content)).session_id)

    def derived(group: Group, parts: Mapping[int, bytes], session_id: bytes) -> tuple[bytes, bytes]:
        made = derive(group, parts, session_id)
        heard.keys.setdefault(group, set()).add(made)
        return made

    asked, sides = proposal(CELLS, [True] * parties, computing), credentials(parties)
    policy = Policy("10", 1, rules=tuple(Rule))
    counts = [np.full((1, CELLS), 7, np.int64)]

    async def everyone() -> None:
        net = MemoryNetwork(parties, computing, intercept=listen)
        sessions = [
            Session(i, asked, policy, net.link(i), "ab", counts, sides[i]) for i in range(1, parties + 1)
        ]
        async with asyncio.timeout(60):
            await asyncio.gather(*(session.run() for session in sessions))

    with mock.patch("mpc_engine.party.session.derive", derived):
        asyncio.run(everyone())
    assert set(heard.nonces) == set(range(1, parties + 1))
    assert set(heard.key) == set(groups(computing, parties))
    return heard


def cloned(parties: int, computing: int, nonces: Mapping[int, bytes]) -> Heard:
    """Run a session whose parties draw nothing afresh that enters keys, but these nonces."""

    def repeated(me: int, computing: int, parties: int) -> dict[tuple[int, ...], bytes]:
        members = {group.members for group in groups_of(me, computing, parties)}
        return {each: sha256(repr((me, each)).encode()).digest() for each in members}

    drawn = iter([nonces[party] for party in sorted(nonces)])  # the parties begin in this order

    def urandom(size: int) -> bytes:
        return next(drawn)

    with (
        mock.patch("mpc_engine.party.session.contribute", repeated),
        mock.patch("mpc_engine.party.session.os", SimpleNamespace(urandom=urandom)),
    ):
        heard = play(parties, computing)
    assert heard.nonce == nonces
    return heard


@pytest.mark.parametrize(("parties", "computing"), [(3, 3), (5, 3)])
def test_no_nonce_comes_twice(parties: int, computing: int) -> None:
    one, two = play(parties, computing), play(parties, computing)
    drawn = [nonce for heard in (one, two) for nonce in heard.nonce.values()]
    assert len(set(drawn)) == 2 * parties
    assert {len(nonce) for nonce in drawn} == {NONCE_BYTES}
    assert one.id != two.id and len(one.id) == SESSION_ID_BYTES
    assert not set(one.key.values()) & set(two.key.values())


@pytest.mark.parametrize(("parties", "computing"), [(3, 3), (5, 3)])
def test_every_partys_nonce_alone_makes_another_session_with_other_keys(parties: int, computing: int) -> None:
    """So that of a party and its clone, even with the same entropy, each is in a session of its own."""
    nonces = {party: bytes([party]) * NONCE_BYTES for party in range(1, parties + 1)}
    heard = [cloned(parties, computing, nonces)]
    again = cloned(parties, computing, nonces)
    assert (again.id, again.key) == (heard[0].id, heard[0].key), "something else than the nonces is fresh"
    for party in nonces:
        heard.append(cloned(parties, computing, {**nonces, party: bytes(NONCE_BYTES)}))
    assert len({each.id for each in heard}) == 1 + parties
    for group in groups(computing, parties):
        keys = [part for each in heard for part in each.key[group]]
        assert len(set(keys)) == 2 * (1 + parties), group.label
