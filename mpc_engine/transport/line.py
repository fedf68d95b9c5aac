"""The line: short messages both ways over one stream, with a heartbeat of its own.

A frame is 8 bytes of header (``MPL`` and the format's version, 1; the kind; three zeros) and its content:

==== ======= ==================================================================================
kind name    content
==== ======= ==================================================================================
0    message up to 256 KiB
1    ping    8 bytes, to be sent back
2    pong    those 8 bytes, and the wall clock in microseconds since 1970 as 8 bytes, little-endian
3    bye     why the line ends, in words (UTF-8)
==== ======= ==================================================================================

Keep-alive probes of the connection are answered by a library; a ping is answered by the very loop that
has the party's work to do. So a process that hangs is noticed too, and the round trip is that of work.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from mpc_engine.errors import EngineError, ProtocolOrderError
from mpc_engine.identity.certificates import Clock
from mpc_engine.runtime.switchboard import MAX_LINE_BYTES
from mpc_engine.transport.channel import STREAM_ERRORS, Stream, details_of
from mpc_engine.transport.standing import Standing

QUEUE_BYTES = 4 << 20
"""How much may wait for one peer before nothing more is taken."""
_MESSAGE_COST = 512
"""Bytes charged for each waiting message on top of its length, so that empty ones are bounded too."""
_BYE_S = 1.0
"""How long the peer is given to end the stream after a bye."""
_MAX_WORDS = 300

_HEADER = struct.Struct("<4sB3s")
_TOKEN = struct.Struct("<Q")
_PONG = struct.Struct("<QQ")
_MAGIC = b"MPL\x01"
_ZEROS = bytes(3)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(IntEnum):
    """What a frame of the line is."""

    MESSAGE = 0
    PING = 1
    PONG = 2
    BYE = 3


@dataclass(frozen=True)
class Heartbeat:
    """How often a peer is asked for a sign of life, and after how long a silence it counts as lost."""

    every_s: float = 15.0
    dead_after_s: float = 45.0


def frame(kind: Kind, content: bytes = b"") -> bytes:
    """Return a frame of the line."""
    return _HEADER.pack(_MAGIC, kind, _ZEROS) + content


class Line:
    """One line over one stream; `label` names the peer, `heard` is called with each of its messages."""

    def __init__(
        self,
        label: str,
        standing: Standing,
        heard: Callable[[bytes], None],
        *,
        clock: Clock,
        heartbeat: Heartbeat,
    ) -> None:
        self._label = label
        self._standing = standing
        self._heard = heard
        self._clock = clock
        self._heartbeat = heartbeat
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._urgent: dict[Kind, bytes] = {}  # one of each, so that pings cannot make a queue of pongs
        self._bye: bytes | None = None
        self._work = asyncio.Event()
        self._cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._last_sign = 0.0
        self._pings = 0
        self._pinged: tuple[int, float] | None = None

    def say(self, message: bytes) -> bool:
        """Queue a message; False, and nothing queued, if the line ends or too much waits already.

        Raises EngineError for a message of more than `MAX_LINE_BYTES`.
        """
        if len(message) > MAX_LINE_BYTES:
            raise EngineError(f"a message of {len(message)} bytes is too long for a line")
        cost = len(message) + _MESSAGE_COST
        if self._bye is not None or self._cut.done() or self._queued + cost > QUEUE_BYTES:
            return False
        self._queue.append(frame(Kind.MESSAGE, message))
        self._queued += cost
        self._work.set()
        return True

    def bye(self, words: str) -> None:
        """End the line in good order, once what waits was written: the peer is told why."""
        self._bye = frame(Kind.BYE, words.encode())
        self._work.set()

    def cut(self, why: str) -> None:
        """End the line at once, without a word to the peer."""
        if not self._cut.done():
            self._cut.set_result(why)

    async def run(self, stream: Stream) -> str:
        """Serve `stream` until the line ends, and return why it did."""
        self._last_sign = asyncio.get_running_loop().time()
        reader = asyncio.create_task(self._read_all(stream))
        writer = asyncio.create_task(self._write_all(stream))
        heart = asyncio.create_task(self._beat())
        tasks: set[asyncio.Future[str]] = {reader, writer, heart, self._cut}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if writer.done() and self._bye is not None and not reader.done():
                await asyncio.wait({reader, heart, self._cut}, timeout=_BYE_S, return_when="FIRST_COMPLETED")
            # What the peer said as its last word explains more than what then happened to the stream.
            for task in (reader, self._cut, heart, writer):
                if task.done():
                    return task.result()
            return "this party ended it"
        finally:
            for each in (reader, writer, heart):
                each.cancel()
            await asyncio.gather(reader, writer, heart, return_exceptions=True)
            self.cut("it has ended")

    # --- within -----------------------------------------------------------------------------------

    async def _read_all(self, stream: Stream) -> str:
        try:
            while isinstance(received := await stream.read(), bytes):
                self._last_sign = asyncio.get_running_loop().time()
                self._standing.flow.line_in += len(received)
                words = self._take(received)
                if words is not None:
                    return words
        except STREAM_ERRORS as error:
            return details_of(error)
        except ProtocolOrderError as error:
            return str(error)
        return "the stream ended without a word"

    def _take(self, received: bytes) -> str | None:
        """Act on one frame; return the peer's words if it is a bye. Raises ProtocolOrderError."""
        kind, content = self._parse(received)
        if kind == Kind.MESSAGE:
            self._heard(content)
        elif kind == Kind.PING:
            wall = (self._clock() - _EPOCH) // timedelta(microseconds=1)
            self._urgent[Kind.PONG] = frame(Kind.PONG, _PONG.pack(*_TOKEN.unpack(content), wall))
            self._work.set()
        elif kind == Kind.PONG:
            self._measure(*_PONG.unpack(content))
        else:
            words = content.decode(errors="replace")[:_MAX_WORDS]
            return "".join(char if char.isprintable() else " " for char in words)
        return None

    def _parse(self, received: bytes) -> tuple[int, bytes]:
        size = len(received) - _HEADER.size
        if size >= 0:
            magic, kind, zeros = _HEADER.unpack_from(received)
            limits = {
                Kind.MESSAGE: (0, MAX_LINE_BYTES),
                Kind.PING: (_TOKEN.size, _TOKEN.size),
                Kind.PONG: (_PONG.size, _PONG.size),
                Kind.BYE: (0, 4 * _MAX_WORDS),
            }
            least, most = limits.get(kind, (1, 0))
            if magic == _MAGIC and zeros == _ZEROS and least <= size <= most:
                return kind, received[_HEADER.size :]
        raise ProtocolOrderError(f"{self._label} sent a frame of an unknown format on the line")

    def _measure(self, token: int, wall_us: int) -> None:
        if self._pinged is None or self._pinged[0] != token:
            return
        rtt_s = asyncio.get_running_loop().time() - self._pinged[1]
        self._pinged = None
        # The peer read its clock half a round trip ago.
        here_us = (self._clock() - _EPOCH) / timedelta(microseconds=1) - rtt_s * 5e5
        self._standing.measured(rtt_s, (wall_us - here_us) / 1e6)

    async def _beat(self) -> str:
        loop = asyncio.get_running_loop()
        while True:
            silence_s = loop.time() - self._last_sign
            if silence_s >= self._heartbeat.dead_after_s:
                return f"nothing was heard for {silence_s:.0f} s"
            self._pings += 1
            self._urgent[Kind.PING] = frame(Kind.PING, _TOKEN.pack(self._pings))
            self._work.set()
            await asyncio.sleep(min(self._heartbeat.every_s, self._heartbeat.dead_after_s - silence_s))

    async def _write_all(self, stream: Stream) -> str:
        loop = asyncio.get_running_loop()
        try:
            while True:
                while self._urgent or self._queue:
                    if self._urgent:
                        kind, content = self._urgent.popitem()
                        if kind == Kind.PING:
                            self._pinged = self._pings, loop.time()
                        await stream.write(content)
                    else:
                        content = self._queue.popleft()
                        await stream.write(content)
                        self._queued -= len(content) - _HEADER.size + _MESSAGE_COST
                    self._standing.flow.line_out += len(content)
                if self._bye is not None:
                    await stream.write(self._bye)
                    await stream.done_writing()
                    return "this party ended it"
                self._work.clear()
                await self._work.wait()
        except STREAM_ERRORS as error:
            return details_of(error)
