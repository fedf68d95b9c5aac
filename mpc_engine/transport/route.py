"""The way to one dialled peer: a connection that is kept warm by its line, and made again when that ends.

There is one back-off, here: a connection of gRPC's that fails is thrown away, for it would add its own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

import grpc.aio

from mpc_engine.errors import EngineError, PeerAbortedError
from mpc_engine.transport.channel import STREAM_ERRORS
from mpc_engine.transport.dial import Call, Dialler, accepted
from mpc_engine.transport.options import (
    LINE_METHOD,
    LINK_KEY,
    PROTOCOL_VERSION,
    SESSION_METHOD,
    VERSION_KEY,
)
from mpc_engine.transport.refusal import NOT_OPENED

logger = logging.getLogger(__name__)

_ATTEMPT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_LONGEST_WANTED_PAUSE_S = 1.0
"""The longest pause while a link waits for the peer."""
_STEADY_S = 30.0
"""A line that stood so long was no mere attempt: the pauses begin anew."""


class Connection:
    """One connection and the number of sessions' streams it carries; it closes when it is done with."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._streams = 0
        self._retired = False

    def take(self) -> None:
        """Note one stream more."""
        self._streams += 1

    async def leave(self) -> None:
        """Note one stream less."""
        self._streams -= 1
        await self._close_if_idle()

    async def retire(self) -> None:
        """Close the connection as soon as no stream needs it any more."""
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._retired and not self._streams:
            await self.channel.close()


class Route:
    """Keeps a connection with one peer.

    `serve` is given each line that the peer accepts, and returns when that line has ended; `failed` is told
    in words why an attempt failed.
    """

    def __init__(
        self,
        dialler: Dialler,
        serve: Callable[[Call], Awaitable[None]],
        failed: Callable[[str], None],
    ) -> None:
        self._dialler = dialler
        self._serve = serve
        self._failed = failed
        self._connection: Connection | None = None  # stands while its line does
        self._hopeless: EngineError | None = None
        self._attempts = 0
        self._wanted = 0
        self._changed = asyncio.Event()  # replaced after each change
        self._hurry = asyncio.Event()

    @property
    def trouble(self) -> str:
        """Why the peer cannot be reached; continues "party 2 …"."""
        return self._dialler.trouble

    def renew(self, dialler: Dialler) -> None:
        """Dial with `dialler` from the next connection on."""
        self._dialler = dialler
        self._hopeless = None
        self._hurry.set()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._hurry.clear()
            stood = await self._attempt()
            self._attempts += 1
            self._note_change()
            failures = 0 if stood and loop.time() - began > _STEADY_S else failures + 1
            await self._pause(failures)

    async def open(self, name: bytes) -> tuple[Connection, Call]:
        """Open a session's stream named `name`; the connection must be left when the stream has ended.

        Waits until the peer can be reached and opens the session too; the caller sets the deadline. Raises
        PeerError or EngineMismatchError where waiting would not help, and PeerAbortedError with the peer's
        reason where it refuses this session.
        """
        failures = 0
        while True:
            connection = await self._stand()
            connection.take()
            metadata = grpc.aio.Metadata((VERSION_KEY, PROTOCOL_VERSION), (LINK_KEY, name.hex()))
            call: Call = connection.channel.stream_stream(SESSION_METHOD)(metadata=metadata)
            refusal = None
            try:
                refusal = await accepted(call)
                if refusal is None:
                    return connection, call
            except STREAM_ERRORS:
                pass
            except BaseException:
                call.cancel()
                await connection.leave()
                raise
            call.cancel()
            await connection.leave()
            if refusal is not None and refusal.reason not in ("", NOT_OPENED.reason):
                words = f"{self._dialler.label} refuses the session: {refusal.words}"
                raise PeerAbortedError(words, refusal.reason)
            failures += 1
            await asyncio.sleep(_jitter(failures, _LONGEST_WANTED_PAUSE_S))

    # --- within -----------------------------------------------------------------------------------

    async def _stand(self) -> Connection:
        """Return the connection, waiting until there is one. Raises what makes waiting hopeless."""
        seen = self._attempts
        self._wanted += 1
        self._hurry.set()
        try:
            while self._connection is None:
                if self._hopeless is not None and self._attempts > seen:
                    raise type(self._hopeless)(*self._hopeless.args)
                await self._changed.wait()
            return self._connection
        finally:
            self._wanted -= 1

    async def _attempt(self) -> bool:
        """Try once; if the peer accepts, stay as long as its line stands. Tell whether it did."""
        dialler = self._dialler
        connection = Connection(dialler.channel())
        call: Call = connection.channel.stream_stream(LINE_METHOD)(
            metadata=grpc.aio.Metadata((VERSION_KEY, PROTOCOL_VERSION))
        )
        try:
            try:
                async with asyncio.timeout(_ATTEMPT_S):
                    refusal = await accepted(call)
            except TimeoutError:
                dialler.trouble = f"does not answer at {dialler.address}"
                self._failed(dialler.trouble)
                return False
            if refusal is not None:
                self._hopeless = await dialler.explain(refusal)
                self._failed(dialler.trouble)
                return False
            self._hopeless = None
            dialler.succeeded()
            dialler.trouble = f"was connected at {dialler.address}, but the connection broke"
            self._connection = connection
            self._note_change()
            await self._serve(call)
            return True
        except STREAM_ERRORS as error:
            logger.debug("%s: %s", dialler.label, type(error).__name__)
            return False
        finally:
            self._connection = None
            call.cancel()
            await connection.retire()

    async def _pause(self, failures: int) -> None:
        """Wait before the next attempt, less if somebody wants the peer or comes to want it."""
        longest_s = _LONGEST_WANTED_PAUSE_S if self._wanted else _LONGEST_PAUSE_S
        pause_s = _jitter(failures, longest_s)
        if self._wanted:
            self._hurry.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _note_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _jitter(failures: int, longest_s: float) -> float:
    """Return a pause from zero up to a bound that doubles, so that parties do not dial in step."""
    bound_s = min(_FIRST_PAUSE_S * 2.0 ** min(failures, 16), longest_s)
    return bound_s * secrets.randbelow(1 << 20) / (1 << 20)
