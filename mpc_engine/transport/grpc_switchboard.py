"""The switchboard over gRPC with mutual TLS: one standing connection with each peer.

A connection carries one line and the streams of any number of sessions, which share nothing else. A
stream belongs to the party one of whose trusted certificates opened it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from mpc_engine.errors import DeadlineError, DocumentError, EngineError, StoppedError
from mpc_engine.identity.certificates import Clock, utc_now
from mpc_engine.identity.folder import Identity
from mpc_engine.runtime.endings import first_cause
from mpc_engine.runtime.switchboard import NAME_BYTES, Listener, Switchboard
from mpc_engine.transport.arrivals import Arrivals
from mpc_engine.transport.channel import Stream
from mpc_engine.transport.dial import Call, Dialler
from mpc_engine.transport.endpoint import Endpoint
from mpc_engine.transport.grpc_link import GrpcLink
from mpc_engine.transport.line import Heartbeat, Line
from mpc_engine.transport.pins import Pins
from mpc_engine.transport.reception import AcceptedStream, Reception
from mpc_engine.transport.route import Route
from mpc_engine.transport.standing import PeerStats, Standing

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""How long a session's stream waits for this party to open the session."""
ONE_OFF = bytes(NAME_BYTES)
"""The name of the only link of parties that run once."""
_BYE_S = 1.5
"""How long lines are given to end in good order."""
_STOP_GRACE_S = 0.5
_PROBE_S = 10.0
"""How long a line that is only tried may stand."""


class GrpcSwitchboard(Switchboard):
    """Party `me`'s lines and links. `endpoints` holds every party; the first `computing` compute.

    `listen` is the ``host:port`` of the peer port, needed where peers dial this party; `clock` tells wall
    clock time, for certificates and for comparing clocks. Once started it must be stopped, or the process
    may not end. Raises DocumentError as `Pins` does.
    """

    def __init__(
        self,
        me: int,
        identity: Identity,
        endpoints: Sequence[Endpoint],
        *,
        computing: int,
        listen: str | None,
        clock: Clock = utc_now,
        heartbeat: Heartbeat | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._pins = Pins(me, identity, endpoints, computing=computing)
        if self._pins.callers and listen is None:
            raise DocumentError(f"party {me} is dialled by others and needs an address to listen on")
        self._me = me
        self._computing = computing
        self._listen = listen
        self._clock = clock
        self._heartbeat = Heartbeat() if heartbeat is None else heartbeat
        self._arrivals = Arrivals(patience_s)
        self._reception = Reception(self._pins, self._arrivals, self._serve_accepted, self._serve_probe)
        self._standings = {n: Standing(clock) for n in self._pins.peers}
        self._lines: dict[int, Line] = {}
        self._callers_with: dict[int, str] = {}
        self._routes: dict[int, Route] = {}
        self._dialling: set[asyncio.Task[None]] = set()
        self._links: dict[bytes, GrpcLink] = {}
        self._listener: Listener | None = None
        self._stopping = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.port: int | None = None
        """The port it listens on, once started."""

    @property
    def me(self) -> int:
        """This party's number."""
        return self._me

    @property
    def peers(self) -> tuple[int, ...]:
        """The parties it has lines and links with."""
        return self._pins.peers

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many streams of callers were refused since the start, by reason."""
        return dict(self._reception.refusals)

    def connected(self, peer: int) -> bool:
        """Tell whether the line with a peer stands."""
        return peer in self._lines

    def stats(self) -> dict[int, PeerStats]:
        """Return how the connection with each peer stands now."""
        return {n: standing.stats() for n, standing in self._standings.items()}

    async def start(self, listener: Listener) -> None:
        """Begin to accept, dial and tell the listener; see `Switchboard.start`."""
        if self._listener is not None:
            raise EngineError("a switchboard is started once")
        self._listener = listener
        if self._pins.callers and self._listen is not None:
            self.port = await self._reception.start(self._listen)
        for n in self._pins.dialled:
            route = Route(self._dialler(n), self._dialled_server(n), self._noting_failure(n))
            self._routes[n] = route
            self._dialling.add(asyncio.create_task(route.run()))

    def say(self, peer: int, message: bytes) -> bool:
        """Queue a message for a peer; see `Switchboard.say`. Raises EngineError if it is too long."""
        line = self._lines.get(peer)
        return line is not None and line.say(message)

    def replace(self, endpoints: Sequence[Endpoint], identity: Identity | None = None) -> None:
        """Trust the certificates, and dial the addresses, of `endpoints` from now on; no restart is needed.

        `identity` is this party's new one, if it changes too. Links that run go on, and so do lines, unless
        their peer's certificate is no longer trusted, or the address or identity to dial with changed: then
        the line breaks and is made again. Raises DocumentError, and changes nothing, if anything else of
        the roster changed, or as `Pins` does.
        """
        old = self._pins
        new = Pins(self._me, identity or old.identity, endpoints, computing=self._computing)
        old.check_successor(new)
        self._pins = self._reception.pins = new
        for n, route in self._routes.items():
            route.renew(self._dialler(n))
            kept = old.endpoints[n].address == new.endpoints[n].address and old.identity == new.identity
            # Which of its certificates a dialled peer presented is not known.
            if not kept or not set(old.certificates[n]) <= set(new.certificates[n]):
                self._cut_line(n, "the trusted certificates changed")
        for n, offered in self._callers_with.items():
            if new.caller(offered) is None:
                self._cut_line(n, "its certificate is no longer trusted")

    def link(
        self,
        name: bytes,
        *,
        connect_timeout_s: float,
        round_timeout_s: float,
        max_ahead_bytes: int,
    ) -> AbstractAsyncContextManager[GrpcLink]:
        """Open a link with all peers under a name of 32 bytes; see `Switchboard.link`.

        Entering raises DeadlineError naming who is missing and why, PeerError for a peer that is not who the
        roster says, PeerAbortedError with the reason of a peer that refuses or gave up, StoppedError once
        this party is being stopped.
        """
        return self._link(bytes(name), connect_timeout_s, round_timeout_s, max_ahead_bytes)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, end links and lines, and free the address; never raises.

        Peers are told in links (at most 2 s) and lines; what still runs after `grace_s` is cut.
        """
        if self._stopping:
            return
        self._stopping = True
        self._reception.refuse()
        await asyncio.gather(*(link.stop() for link in self._links.values()))
        for line in self._lines.values():
            line.bye("it is shutting down")
        with suppress(TimeoutError):
            async with asyncio.timeout(min(grace_s, _BYE_S)):
                await self._quiet.wait()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        await self._reception.stop(grace_s)

    # --- lines ------------------------------------------------------------------------------------

    async def _serve_accepted(self, peer: int, offered: str, stream: AcceptedStream) -> None:
        self._callers_with[peer] = offered
        await self._serve(peer, stream)

    async def _serve_probe(self, peer: int, stream: AcceptedStream) -> None:
        """Answer heartbeats for a moment, beside the peer's line."""
        standing = Standing(self._clock)
        heartbeat = Heartbeat(_PROBE_S, _PROBE_S)
        line = Line(self._pins.labels[peer], standing, lambda _: None, clock=self._clock, heartbeat=heartbeat)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_S):
                await line.run(stream)

    async def _serve(self, peer: int, stream: Stream) -> None:
        """Make `stream` the line with `peer`, in place of any older one, until it ends."""
        if self._stopping:
            return
        # Of a connection that broke unseen there may still be a line: the peer knows better.
        self._cut_line(peer, "a newer connection has taken its place")
        standing = self._standings[peer]
        line = Line(
            self._pins.labels[peer],
            standing,
            lambda message: self._tell(lambda listener: listener.heard(peer, message)),
            clock=self._clock,
            heartbeat=self._heartbeat,
        )
        self._lines[peer] = line
        self._quiet.clear()
        standing.up()
        logger.info("the line with %s is up", self._pins.labels[peer])
        self._tell(lambda listener: listener.line_up(peer))
        why = "the connection was cut"
        try:
            why = await line.run(stream)
        finally:
            if self._lines.get(peer) is line:
                self._line_ended(peer, why)

    def _cut_line(self, peer: int, why: str) -> None:
        line = self._lines.get(peer)
        if line is not None:
            self._line_ended(peer, why)
            line.cut(why)

    def _line_ended(self, peer: int, why: str) -> None:
        del self._lines[peer]
        if not self._lines:
            self._quiet.set()
        self._standings[peer].down(why)
        logger.info("the line with %s is down: %s", self._pins.labels[peer], why)
        self._tell(lambda listener: listener.line_down(peer, why))

    def _tell(self, say: Callable[[Listener], None]) -> None:
        if self._listener is not None:
            try:
                say(self._listener)
            except Exception as error:  # a listener may not raise; if one does, the line must not suffer
                logger.error("the party failed to take note of its line: %s", type(error).__name__)

    def _dialler(self, peer: int) -> Dialler:
        pins = self._pins
        address = pins.endpoints[peer].address
        return Dialler(pins.identity, pins.certificates[peer], address, pins.labels[peer], self._clock)

    def _dialled_server(self, peer: int) -> Callable[[Call], Awaitable[None]]:
        return lambda call: self._serve(peer, call)

    def _noting_failure(self, peer: int) -> Callable[[str], None]:
        def note(why: str) -> None:
            self._standings[peer].last_error = why

        return note

    # --- links ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _link(
        self, name: bytes, connect_timeout_s: float, round_timeout_s: float, max_ahead_bytes: int
    ) -> AsyncIterator[GrpcLink]:
        if len(name) != NAME_BYTES or name in self._links:
            raise EngineError(f"a link's name has {NAME_BYTES} bytes, and only one link at a time has it")
        if self._listener is None or self._stopping:
            raise StoppedError("this party's connections are not running")
        link = GrpcLink(
            self._me,
            {n: self._pins.labels[n] for n in self.peers},
            computing=self._computing,
            round_timeout_s=round_timeout_s,
            max_ahead_bytes=max_ahead_bytes,
            flows={n: self._standings[n].flow for n in self.peers},
        )
        self._links[name] = link
        try:
            await self._open(link, name, connect_timeout_s)
            yield link
        except BaseException as error:
            cause = first_cause(error)
            await link.abort(cause.reason, str(cause))
            raise
        else:
            await link.close()
        finally:
            del self._links[name]

    async def _open(self, link: GrpcLink, name: bytes, timeout_s: float) -> None:
        """Bring the link's streams together. Raises what makes that impossible."""
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                for n in self.peers:
                    if n in self._routes:
                        group.create_task(self._dial(link, name, n))
                    else:
                        self._arrivals.claim(n, name, link.channels[n])
                group.create_task(link.complete())
        except TimeoutError:
            missing = [
                f"{channel.label} {self._absence(n)}"
                for n, channel in link.channels.items()
                if not channel.attached.is_set()
            ]
            raise DeadlineError(f"not connected within {timeout_s:g} s: {'; '.join(missing)}") from None
        except BaseExceptionGroup as errors:
            raise first_cause(errors) from errors
        finally:
            self._arrivals.withdraw(name)

    async def _dial(self, link: GrpcLink, name: bytes, peer: int) -> None:
        connection, call = await self._routes[peer].open(name)

        async def ended() -> None:
            call.cancel()
            await connection.leave()

        link.carry(peer, call, ended)

    def _absence(self, peer: int) -> str:
        if self.connected(peer):
            return "has not opened the session"
        return self._routes[peer].trouble if peer in self._routes else "has not dialled"


class _NoListener:
    """Listens to the lines of a party that says nothing over them."""

    def line_up(self, peer: int) -> None:
        """Do nothing."""

    def line_down(self, peer: int, why: str) -> None:
        """Do nothing."""

    def heard(self, peer: int, message: bytes) -> None:
        """Do nothing."""


@asynccontextmanager
async def connect(
    me: int,
    identity: Identity,
    endpoints: Sequence[Endpoint],
    *,
    computing: int,
    listen_address: str | None = None,
    connect_timeout_s: float = 60.0,
    round_timeout_s: float = 60.0,
    max_ahead_bytes: int = 1 << 28,
) -> AsyncIterator[GrpcLink]:
    """Yield the one link of a switchboard of its own, which ends with it: for a party that runs once.

    All parties of the release use this. Raises what `GrpcSwitchboard`, its `start` and its `link` raise.
    """
    board = GrpcSwitchboard(
        me,
        identity,
        endpoints,
        computing=computing,
        listen=listen_address,
        patience_s=connect_timeout_s,
    )
    try:
        await board.start(_NoListener())
        async with board.link(
            ONE_OFF,
            connect_timeout_s=connect_timeout_s,
            round_timeout_s=round_timeout_s,
            max_ahead_bytes=max_ahead_bytes,
        ) as link:
            yield link
    finally:
        await board.stop(_STOP_GRACE_S)
