"""Streams of sessions that peers opened before this party did, and links that wait for their peers' streams.

Whichever comes first waits for the other, each for a bounded time; and only so many streams of one peer.
"""

from __future__ import annotations

import asyncio

from mpc_engine.transport.channel import Channel
from mpc_engine.transport.refusal import NOT_OPENED, REPLACED, STOPPING, TOO_MANY, RefusedError

MOST_WAITING = 16
"""How many streams of one peer may wait at a time."""

_Place = tuple[int, bytes]


class Arrivals:
    """Brings arriving streams and waiting links together; a stream waits at most `patience_s`."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._streams: dict[_Place, asyncio.Future[Channel]] = {}
        self._claims: dict[_Place, Channel] = {}
        self._stopping = False

    async def announce(self, peer: int, name: bytes) -> Channel:
        """Return the channel that the stream of `peer` named `name` belongs to, once this party opens it.

        Of two waiting streams of one name the newer stays. Raises RefusedError.
        """
        if self._stopping:
            raise RefusedError(STOPPING, "it is shutting down")
        place = (peer, name)
        channel = self._claims.pop(place, None)
        if channel is not None:
            return channel
        older = self._streams.pop(place, None)
        if older is not None and not older.done():
            older.set_exception(RefusedError(REPLACED, "a newer stream has taken the place of this one"))
        if sum(waiting == peer for waiting, _ in self._streams) >= MOST_WAITING:
            words = f"{MOST_WAITING} sessions wait already that it has not opened"
            raise RefusedError(TOO_MANY, words)
        stream: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._streams[place] = stream
        try:
            async with asyncio.timeout(self._patience_s):
                return await stream
        except TimeoutError:
            words = f"it did not open the session within {self._patience_s:g} s"
            raise RefusedError(NOT_OPENED, words) from None
        except asyncio.CancelledError:
            # The stream died in the moment in which it was claimed: the link waits on, for another.
            if stream.done() and not stream.cancelled() and stream.exception() is None:
                self.claim(peer, name, stream.result())
            raise
        finally:
            if self._streams.get(place) is stream:
                del self._streams[place]

    def claim(self, peer: int, name: bytes, channel: Channel) -> None:
        """Give the stream of `peer` named `name` to `channel`, now or when it comes."""
        place = (peer, name)
        stream = self._streams.pop(place, None)
        if stream is not None and not stream.done():
            stream.set_result(channel)
        else:
            self._claims[place] = channel

    def withdraw(self, name: bytes) -> None:
        """Forget what is claimed under `name`."""
        for place in [place for place in self._claims if place[1] == name]:
            del self._claims[place]

    def stop(self) -> None:
        """Refuse the streams that wait, and all that come."""
        self._stopping = True
        for stream in self._streams.values():
            if not stream.done():
                stream.set_exception(RefusedError(STOPPING, "it is shutting down"))
