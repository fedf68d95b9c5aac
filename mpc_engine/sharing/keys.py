"""Session keys: who shares which, how they are made afresh, how they are confirmed.

A *group* is a set of parties that hold one key together. There are two kinds: `pair` groups (two
computing parties, or an input-only silo and a computing party), for zero sharings and compressed
dealings; `set` groups (every set of t + 1 computing parties), for pseudorandom sharing. For each set of
members that form a group, every member sends every other member 32 bytes from the operating system;
the key is HKDF-SHA-256 over all contributions in the order of the members, bound to the group's kind
and to the session id. Whoever misses a member's contribution cannot know the key.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc_engine.errors import IntegrityError
from mpc_engine.sharing.shamir import degree_for
from mpc_engine.sharing.streams import KEY_BYTES, StreamKey

CONTRIBUTION_BYTES = 32


@dataclass(frozen=True, order=True)
class Group:
    """A set of parties that share a key: kind ("pair" or "set") and members in ascending order."""

    kind: str
    members: tuple[int, ...]

    @property
    def label(self) -> str:
        """A public name, such as `pair:1-3`."""
        return f"{self.kind}:{'-'.join(map(str, self.members))}"


def groups(computing: int, parties: int) -> list[Group]:
    """Return all groups of a session with parties 1..`parties`, of which 1..`computing` compute."""
    t = degree_for(computing)
    everyone = range(1, computing + 1)
    pairs = [Group("pair", pair) for pair in combinations(everyone, 2)]
    inputs = [Group("pair", (i, silo)) for silo in range(computing + 1, parties + 1) for i in everyone]
    return pairs + inputs + [Group("set", members) for members in combinations(everyone, t + 1)]


def groups_of(me: int, computing: int, parties: int) -> list[Group]:
    """Return the groups that party `me` is a member of, in one agreed order."""
    return [group for group in groups(computing, parties) if me in group.members]


class SessionKeys:
    """The keys one party holds in one session, by group."""

    def __init__(self, me: int, keys: Mapping[Group, bytes]) -> None:
        self.me = me
        self._streams = {group: StreamKey(key, group.label) for group, key in keys.items()}

    def pair(self, other: int) -> StreamKey:
        """Return the key shared with one other party."""
        return self._streams[Group("pair", (min(self.me, other), max(self.me, other)))]

    def sets(self) -> list[tuple[tuple[int, ...], StreamKey]]:
        """Return the keys for pseudorandom sharing with their members, in one agreed order."""
        return [(group.members, key) for group, key in self._streams.items() if group.kind == "set"]


def contribute(me: int, computing: int, parties: int) -> dict[tuple[int, ...], bytes]:
    """Return this party's fresh contributions, one for each set of members it is in."""
    members = {group.members for group in groups_of(me, computing, parties)}
    return {each: os.urandom(CONTRIBUTION_BYTES) for each in sorted(members)}


def derive(group: Group, contributions: Mapping[int, bytes], session_id: bytes) -> tuple[bytes, bytes]:
    """Return a group's stream key and its confirmation key, from every member's contribution.

    Raises IntegrityError when a contribution is missing or has another length.
    """
    ordered: Sequence[bytes] = [contributions.get(member, b"") for member in group.members]
    if any(len(part) != CONTRIBUTION_BYTES for part in ordered):
        raise IntegrityError(f"a contribution to the key of {group.label} is missing or has the wrong length")
    info = b"mpc-engine/session-key/1\0" + group.label.encode() + b"\0" + session_id
    made = HKDF(SHA256(), KEY_BYTES + 32, salt=None, info=info).derive(b"".join(ordered))
    return made[:KEY_BYTES], made[KEY_BYTES:]


def confirmation(sender: int, receiver: int, confirmation_keys: Mapping[Group, bytes]) -> bytes:
    """Return the proof, from `sender` to `receiver`, that both derived the keys they have in common."""
    mac = hmac.new(b"mpc-engine/key-confirmation/1", digestmod=sha256)
    for group in sorted(confirmation_keys):
        if sender in group.members and receiver in group.members:
            proof = hmac.new(confirmation_keys[group], f"{sender}>{receiver}".encode(), sha256)
            mac.update(group.label.encode() + b"\0" + proof.digest())
    return mac.digest()
