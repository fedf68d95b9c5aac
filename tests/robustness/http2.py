"""Just enough of HTTP/2 over TLS to say to a gRPC server what no client of gRPC would say."""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STATUS = re.compile(rb"grpc-status(.)(\d\d?)", re.DOTALL)
_MOST_FRAME = 16_384
CODES = {
    0: "OK",
    3: "INVALID_ARGUMENT",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    16: "UNAUTHENTICATED",
}


def tls(folder: Path, server: Path) -> ssl.SSLContext:
    """Return the settings of a caller whose identity lies in `folder` and who pins one certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(server)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def _literal(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    head, size = bytearray((127,)), size - 127
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    return bytes((*head, size)) + text


def message(content: bytes, *, compressed: bool = False, claimed: int | None = None) -> bytes:
    """Return a message of gRPC, which may claim another length than it has."""
    return struct.pack(">BI", compressed, len(content) if claimed is None else claimed) + content


class Connection:
    """One connection with one call. Raises OSError where the server ends it."""

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        host, _, port = address.rpartition(":")
        self.socket: socket.socket = socket.create_connection((host, int(port)), timeout=10)
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
            self.socket.sendall(_PREFACE + _frame(SETTINGS, 0, 0))
        self._received = b""
        self._window, self._stream_window, self._first = 65_535, 65_535, 65_535
        self.code = ""
        """How the call ended: a gRPC code, RESET, or CLOSED; empty while it runs."""
        self.sent = 0
        """Bytes of messages that were sent."""

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def call(self, method: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Begin a call."""
        fields = [(":method", "POST"), (":scheme", "https"), (":path", method), (":authority", "x")]
        fields += [("content-type", "application/grpc"), ("te", "trailers"), *headers]
        block = b"".join(b"\0" + _literal(name.encode()) + _literal(value.encode()) for name, value in fields)
        parts = [block[start : start + _MOST_FRAME] for start in range(0, len(block), _MOST_FRAME)]
        for index, part in enumerate(parts):
            kind, last = (HEADERS if index == 0 else 9), index == len(parts) - 1
            self._send(_frame(kind, 4 if last else 0, 1, part))

    def pour(self, contents: Iterable[bytes], patience_s: float = 1.0, end: bool = False) -> str:
        """Send all that the server has room for; return the call's end, HELD or SENT."""
        for content in contents:
            view = memoryview(content)
            while view and not self.code:
                room = min(self._window, self._stream_window, _MOST_FRAME)
                if room <= 0:
                    if not self._read(patience_s):
                        return self.code or "HELD"
                    continue
                part, view = view[:room], view[room:]
                self._window -= len(part)
                self._stream_window -= len(part)
                self._send(_frame(DATA, 0, 1, bytes(part)))
                self.sent += len(part)
                self._read(0)
            if self.code:
                return self.code
        if end:
            self._send(_frame(DATA, 1, 1))
        until = time.monotonic() + patience_s
        while not self.code and time.monotonic() < until:
            self._read(0.1)
        return self.code or "SENT"

    # --- within -------------------------------------------------------------------------------------

    def _send(self, content: bytes) -> None:
        try:
            self.socket.sendall(content)
        except OSError:
            self.code = self.code or "CLOSED"

    def _read(self, timeout_s: float) -> bool:
        """Take in what has come, waiting for it if need be; tell whether anything has."""
        pending = isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()
        if not pending and not select.select([self.socket], [], [], timeout_s)[0]:
            return False
        try:
            received = self.socket.recv(1 << 16)
        except OSError:
            received = b""
        if not received:
            self.code = self.code or "CLOSED"
            return False
        self._received += received
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                break
            kind, flags = self._received[3], self._received[4]
            self._take(kind, flags, int.from_bytes(self._received[5:9], "big"), self._received[9 : 9 + size])
            self._received = self._received[9 + size :]
        return True

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == WINDOW:
            more = int.from_bytes(content, "big")
            if stream:
                self._stream_window += more
            else:
                self._window += more
        elif kind == SETTINGS and not flags & 1:
            for start in range(0, len(content), 6):
                name, value = struct.unpack(">HI", content[start : start + 6])
                if name == 4:  # the first window of a stream
                    self._stream_window += value - self._first
                    self._first = value
            self._send(_frame(SETTINGS, 1, 0))
        elif kind == PING and not flags & 1:
            self._send(_frame(PING, 1, 0, content))
        elif kind == HEADERS:
            found = _STATUS.search(content)
            if found is not None:
                self.code = CODES.get(int(found[2]), found[2].decode())
        elif kind == RST and not self.code:
            self.code = "RESET"
        elif kind == GOAWAY and not self.code:
            self.code = "CLOSED"
