"""The control messages on the wire."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import EngineError, ProtocolOrderError
from mpc_engine.transport.control import (
    MAX_CONTROL_BYTES,
    Abort,
    Agree,
    Commit,
    Head,
    KeyContribution,
    Pattern,
    Reserve,
    Signatures,
)
from mpc_engine.transport.pb import peer_pb2

AGREE = Agree(
    engine_version="0.1.0",
    nonce=b"n" * 32,
    digests={"query": "0" * 64, "codebook": "a1" * 32},
    contributions=(KeyContribution((1, 2), b"k" * 32), KeyContribution((1, 3), b"l" * 32)),
    least_threshold=5,
    greatest_epsilon="1.5",
    snapshot_id="3f2a",
    ticket=b"t" * 16,
    source_digest=b"e" * 32,
    policy_digest=b"o" * 32,
    signing_key=b"y" * 32,
    head=Head(7, b"d" * 32),
    witnessed={1: Head(0, bytes(32)), 3: Head(1 << 40, b"w" * 32)},
)
RESERVE = Reserve(b"s" * 16, b"c" * 32, (b"one", b"two"), Head(9, b"d" * 32), b"x" * 64)
COMMIT = Commit(b"h" * 32, 2, Head(12, b"d" * 32), b"g" * 64, b"{}")
Message = Agree | Reserve | Commit | Pattern | Signatures | Abort
ALL: list[Message] = [
    AGREE,
    RESERVE,
    COMMIT,
    Pattern(b"p" * 32),
    Pattern(b"p" * 32, (COMMIT.encode(),)),
    Signatures({1: b"g" * 64, 9: b"j" * 64}),
    Signatures({}),
    Abort("DATA", "m", "p2", "input"),
]


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_there_and_back(message: Message) -> None:
    assert type(message).decode(message.encode()) == message


def test_equal_content_gives_equal_bytes() -> None:
    turned = replace(AGREE, digests=dict(reversed(AGREE.digests.items())))
    assert turned.encode() == AGREE.encode()


def test_a_helper_has_no_snapshot_and_may_share_no_key() -> None:
    bare = replace(AGREE, snapshot_id="", contributions=(), digests={}, ticket=b"", witnessed={})
    assert Agree.decode(bare.encode()) == bare


BAD_AGREES = [
    {"engine_version": ""},
    {"engine_version": "v" * 129},
    {"engine_version": "1\x1b[2J"},
    {"nonce": b""},
    {"nonce": b"n" * 31},
    {"nonce": b"n" * 33},
    {"digests": {"query": "0" * 63}},
    {"digests": {"query": "G" * 64}},
    {"digests": {"": "0" * 64}},
    {"contributions": (KeyContribution((), b"k" * 32),)},
    {"contributions": (KeyContribution((0, 1), b"k" * 32),)},
    {"contributions": (KeyContribution((2, 1), b"k" * 32),)},
    {"contributions": (KeyContribution((1, 1), b"k" * 32),)},
    {"contributions": (KeyContribution((1, 2), b"k" * 31),)},
    {"contributions": (KeyContribution((1, 2), b"k" * 32),) * 2},
    {"least_threshold": 0},
    {"least_threshold": 1 << 31},
    {"greatest_epsilon": ""},
    {"greatest_epsilon": "-1"},
    {"greatest_epsilon": "1e9"},
    {"greatest_epsilon": "inf"},
    {"snapshot_id": "s" * 129},
    {"ticket": b"t" * 15},
    {"source_digest": b""},
    {"policy_digest": b"o" * 33},
    {"signing_key": b"y" * 31},
    {"head": Head(1, b"d" * 31)},
    {"head": Head(1 << 63, b"d" * 32)},
    {"witnessed": {0: Head(1, b"d" * 32)}},
    {"witnessed": {256: Head(1, b"d" * 32)}},
    {"witnessed": {1: Head(1, b"")}},
]


@pytest.mark.parametrize("fault", BAD_AGREES, ids=str)
def test_fields_out_of_bounds_are_neither_sent_nor_accepted(fault: dict[str, object]) -> None:
    bad = replace(AGREE, **fault)  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        bad.encode()
    wire = peer_pb2.Agree(
        engine_version=bad.engine_version,
        nonce=bad.nonce,
        digests=dict(bad.digests),
        contributions=[
            peer_pb2.KeyContribution(members=bytes(part.members), value=part.value)
            for part in bad.contributions
        ],
        least_threshold=bad.least_threshold,
        greatest_epsilon=bad.greatest_epsilon,
        snapshot_id=bad.snapshot_id,
        ticket=bad.ticket,
        source_digest=bad.source_digest,
        policy_digest=bad.policy_digest,
        signing_key=bad.signing_key,
        head=peer_pb2.Head(seq=bad.head.seq, hash=bad.head.hash),
        witnessed=[
            peer_pb2.Witnessed(party=party, head=peer_pb2.Head(seq=head.seq, hash=head.hash))
            for party, head in bad.witnessed.items()
        ],
    ).SerializeToString(deterministic=True)
    with pytest.raises(ProtocolOrderError):
        Agree.decode(wire)


@pytest.mark.parametrize("order", [(2, 1), (1, 1)])
def test_lists_by_party_are_ascending(order: tuple[int, int]) -> None:
    head = peer_pb2.Head(seq=1, hash=b"d" * 32)
    wire = peer_pb2.Agree.FromString(replace(AGREE, witnessed={}).encode())
    wire.witnessed.extend(peer_pb2.Witnessed(party=party, head=head) for party in order)
    with pytest.raises(ProtocolOrderError):
        Agree.decode(wire.SerializeToString(deterministic=True))
    signed = peer_pb2.Signatures(
        signature=[peer_pb2.Signature(party=party, value=b"g" * 64) for party in order]
    )
    with pytest.raises(ProtocolOrderError):
        Signatures.decode(signed.SerializeToString(deterministic=True))


@pytest.mark.parametrize(
    "fault",
    [
        {"openings_hash": b""},
        {"party": 0},
        {"party": 256},
        {"head": Head(1, b"")},
        {"signature": b"g" * 63},
        {"account": bytes(4097)},
    ],
    ids=str,
)
def test_bad_commitments_are_neither_sent_nor_accepted(fault: dict[str, object]) -> None:
    bad = replace(COMMIT, **fault)  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        bad.encode()
    head = peer_pb2.Head(seq=bad.head.seq, hash=bad.head.hash)
    wire = peer_pb2.Commit(
        openings_hash=bad.openings_hash,
        party=bad.party,
        head=head,
        signature=bad.signature,
        account=bad.account,
    )
    with pytest.raises(ProtocolOrderError):
        Commit.decode(wire.SerializeToString(deterministic=True))


@pytest.mark.parametrize("size", [1, 31, 33, 32 * 4097])
def test_a_ledger_is_extended_by_whole_hashes_up_to_a_bound(size: int) -> None:
    with pytest.raises(EngineError):
        replace(RESERVE, extension=bytes(size)).encode()
    wire = peer_pb2.Reserve.FromString(RESERVE.encode())
    wire.extension = bytes(size)
    with pytest.raises(ProtocolOrderError):
        Reserve.decode(wire.SerializeToString(deterministic=True))


@pytest.mark.parametrize("length", [0, 15, 17, 31, 33])
def test_hashes_and_ids_have_one_length(length: int) -> None:
    with pytest.raises(EngineError):
        Pattern(bytes(length)).encode()
    with pytest.raises(ProtocolOrderError):
        Pattern.decode(peer_pb2.Pattern(hash=bytes(length)).SerializeToString())
    with pytest.raises(EngineError):
        replace(RESERVE, session_id=bytes(length)).encode()
    with pytest.raises(ProtocolOrderError):
        Reserve.decode(peer_pb2.Reserve(session_id=bytes(length), confirmation=bytes(32)).SerializeToString())


def test_only_the_canonical_form_is_accepted() -> None:
    good = Pattern(b"h" * 32).encode()
    wrong = {
        "an unknown field": good + b"\x50\x01",
        "a field twice": good + good,
        "a field of another wire type": b"\x08\x01",
        "a varint of more bytes than it needs": good[:1] + b"\xa0\x00" + good[2:],
        "a truncated field": good[:-1],
        "nothing": b"",
        "an Abort": Abort("DATA").encode(),
    }
    for what, data in wrong.items():
        with pytest.raises(ProtocolOrderError):
            pytest.fail(f"{what} was accepted: {Pattern.decode(data)}")
    unknown_inside = (
        peer_pb2.KeyContribution(members=b"\x01\x02", value=b"k" * 32).SerializeToString() + b"\x50\x01"
    )
    with pytest.raises(ProtocolOrderError):
        Agree.decode(
            replace(AGREE, contributions=()).encode()
            + b"\x22"
            + bytes([len(unknown_inside)])
            + unknown_inside
        )


def test_too_long_a_message() -> None:
    with pytest.raises(EngineError, match="exceeds"):
        Reserve(b"s" * 16, b"c" * 32, (bytes(MAX_CONTROL_BYTES),)).encode()
    with pytest.raises(ProtocolOrderError, match="too long"):
        Reserve.decode(bytes(MAX_CONTROL_BYTES + 1))


def test_an_abort_is_always_sent_and_cannot_steer_a_terminal() -> None:
    odd = Abort("not a reason", "line\nbreak \x1b[31m" + "x" * 5000, "p\r2")
    heard = Abort.decode(odd.encode())
    assert heard.reason == "INTERNAL"
    assert heard.message.startswith("line break  [31m")
    assert len(heard.message) == 1000
    assert heard.party == "p 2"
    raw = peer_pb2.Abort(reason="DATA", message="\x1b[2J").SerializeToString()
    assert Abort.decode(raw).message == " [2J"
    for reason in ("", "data", "A" * 65, "A\n"):
        with pytest.raises(ProtocolOrderError):
            Abort.decode(peer_pb2.Abort(reason=reason).SerializeToString())


def test_secrets_do_not_show() -> None:
    assert "kkkk" not in repr(AGREE)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_canonical(data: bytes) -> None:
    for cls in (Agree, Reserve, Commit, Pattern):
        with contextlib.suppress(ProtocolOrderError):
            assert cls.decode(data).encode() == data
    with contextlib.suppress(ProtocolOrderError):
        Abort.decode(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_seen(place: int, value: int) -> None:
    data = bytearray(AGREE.encode())
    data[place % len(data)] = value
    try:
        heard = Agree.decode(bytes(data))
    except ProtocolOrderError:
        return
    assert (heard == AGREE) == (bytes(data) == AGREE.encode())
