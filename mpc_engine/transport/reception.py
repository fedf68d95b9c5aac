"""The peer port: one server that knows its callers by the fingerprints of their certificates.

Names, in certificates or in calls, decide nothing. A certificate that is not trusted fails the handshake,
of which gRPC tells this side nothing but that a connection was begun: those that come to nothing are counted
under HANDSHAKE. A certificate that has ceased to be trusted since its connection was made is refused here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpc_engine.errors import DocumentError
from mpc_engine.identity.certificates import fingerprint
from mpc_engine.runtime.switchboard import NAME_BYTES
from mpc_engine.transport.arrivals import Arrivals
from mpc_engine.transport.options import (
    LINK_KEY,
    PROBE_KEY,
    PROTOCOL_VERSION,
    SERVER_OPTIONS,
    SERVICE,
    VERSION_KEY,
    is_bloated,
)
from mpc_engine.transport.pins import Pins
from mpc_engine.transport.refusal import MALFORMED, OTHER_VERSION, STOPPING, TOO_LARGE, UNKNOWN, RefusedError

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0
"""The same refusal is logged at most so often."""
_HANDSHAKE_S = 12.0
"""By then a connection has come to a call or to nothing; the server's limit for handshakes is 10 s."""
_REMEMBERED = 256
"""So many connections are told apart by their addresses."""
_NAME = re.compile(rf"[0-9a-f]{{{2 * NAME_BYTES}}}\Z")

_Context = grpc.aio.ServicerContext[bytes, bytes]


class AcceptedStream:
    """The listening end of a stream; it is ended by returning from the call, not by half-closing."""

    def __init__(self, context: _Context) -> None:
        self.read = context.read
        self.write = context.write

    async def done_writing(self) -> None:
        """Do nothing."""


class Reception:
    """Accepts the callers of `pins`: hands their lines to `serve`, their sessions' streams to `arrivals`.

    Lines that are only tried go to `serve_probe`.
    """

    def __init__(
        self,
        pins: Pins,
        arrivals: Arrivals,
        serve: Callable[[int, str, AcceptedStream], Awaitable[None]],
        serve_probe: Callable[[int, AcceptedStream], Awaitable[None]],
    ) -> None:
        self.pins = pins
        """May be replaced; the next connection and the next stream see it."""
        self.refusals: Counter[str] = Counter()
        """How many streams were refused, by reason; connections that came to nothing as HANDSHAKE."""
        self._arrivals = arrivals
        self._serve = serve
        self._serve_probe = serve_probe
        self._server: grpc.aio.Server | None = None
        self._offered: Pins | None = None
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = 0  # connections since the last look
        self._served = 0  # those of them, about, that came to a call
        self._callers: dict[str, None] = {}  # addresses of connections, the last used last
        self._look: asyncio.TimerHandle | None = None
        self._logged: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    async def start(self, address: str) -> int:
        """Listen at ``host:port``; port 0 takes a free one. Returns the port.

        Raises DocumentError if the address is in use or not this machine's.
        """
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Line": grpc.stream_stream_rpc_method_handler(self._line),
            "Session": grpc.stream_stream_rpc_method_handler(self._session),
        }
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self._offered = self.pins
        self._loop = asyncio.get_running_loop()
        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self.pins),
            self._renewed,  # type: ignore[arg-type]  # None, for no change, is missing in the stubs
            require_client_authentication=True,
        )
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise DocumentError(
                f"cannot listen on {address}: it is in use, or no address of this machine"
            ) from None
        await server.start()
        self._server = server
        return port

    def refuse(self) -> None:
        """Refuse every new stream from now on."""
        self._stopping = True
        self._arrivals.stop()

    async def stop(self, grace_s: float) -> None:
        """Give what runs `grace_s` to end, then end it, and free the address."""
        self.refuse()
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None
        self._loop = None
        if self._look is not None:
            self._look.cancel()

    # --- within -----------------------------------------------------------------------------------

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates for the next handshake if they have changed. gRPC's threads call this."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self._note_begun)
        pins = self.pins
        if pins is self._offered:
            return None
        self._offered = pins
        return _configuration(pins)

    def _note_begun(self) -> None:
        self._begun += 1
        if self._look is None and self._loop is not None:
            self._look = self._loop.call_later(_HANDSHAKE_S, self._count_fruitless)

    def _note_served(self, address: str) -> None:
        if address in self._callers:
            del self._callers[address]
        else:
            self._served += 1
        self._callers[address] = None
        if len(self._callers) > _REMEMBERED:
            del self._callers[next(iter(self._callers))]

    def _count_fruitless(self) -> None:
        """Count the connections that never came to a call. One just begun may be counted early."""
        self._look = None
        fruitless = max(0, self._begun - self._served)
        self._begun = self._served = 0
        if fruitless:
            self.refusals["HANDSHAKE"] += fruitless
            logger.warning(
                "%d connections to the peer port ended in the handshake: their callers' certificates are not "
                "trusted for a party that dials this one, or they were no parties",
                fruitless,
            )

    async def _line(self, _: AsyncIterator[bytes], context: _Context) -> None:
        """Serve a peer's line."""
        try:
            number, offered = self._admit(context)
        except RefusedError as error:
            await self._turn_away(context, error)
            return
        # gRPC cancels this task when the connection dies, and prints a traceback if that shows. Who
        # serves the stream takes note of the loss; the task has nothing more to do.
        with suppress(asyncio.CancelledError):
            await context.send_initial_metadata(((VERSION_KEY, PROTOCOL_VERSION),))
            if _metadata(context, PROBE_KEY):
                await self._serve_probe(number, AcceptedStream(context))
            else:
                await self._serve(number, offered, AcceptedStream(context))

    async def _session(self, _: AsyncIterator[bytes], context: _Context) -> None:
        """Serve a stream of a session, once this party opens that session too."""
        with suppress(asyncio.CancelledError):
            try:
                number, _offered = self._admit(context)
                channel = await self._arrivals.announce(number, _name(context))
            except RefusedError as error:
                await self._turn_away(context, error)
                return
            welcome = context.send_initial_metadata(((VERSION_KEY, PROTOCOL_VERSION),))
            await channel.run(AcceptedStream(context), welcome)

    def _admit(self, context: _Context) -> tuple[int, str]:
        """Return the caller's number and fingerprint. Raises RefusedError."""
        self._note_served(context.peer())
        offered = _fingerprint(context)
        number = self.pins.caller(offered)
        if number is None:
            raise RefusedError(UNKNOWN, f"the certificate {offered} is none of its callers'")
        if is_bloated(context.invocation_metadata()):
            raise RefusedError(TOO_LARGE, "a call comes with far less metadata")
        version = _metadata(context, VERSION_KEY)
        if version != PROTOCOL_VERSION:
            words = f"it speaks version {PROTOCOL_VERSION} of the peer protocol"
            raise RefusedError(OTHER_VERSION, words)
        if self._stopping:
            raise RefusedError(STOPPING, "it is shutting down")
        return number, offered

    async def _turn_away(self, context: _Context, error: RefusedError) -> None:
        refusal = error.refusal
        self.refusals[refusal.reason] += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(refusal.reason, -_LOG_EVERY_S) >= _LOG_EVERY_S:
            offered = _fingerprint(context)
            number = self.pins.caller(offered)
            who = "an unknown caller" if number is None else self.pins.labels[number]
            left_out = self._unlogged.pop(refusal.reason, 0)
            more = f" ({left_out} more since the last such line)" if left_out else ""
            logger.warning("refused %s with the certificate %s: %s%s", who, offered, refusal.details, more)
            self._logged[refusal.reason] = now
        else:
            self._unlogged[refusal.reason] += 1
        await context.abort(refusal.code, refusal.details)


def _configuration(pins: Pins) -> grpc.ServerCertificateConfiguration:
    identity = pins.identity
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_key_pem, identity.certificate.pem)], root_certificates=pins.roots()
    )


def _fingerprint(context: _Context) -> str:
    """Return the fingerprint of the leaf certificate that the caller proved to hold the key of."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
    try:
        return fingerprint(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    except ValueError:
        return "none"


def _metadata(context: _Context, key: str) -> str:
    value = dict(context.invocation_metadata() or ()).get(key, "")
    return value if isinstance(value, str) else ""


def _name(context: _Context) -> bytes:
    text = _metadata(context, LINK_KEY)
    if not _NAME.match(text):
        raise RefusedError(MALFORMED, f"a session's stream has a name of {NAME_BYTES} bytes")
    return bytes.fromhex(text)
