"""One peer's stream: frames queued for it, frames read from it, and how it ends.

A stream ends in good order when both sides have said goodbye. The side that dialled then half-closes
it; seeing that, the listening side knows that everything was read and finishes the call. An abort
takes the place of whatever is still queued and ends the stream from one side. A stream that stops in
any other way has lost its peer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Protocol

import grpc.aio

from mpc_engine.errors import DeadlineError, IntegrityError, PeerAbortedError, PeerError, ProtocolOrderError
from mpc_engine.runtime.link import Buffer, MessageKey
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.transport.control import Abort
from mpc_engine.transport.frames import HEADER_BYTES, Kind, cut, ending, parse
from mpc_engine.transport.standing import Flow

QUEUE_BYTES = 4 << 20
"""How much may wait for one peer before `send` waits too."""

STREAM_ERRORS = (
    grpc.aio.AioRpcError,
    grpc.aio.InternalError,
    grpc.aio.UsageError,
    asyncio.InvalidStateError,
)
"""What a stream raises when its connection or its peer is gone."""


class Stream(Protocol):
    """What the two ends of a gRPC stream have in common."""

    async def read(self) -> object:
        """Return the next frame, or `grpc.aio.EOF`."""

    async def write(self, frame: bytes) -> None:
        """Hand one frame to the connection; returns when there is room for another."""

    async def done_writing(self) -> None:
        """Half-close the stream; does nothing at the listening end, which ends it by returning."""


class Channel:
    """Party `me`'s side of the stream with `peer`, whose messages go to `box`; `label` is for errors.

    `flow` counts the bytes of its frames.
    """

    def __init__(self, me: int, peer: int, label: str, box: Mailbox, flow: Flow | None = None) -> None:
        self.peer = peer
        self.label = label
        self.attached = asyncio.Event()
        """Set once there is a stream."""
        self.over = asyncio.Event()
        """Set once the stream is finished or lost."""
        self._me = me
        self._box = box
        self._flow = Flow() if flow is None else flow
        self._server: asyncio.Task[object] | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._ending = False  # our last frame is queued or written
        self._ended = False  # our last frame is written
        self._heard_end = False
        self._aborted = False  # by either side

    # --- sending ----------------------------------------------------------------------------------

    async def send(self, key: MessageKey, parts: Sequence[Buffer], timeout_s: float) -> None:
        """Queue one message, copying it; waits up to `timeout_s` while the peer reads too slowly.

        Raises DeadlineError, and what ended the session if something did.
        """
        if self._ending:
            raise PeerError(f"the session with {self.label} has ended")
        for frame in cut(self._box.session, self._me, key, parts):
            if self._queued >= QUEUE_BYTES:
                await self._wait_for_room(timeout_s)
            self._queue.append(frame)
            self._queued += len(frame)
            self._work.set()

    def say_goodbye(self) -> None:
        """Queue the goodbye; nothing can be sent after it."""
        self._end(ending(Kind.GOODBYE, self._me))

    def say_abort(self, abort: Abort) -> None:
        """Put the abort in front of everything that waits; nothing can be sent after it."""
        if not self._aborted:
            self._queue.clear()
            self._aborted = True
            self._ending = False
            self._end(ending(Kind.ABORT, self._me, abort.encode()))

    def release(self) -> None:
        """Let those who wait for room go on, to find that the session has ended."""
        self._room.set()

    def cut(self) -> None:
        """End the stream at once, whatever is under way; `over` is set soon after."""
        if self._server is not None and not self.over.is_set():
            self._server.cancel()

    # --- the stream -------------------------------------------------------------------------------

    async def run(self, stream: Stream, welcome: Awaitable[None] | None = None) -> None:
        """Serve `stream` until it ends, then note a lost peer unless it ended in good order.

        `welcome` is awaited before anything is read or written.
        """
        why = "the stream ended without a goodbye"
        writer = None
        self._server = asyncio.current_task()
        self.attached.set()
        try:
            if welcome is not None:
                await welcome
            writer = asyncio.create_task(self._write_all(stream))
            while isinstance(frame := await stream.read(), bytes):
                self._flow.link_in += len(frame)
                self._take(frame)
        except STREAM_ERRORS as error:
            why = details_of(error)
        except asyncio.CancelledError:
            why = "the stream was cut"
            raise
        finally:
            if writer is not None:
                writer.cancel()
            self.over.set()
            self._lose(why)

    async def _write_all(self, stream: Stream) -> None:
        """Write what is queued, in order, until both sides have ended the stream."""
        try:
            while True:
                while self._queue:
                    frame = self._queue.popleft()
                    await stream.write(frame)
                    self._flow.link_out += len(frame)
                    self._queued -= len(frame)
                    if self._queued < QUEUE_BYTES:
                        self._room.set()
                self._ended = self._ending
                if self._aborted or (self._ended and self._heard_end):
                    await stream.done_writing()
                    return
                self._work.clear()
                await self._work.wait()
        except STREAM_ERRORS as error:
            self._lose(details_of(error))

    def _take(self, frame: bytes) -> None:
        """Act on one frame. After a failure only the end of the stream still matters."""
        try:
            header = parse(frame, self.peer)
            payload = memoryview(frame)[HEADER_BYTES:]
            if header.kind == Kind.MESSAGE:
                if self._heard_end:
                    raise ProtocolOrderError(f"{self.label} sent a message after its goodbye")
                if not self._box.failed:
                    self._box.deliver(
                        self.peer, header.key, header.session, header.total, header.offset, payload
                    )
                return
            self._heard_end = True
            if header.kind == Kind.GOODBYE:
                self._box.end(self.peer)
            else:
                self._aborted = True
                self._queue.clear()
                abort = Abort.decode(bytes(payload))
                self._box.fail(PeerAbortedError(_explain(abort, self.label), abort.reason))
            self._work.set()
        except IntegrityError as error:
            self._box.fail(error)

    # --- within -----------------------------------------------------------------------------------

    def _end(self, frame: bytes) -> None:
        if not self._ending:
            self._ending = True
            self._queue.append(frame)
            self._queued += len(frame)
            self._work.set()

    def _lose(self, why: str) -> None:
        if not self._heard_end and not self._aborted:
            self._box.fail(PeerError(f"the connection to {self.label} was lost: {why}"))

    async def _wait_for_room(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self._queued >= QUEUE_BYTES and not self._box.failed:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise DeadlineError(f"{self.label} read nothing for {timeout_s:g} s") from None
        self._box.raise_failure()


def details_of(error: BaseException) -> str:
    """Return the connection's own words, which hold addresses and states but no content."""
    text = error.details() if isinstance(error, grpc.aio.AioRpcError) else None
    return text or type(error).__name__


def _explain(abort: Abort, label: str) -> str:
    origin = f"{abort.party} (as {label} says)" if abort.party else label
    step = f" in {abort.step}" if abort.step else ""
    return f"{origin} ended the session{step}: {abort.reason}: {abort.message}"
