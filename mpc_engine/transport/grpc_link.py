"""The link of one session over gRPC: a stream with each peer, handed in by the switchboard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from mpc_engine.errors import EngineError, PeerAbortedError, PeerError, StoppedError
from mpc_engine.runtime.link import Buffer, Link, MessageKey
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.runtime.traffic import TrafficStats
from mpc_engine.transport.channel import Channel, Stream
from mpc_engine.transport.control import Abort
from mpc_engine.transport.standing import Flow

logger = logging.getLogger(__name__)

ABORT_TIMEOUT_S = 2.0
"""How long `abort` tries to reach the peers."""


class GrpcLink(Link):
    """Party `me`'s link with the peers that `labels` names for errors; parties 1..`computing` compute.

    `round_timeout_s` bounds every wait for a message and the orderly close, `max_ahead_bytes` what one peer
    may send before this party asks for it. A link must be closed or aborted; until then its streams run.
    """

    def __init__(
        self,
        me: int,
        labels: Mapping[int, str],
        *,
        computing: int,
        round_timeout_s: float,
        max_ahead_bytes: int,
        flows: Mapping[int, Flow],
    ) -> None:
        self.stats = TrafficStats()
        self._me = me
        self._computing = computing
        self._peers = tuple(sorted(labels))
        self._round_timeout_s = round_timeout_s
        self._box = Mailbox(labels, round_timeout_s=round_timeout_s, max_ahead_bytes=max_ahead_bytes)
        self._box.on_failure = self._on_failure
        self.channels: Mapping[int, Channel] = {
            n: Channel(me, n, labels[n], self._box, flows[n]) for n in self._peers
        }
        """What a peer's stream is to be given to."""
        self._failed = asyncio.Event()
        self._readers: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def me(self) -> int:
        """This party's number."""
        return self._me

    @property
    def peers(self) -> tuple[int, ...]:
        """Numbers of the parties this link is connected to."""
        return self._peers

    # --- streams ----------------------------------------------------------------------------------

    def carry(self, peer: int, stream: Stream, ended: Callable[[], Awaitable[None]]) -> None:
        """Serve a dialled stream until it ends, in a task of the link's own; then await `ended`."""
        self.channels[peer].attached.set()
        self._readers.add(asyncio.create_task(self._read(self.channels[peer], stream, ended)))

    async def complete(self) -> None:
        """Wait until every peer has its stream; raises what ends the session before that."""
        attached = asyncio.create_task(_all(channel.attached for channel in self.channels.values()))
        failed = asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait([attached, failed], return_when=asyncio.FIRST_COMPLETED)
            self._box.raise_failure()
        finally:
            attached.cancel()
            failed.cancel()

    # --- the port ---------------------------------------------------------------------------------

    def bind_session(self, session_id: bytes) -> None:
        """Mark messages sent, and demand of those received, from now on, with this 16-byte session id.

        All parties call it after the messages from which the id follows. What a peer sent before it did so is
        asked for as `unbound`.
        """
        self._box.bind_session(session_id)

    async def send(self, peer: int, key: MessageKey, parts: Sequence[Buffer]) -> None:
        """Send one message; see `Link.send`."""
        self._box.raise_failure()
        if peer not in self.channels:
            raise EngineError(f"there is no channel to party {peer}")
        await self.channels[peer].send(key, parts, self._round_timeout_s)
        self.stats.add(peer, key, sum(memoryview(part).nbytes for part in parts))

    async def receive(self, peer: int, key: MessageKey, size: int) -> memoryview:
        """Wait for a message of exactly `size` bytes; see `Link.receive`."""
        return await self._box.take(peer, key, size)

    async def receive_control(
        self, peer: int, key: MessageKey, limit: int, timeout_s: float | None = None, *, unbound: bool = False
    ) -> bytes:
        """Wait for a control message of at most `limit` bytes; see `Link.receive_control`."""
        taken = self._box.take(peer, key, limit, exact=False, timeout_s=timeout_s, unbound=unbound)
        return bytes(await taken)

    async def abort(self, reason: str, message: str, *, party: str = "", step: str = "") -> None:
        """Tell every peer that this party ends the session, and why; tries for two seconds, never raises.

        `party` names where the trouble began, if not here, and `step` where in the session.
        """
        if self._closing:
            return
        self._closing = True
        abort = Abort(reason=reason, message=message, party=party, step=step)
        for channel in self.channels.values():
            channel.say_abort(abort)
        self._box.fail(PeerAbortedError(f"this party ended the session: {reason}: {message}", reason))
        await self._finish(ABORT_TIMEOUT_S)

    async def stop(self) -> None:
        """End the session because this party shuts down: waits here raise StoppedError, peers are told."""
        error = StoppedError("this party was stopped")
        self._box.fail(error)
        await self.abort(error.reason, str(error))

    async def close(self) -> None:
        """End in good order; never raises."""
        with suppress(EngineError):
            await self.finish()

    async def finish(self) -> None:
        """Say goodbye and wait, within the round's deadline, for every peer's; see `Link.finish`."""
        if self._closing:
            return
        try:
            self._box.raise_failure()
            for number, channel in self.channels.items():
                if self._me > self._computing or number <= self._computing:
                    channel.say_goodbye()
            await self._box.goodbyes()
        except EngineError as error:
            await self.abort(error.reason, str(error))
            raise
        self._closing = True
        for channel in self.channels.values():
            channel.say_goodbye()
        await self._finish(self._round_timeout_s)
        self._box.fail(PeerError("this party has closed its link"))

    # --- within -----------------------------------------------------------------------------------

    async def _finish(self, timeout_s: float) -> None:
        """Wait until the streams are over, at most `timeout_s`, then cut those that are not."""
        streams = [channel for channel in self.channels.values() if channel.attached.is_set()]
        try:
            async with asyncio.timeout(timeout_s):
                await _all(channel.over for channel in streams)
        except TimeoutError:
            late = ", ".join(channel.label for channel in streams if not channel.over.is_set())
            logger.warning("the streams with %s did not end within %g s and were cut", late, timeout_s)
        finally:
            for channel in streams:
                channel.cut()
            await asyncio.gather(*self._readers, return_exceptions=True)
            await _all(channel.over for channel in streams)

    @staticmethod
    async def _read(channel: Channel, stream: Stream, ended: Callable[[], Awaitable[None]]) -> None:
        try:
            await channel.run(stream)
        finally:
            await ended()

    def _on_failure(self) -> None:
        self._failed.set()
        for channel in self.channels.values():
            channel.release()


async def _all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        await event.wait()
