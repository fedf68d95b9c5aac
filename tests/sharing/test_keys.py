"""Session keys: every member contributes, the session is bound in, and both ends confirm."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest

from mpc_engine.errors import IntegrityError
from mpc_engine.sharing.keys import Group, confirmation, contribute, derive, groups, groups_of
from mpc_engine.sharing.shamir import SUPPORTED, degree_for
from tests.world import session_keys

GROUP = Group("set", (1, 3))
PARTS = {1: b"a" * 32, 3: b"c" * 32}


def test_every_contribution_matters() -> None:
    key = derive(GROUP, PARTS, b"session")
    assert key == derive(GROUP, {3: PARTS[3], 1: PARTS[1], 2: b"x" * 32}, b"session")
    for member in GROUP.members:
        changed = {**PARTS, member: PARTS[member][:-1] + b"!"}
        assert derive(GROUP, changed, b"session") != key
    assert derive(GROUP, {1: PARTS[3], 3: PARTS[1]}, b"session") != key


@pytest.mark.parametrize("part", [None, b"", b"c" * 31, b"c" * 33])
@pytest.mark.parametrize("member", GROUP.members)
def test_without_a_members_contribution_there_is_no_key(member: int, part: bytes | None) -> None:
    parts = {i: value for i, value in PARTS.items() if i != member}
    if part is not None:
        parts[member] = part
    with pytest.raises(IntegrityError, match="set:1-3"):
        derive(GROUP, parts, b"session")


def test_keys_are_bound_to_session_kind_and_members() -> None:
    made = [
        derive(GROUP, PARTS, b"session"),
        derive(GROUP, PARTS, b"another"),
        derive(Group("pair", (1, 3)), PARTS, b"session"),
        derive(Group("set", (1, 2)), {1: PARTS[1], 2: PARTS[3]}, b"session"),
    ]
    assert len({part for key in made for part in key}) == 2 * len(made)  # stream and confirmation keys too


@pytest.mark.parametrize("n", SUPPORTED)
@pytest.mark.parametrize("outside", [0, 1, 5])
def test_groups(n: int, outside: int) -> None:
    t, m = degree_for(n), n + outside
    everything = groups(n, m)
    assert len(set(everything)) == len(everything) == comb(n, 2) + outside * n + comb(n, t + 1)
    for me in range(1, m + 1):
        mine = groups_of(me, n, m)
        assert mine == [group for group in everything if me in group.members]
        kinds = [group.kind for group in mine]
        assert kinds.count("pair") == (m - 1 if me <= n else n)
        assert kinds.count("set") == (comb(n - 1, t) if me <= n else 0)
        given = contribute(me, n, m)
        assert set(given) == {group.members for group in mine}
        assert {len(part) for part in given.values()} == {32} and len(set(given.values())) == len(given)


def test_members_share_a_stream_and_sessions_do_not() -> None:
    sessions = [session_keys(3, 5) for _ in range(2)]
    drawn = set()
    for session in sessions:
        for i, j in combinations(range(5), 2):
            if i < 3:
                one = session[i].pair(j + 1).bits("x", 1, 4)
                assert (one == session[j].pair(i + 1).bits("x", 1, 4)).all()
                drawn.add(one.tobytes())
        with pytest.raises(KeyError):
            session[3].pair(5)
        assert session[4].sets() == []
        for (_, key), (_, same) in zip(session[0].sets()[:1], session[1].sets()[:1], strict=True):
            drawn.add(key.bits("x", 1, 4).tobytes())
            same.bits("x", 1, 4)
    assert len(drawn) == 2 * 10


def test_confirmation_tells_different_keys_apart() -> None:
    mine = {group: bytes([k]) * 32 for k, group in enumerate(groups_of(1, 3, 3))}
    theirs = {group: key for group, key in mine.items() if 2 in group.members}
    assert confirmation(1, 2, mine) == confirmation(1, 2, theirs)  # others' keys do not enter
    assert confirmation(1, 2, mine) != confirmation(2, 1, mine)  # cannot be sent back as one's own
    for group in theirs:
        assert confirmation(1, 2, {**theirs, group: b"?" * 32}) != confirmation(1, 2, mine)
