"""The frame format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import ProtocolOrderError
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport import frames
from mpc_engine.transport.frames import FRAME_BYTES, HEADER_BYTES, Kind, cut, ending, parse

SESSION = bytes(range(16))


def test_the_layout_is_fixed() -> None:
    (frame,) = cut(SESSION, 3, MessageKey(0x01020304, Section.TEST, 0x0506), [b"pay", b"load"])
    assert frame.hex() == (
        "4d504301" + SESSION.hex() + "04030201" + "03" + "00" + "0605" + "0300" + "0000"
        "0700000000000000" + "0000000000000000" + b"payload".hex()
    )
    assert HEADER_BYTES == 48
    assert FRAME_BYTES == 1 << 20
    assert ending(Kind.GOODBYE, 2)[25] == 1


@given(
    chunk=st.integers(0, 2**32 - 1),
    section=st.sampled_from(Section),
    round_=st.integers(0, 2**16 - 1),
    sender=st.integers(1, 2**16 - 1),
    payload=st.binary(max_size=100),
)
def test_there_and_back(chunk: int, section: Section, round_: int, sender: int, payload: bytes) -> None:
    key = MessageKey(chunk, section, round_)
    (frame,) = cut(SESSION, sender, key, [payload])
    header = parse(frame, sender)
    assert header == (Kind.MESSAGE, SESSION, key, len(payload), 0)
    assert isinstance(header.key.section, Section)
    assert frame[HEADER_BYTES:] == payload


@given(sizes=st.lists(st.integers(0, 40), max_size=8), frame_bytes=st.integers(1, 16))
def test_cutting_loses_and_adds_nothing(sizes: list[int], frame_bytes: int) -> None:
    key = MessageKey(0, Section.INPUT, 0)
    content = bytes(n % 251 for n in range(sum(sizes)))
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    parts = [memoryview(content)[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "FRAME_BYTES", frame_bytes)
        whole = b""
        for frame in cut(SESSION, 1, key, parts):
            header = parse(frame, 1)
            assert header.offset == len(whole)
            assert header.total == len(content)
            whole += frame[HEADER_BYTES:]
    assert whole == content


@given(st.binary(max_size=120))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    for candidate in (data, b"MPC\x01" + data):
        try:
            header = parse(candidate, 1)
        except ProtocolOrderError:
            continue
        assert header.offset + len(candidate) - HEADER_BYTES == header.total
