"""IPv4 packets as a TUN device gives them, behind a header of `virtio_net`, and what is done to them.

Source: [RFC791], [RFC9293] for the headers; [RFC5961] for why a reset must bear the very next number.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

HEADER: Final = 10
"""Bytes of the header of `virtio_net` before each packet."""
_NOTHING: Final = bytes(HEADER)
_TCP: Final = 6
_RST, _ACK = 0x04, 0x10
_TTL: Final = 64

Flow = tuple[bytes, int, bytes, int]
"""Source and port, destination and port."""


@dataclass(frozen=True)
class Packet:
    """One TCP segment: `after` is the number that follows its last byte, `ack` what its sender expects."""

    flow: Flow
    sequence: int
    ack: int
    start: int
    content: bytes

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return len(self.content) - self.start

    @property
    def after(self) -> int:
        """The sequence number after this segment's payload."""
        return (self.sequence + self.size) & 0xFFFFFFFF

    @classmethod
    def read(cls, content: bytes) -> Packet | None:
        """Return the segment, None for what is no TCP over IPv4, or a connection's first or last word."""
        ip = content[HEADER:]
        if len(ip) < 40 or ip[0] >> 4 != 4 or ip[9] != _TCP:
            return None
        start = (ip[0] & 15) * 4
        source, target, sequence, ack, offset, flags = struct.unpack_from(">HHIIBB", ip, start)
        if flags & ~(_ACK | 0x08 | 0xE0) or not flags & _ACK:
            return None
        flow = (ip[12:16], source, ip[16:20], target)
        return cls(flow, sequence, ack, HEADER + start + (offset >> 4) * 4, content)

    def shortened(self, size: int) -> bytes:
        """Return the segment with no more than its first `size` bytes of payload, with sums made anew."""
        start = HEADER + (self.content[HEADER] & 15) * 4
        ip = bytearray(self.content[HEADER:start])
        tcp = bytearray(self.content[start : self.start + size])
        return _NOTHING + _with_sums(ip, tcp)

    def reset(self) -> bytes:
        """Return a reset that goes the way of this segment, right after it."""
        return _reset(self.flow, self.after)

    def answering_reset(self, expected: int | None = None) -> bytes:
        """Return a reset that goes the other way, with the number that this segment's sender expects."""
        source, port, target, other = self.flow
        return _reset((target, other, source, port), self.ack if expected is None else expected)


def _reset(flow: Flow, sequence: int) -> bytes:
    source, port, target, other = flow
    ip = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, _TTL, _TCP, 0, source, target))
    tcp = bytearray(struct.pack(">HHIIBBHHH", port, other, sequence, 0, 5 << 4, _RST, 0, 0, 0))
    return _NOTHING + _with_sums(ip, tcp)


def _with_sums(ip: bytearray, tcp: bytearray) -> bytes:
    struct.pack_into(">H", ip, 2, len(ip) + len(tcp))
    struct.pack_into(">H", ip, 10, 0)
    struct.pack_into(">H", ip, 10, _sum(bytes(ip)))
    struct.pack_into(">H", tcp, 16, 0)
    pseudo = bytes(ip[12:20]) + struct.pack(">BBH", 0, _TCP, len(tcp))
    struct.pack_into(">H", tcp, 16, _sum(pseudo + bytes(tcp)))
    return bytes(ip + tcp)


def _sum(content: bytes) -> int:
    """Return the Internet checksum. Source: [RFC791]."""
    total = int(np.frombuffer(content + b"\0" * (len(content) % 2), ">u2").sum(dtype=np.int64))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def dotted(address: bytes) -> str:
    """Return an address in words."""
    return socket.inet_ntoa(address)
