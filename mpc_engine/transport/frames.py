"""The frame: a fixed header and up to 1 MiB of payload, little-endian.

A message of up to `FRAME_BYTES` is one frame; a longer one is cut into full frames and a rest, sent
in order. The header is 48 bytes, so that the payload is aligned for 64-bit words where it lies:

======== ===== =====================================================================
offset   bytes
======== ===== =====================================================================
0        4     ``MPC`` and the format's version, 1
4        16    session id; zeros before the parties have agreed on one
20       4     chunk
24       1     section
25       1     kind: 0 message, 1 goodbye, 2 abort
26       2     round
28       2     sender, who must be the party of the channel's certificate
30       2     zero
32       8     length of the whole message in bytes
40       8     offset of this frame's payload in the message
======== ===== =====================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from mpc_engine.errors import ProtocolOrderError
from mpc_engine.runtime.link import Buffer, MessageKey, Section
from mpc_engine.runtime.mailbox import UNBOUND

FRAME_BYTES = 1 << 20
_HEADER = struct.Struct("<4s16sIBBHHHQQ")
HEADER_BYTES = _HEADER.size
_MAGIC = b"MPC\x01"
_SECTIONS = tuple(Section)


class Kind(IntEnum):
    """What a frame is: part of a message, or the end of the stream."""

    MESSAGE = 0
    GOODBYE = 1
    ABORT = 2


class Header(NamedTuple):
    """The header's fields, checked for form and sender."""

    kind: int
    session: bytes
    key: MessageKey
    total: int
    offset: int


def cut(session: bytes, sender: int, key: MessageKey, parts: Sequence[Buffer]) -> Iterator[bytes]:
    """Yield the frames of the message made of `parts` back to back; copies each byte once."""
    views = [view for view in (memoryview(part) for part in parts) if view.nbytes]
    total = sum(view.nbytes for view in views)
    if total <= FRAME_BYTES:
        yield b"".join((_head(session, sender, key, total, 0), *views))
        return
    waiting = iter([view.cast("B") for view in views])
    view = next(waiting)
    for offset in range(0, total, FRAME_BYTES):
        room = min(FRAME_BYTES, total - offset)
        slices: list[bytes | memoryview] = [_head(session, sender, key, total, offset)]
        while room:
            if not view:
                view = next(waiting)
            slices.append(view[:room])
            room -= len(slices[-1])
            view = view[len(slices[-1]) :]
        yield b"".join(slices)


def ending(kind: Kind, sender: int, payload: bytes = b"") -> bytes:
    """Return the frame that ends a stream: a goodbye, or an abort with its explanation."""
    return _HEADER.pack(_MAGIC, UNBOUND, 0, 0, kind, 0, sender, 0, len(payload), 0) + payload


def parse(frame: bytes, sender: int) -> Header:
    """Return the header of `frame`, which came over the channel of party `sender`.

    Raises ProtocolOrderError if it is not a frame of this format, names another sender, or has
    another length than its message and offset give.
    """
    size = len(frame) - HEADER_BYTES
    if size < 0:
        raise ProtocolOrderError(f"party {sender} sent a frame of {len(frame)} bytes, less than a header")
    fields = _HEADER.unpack_from(frame)
    magic, session, chunk, section, kind, round_, named, zero, total, offset = fields
    if magic != _MAGIC or zero or kind > Kind.ABORT or section >= len(_SECTIONS):
        raise ProtocolOrderError(f"party {sender} sent a frame of an unknown format")
    if named != sender:
        raise ProtocolOrderError(f"party {sender} sent a frame in the name of party {named}")
    whole_before = offset % FRAME_BYTES == 0 and (offset < total or offset == total == 0)
    if not whole_before or size != min(FRAME_BYTES, total - offset):
        raise ProtocolOrderError(f"party {sender} sent a frame whose length does not fit its message")
    return Header(kind, session, MessageKey(chunk, _SECTIONS[section], round_), total, offset)


def _head(session: bytes, sender: int, key: MessageKey, total: int, offset: int) -> bytes:
    return _HEADER.pack(
        _MAGIC, session, key.chunk, key.section, Kind.MESSAGE, key.round, sender, 0, total, offset
    )
