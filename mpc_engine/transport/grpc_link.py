"""The port over gRPC: one mutually authenticated connection and one stream for each pair of parties.

Of two parties the one with the higher number dials, so that one of them needs no open port. A stream
belongs to the party whose pinned certificate opened it; what frames and names say is only compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpc_engine.errors import (
    DeadlineError,
    DocumentError,
    EngineError,
    PeerAbortedError,
    PeerError,
    StoppedError,
)
from mpc_engine.runtime.link import Buffer, Link, MessageKey
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.runtime.traffic import TrafficStats
from mpc_engine.transport import tls
from mpc_engine.transport.channel import Channel
from mpc_engine.transport.control import Abort
from mpc_engine.transport.dial import Dialler
from mpc_engine.transport.options import PROTOCOL_VERSION, SERVER_OPTIONS, SERVICE, VERSION_KEY

logger = logging.getLogger(__name__)

ABORT_TIMEOUT_S = 2.0
"""How long `abort` tries to reach the peers."""

_STOP_GRACE_S = 0.5

_Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True)
class Endpoint:
    """One party of the roster: its number, name, ``host:port`` (if it listens) and certificate in PEM."""

    number: int
    name: str
    address: str
    certificate_pem: bytes


class GrpcLink(Link):
    """Party `me`'s link. `roster` holds every party, itself included; the first `computing` compute.

    `connect_timeout_s` bounds `open`, `round_timeout_s` every wait for a message and the orderly
    close, `max_ahead_bytes` what one peer may send before this party asks for it. Once it listens or
    is open, a link must be closed or aborted, or the process may not end; `connect` sees to that.
    Raises DocumentError for a roster with gaps, with a certificate that may not be pinned or that
    two parties share, or whose entry for `me` is not `identity`.
    """

    def __init__(
        self,
        me: int,
        identity: tls.Identity,
        roster: Sequence[Endpoint],
        *,
        computing: int,
        connect_timeout_s: float = 60.0,
        round_timeout_s: float = 60.0,
        max_ahead_bytes: int = 1 << 28,
    ) -> None:
        self.stats = TrafficStats()
        self._me = me
        self._computing = computing
        self._identity = identity
        self._roster = {endpoint.number: endpoint for endpoint in roster}
        self._certificates = _pinned(roster, me, identity, computing)
        self._peers = tuple(n for n in sorted(self._roster) if n != me and min(n, me) <= computing)
        self._labels = {n: f"party {n} ({self._roster[n].name})" for n in self._peers}
        self._connect_timeout_s = connect_timeout_s
        self._round_timeout_s = round_timeout_s
        self._box = Mailbox(self._labels, round_timeout_s=round_timeout_s, max_ahead_bytes=max_ahead_bytes)
        self._box.on_failure = self._on_failure
        self._channels = {n: Channel(me, n, self._labels[n], self._box) for n in self._peers}
        self._failed = asyncio.Event()
        self._server: grpc.aio.Server | None = None
        self._dialled: list[grpc.aio.Channel] = []
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

    # --- connecting -------------------------------------------------------------------------------

    async def listen(self, address: str) -> int:
        """Accept the peers with higher numbers at ``host:port``; port 0 takes a free one. Returns the port.

        Raises DocumentError if the address is in use or not this machine's.
        """
        callers = [n for n in self._peers if n > self._me]
        if self._server is not None or not callers:
            raise EngineError("this party listens already, or nobody dials it")
        credentials = grpc.ssl_server_credentials(
            [(self._identity.private_key_pem, self._identity.certificate.pem)],
            root_certificates=b"".join(self._certificates[n].pem for n in callers),
            require_client_auth=True,
        )
        server = grpc.aio.server(options=SERVER_OPTIONS)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._accept)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Session": handler})])
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise DocumentError(
                f"cannot listen on {address}: it is in use, or no address of this machine"
            ) from None
        await server.start()
        self._server = server
        return port

    async def open(self, addresses: Mapping[int, str] | None = None) -> None:
        """Connect with every peer: dial those with lower numbers, wait for the others to dial.

        `addresses` replaces addresses of the roster. Peers need not have started yet.
        Raises DeadlineError naming who is missing, PeerError for a peer that is not who the roster
        says, PeerAbortedError if a connected peer gave up. After an error the link is closed.
        """
        book = {n: self._roster[n].address for n in self._peers} | dict(addresses or {})
        diallers = {
            n: Dialler(self._identity, self._certificates[n], book[n], self._labels[n])
            for n in self._peers
            if n < self._me
        }
        if self._server is None and len(diallers) < len(self._peers):
            raise EngineError("this party is dialled by others and must listen first")
        try:
            async with asyncio.timeout(self._connect_timeout_s), asyncio.TaskGroup() as group:
                for number, dialler in diallers.items():
                    group.create_task(self._connect(number, dialler))
                group.create_task(self._wait_for_all())
        except TimeoutError:
            missing = [
                f"{channel.label} {diallers[n].trouble if n in diallers else 'has not dialled'}"
                for n, channel in self._channels.items()
                if not channel.attached.is_set()
            ]
            late = DeadlineError(f"not connected within {self._connect_timeout_s:g} s: {'; '.join(missing)}")
            await self.abort(late.reason, str(late))
            raise late from None
        except BaseException as error:
            cause = _first_cause(error)
            await self.abort(cause.reason, str(cause))
            if isinstance(error, BaseExceptionGroup):
                raise cause from error
            raise

    def bind_session(self, session_id: bytes) -> None:
        """Mark messages sent, and demand of those received, from now on, with this 16-byte session id.

        All parties call it at the same place in their program: after the messages from which the id
        follows, before the next one is asked for.
        """
        self._box.bind_session(session_id)

    # --- the port ---------------------------------------------------------------------------------

    async def send(self, peer: int, key: MessageKey, parts: Sequence[Buffer]) -> None:
        """Send one message; see `Link.send`."""
        self._box.raise_failure()
        if peer not in self._channels:
            raise EngineError(f"there is no channel to party {peer}")
        await self._channels[peer].send(key, parts, self._round_timeout_s)
        self.stats.add(peer, key, sum(memoryview(part).nbytes for part in parts))

    async def receive(self, peer: int, key: MessageKey, size: int) -> memoryview:
        """Wait for a message of exactly `size` bytes; see `Link.receive`."""
        return await self._box.take(peer, key, size)

    async def receive_control(
        self, peer: int, key: MessageKey, limit: int, timeout_s: float | None = None
    ) -> bytes:
        """Wait for a control message of at most `limit` bytes; see `Link.receive_control`."""
        return bytes(await self._box.take(peer, key, limit, exact=False, timeout_s=timeout_s))

    async def abort(self, reason: str, message: str, *, party: str = "", step: str = "") -> None:
        """Tell every peer that this party ends the session, and why; tries for two seconds, never raises.

        `party` names where the trouble began, if not here, and `step` where in the session.
        """
        if self._closing:
            return
        self._closing = True
        abort = Abort(reason=reason, message=message, party=party, step=step)
        for channel in self._channels.values():
            channel.say_abort(abort)
        self._box.fail(PeerAbortedError(f"this party ended the session: {reason}: {message}"))
        await self._finish(ABORT_TIMEOUT_S)

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
            for number, channel in self._channels.items():
                if self._me > self._computing or number <= self._computing:
                    channel.say_goodbye()
            await self._box.goodbyes()
        except EngineError as error:
            await self.abort(error.reason, str(error))
            raise
        self._closing = True
        for channel in self._channels.values():
            channel.say_goodbye()
        await self._finish(self._round_timeout_s)
        self._box.fail(PeerError("this party has closed its link"))

    # --- within -----------------------------------------------------------------------------------

    async def _accept(self, _: AsyncIterator[bytes], context: _Context) -> None:
        """Serve a stream that a peer opened, if its certificate is one that may dial this party."""
        offered = _offered(context)
        number = next((n for n in self._peers if self._certificates[n].fingerprint == offered), 0)
        if number <= self._me:
            logger.warning("a caller with the certificate %s was refused", offered)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown certificate")
        metadata = dict(context.invocation_metadata() or ())
        if metadata.get(VERSION_KEY) != PROTOCOL_VERSION:
            logger.warning("%s speaks another version of the peer protocol", self._labels[number])
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"protocol version {PROTOCOL_VERSION}")
        channel = self._channels[number]
        if channel.attached.is_set():
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "this party is connected already")
        if self._closing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this session has ended")
        channel.attached.set()
        welcome = context.send_initial_metadata(((VERSION_KEY, PROTOCOL_VERSION),))
        # gRPC cancels this task when the connection dies, and prints a traceback if that shows. The
        # channel has taken note of the loss; the task has nothing more to do.
        with suppress(asyncio.CancelledError):
            await channel.run(_Accepted(context), welcome)

    async def _connect(self, number: int, dialler: Dialler) -> None:
        dialled = await dialler.dial(self._box.raise_failure)
        self._dialled.append(dialled.channel)
        reader = asyncio.create_task(self._channels[number].run(dialled.call))
        self._readers.add(reader)
        self._channels[number].attached.set()

    async def _wait_for_all(self) -> None:
        """Wait until every channel has its stream; raises if one of them fails first."""
        attached = asyncio.create_task(_all(channel.attached for channel in self._channels.values()))
        failed = asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait([attached, failed], return_when=asyncio.FIRST_COMPLETED)
            self._box.raise_failure()
        finally:
            attached.cancel()
            failed.cancel()

    async def _finish(self, timeout_s: float) -> None:
        """Wait until the streams are over, at most `timeout_s`, then take everything down."""
        streams = [channel for channel in self._channels.values() if channel.attached.is_set()]
        try:
            async with asyncio.timeout(timeout_s):
                await _all(channel.over for channel in streams)
        except TimeoutError:
            late = ", ".join(channel.label for channel in streams if not channel.over.is_set())
            logger.warning("the streams with %s did not end within %g s and were cut", late, timeout_s)
        finally:
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
            await asyncio.gather(*(channel.close() for channel in self._dialled))
            if self._server is not None:
                await self._server.stop(_STOP_GRACE_S)

    def _on_failure(self) -> None:
        self._failed.set()
        for channel in self._channels.values():
            channel.release()


@asynccontextmanager
async def connect(
    me: int,
    identity: tls.Identity,
    endpoints: Sequence[Endpoint],
    *,
    computing: int,
    listen_address: str | None = None,
    connect_timeout_s: float = 60.0,
    round_timeout_s: float = 60.0,
    max_ahead_bytes: int = 1 << 28,
) -> AsyncIterator[GrpcLink]:
    """Yield an open link; close it in good order, or abort it with the error that leaves the block.

    Raises what `GrpcLink` and its `open` raise.
    """
    link = GrpcLink(
        me,
        identity,
        endpoints,
        computing=computing,
        connect_timeout_s=connect_timeout_s,
        round_timeout_s=round_timeout_s,
        max_ahead_bytes=max_ahead_bytes,
    )
    try:
        if listen_address is not None and any(peer > me for peer in link.peers):
            await link.listen(listen_address)
        await link.open()
        yield link
    except BaseException as error:
        cause = _first_cause(error)
        await link.abort(cause.reason, str(cause))
        raise
    await link.close()


class _Accepted:
    """The listening end of a stream; it is ended by returning from the call, not by half-closing."""

    def __init__(self, context: _Context) -> None:
        self.read = context.read
        self.write = context.write

    async def done_writing(self) -> None:
        """Do nothing."""


def _pinned(
    roster: Sequence[Endpoint], me: int, identity: tls.Identity, computing: int
) -> dict[int, tls.Certificate]:
    """Return the checked certificate of each party; raises DocumentError as `GrpcLink` says."""
    numbers = sorted(endpoint.number for endpoint in roster)
    if numbers != list(range(1, len(numbers) + 1)) or me not in numbers:
        raise DocumentError(f"the roster must number its parties 1, 2, 3, … and hold party {me}")
    if not 1 <= computing <= len(numbers):
        raise DocumentError(f"{computing} of the {len(numbers)} parties of the roster cannot compute")
    found: dict[int, tls.Certificate] = {}
    for endpoint in roster:
        certificate = tls.read_certificate(
            endpoint.certificate_pem, where=f"roster, party {endpoint.number} ({endpoint.name})"
        )
        for number, other in found.items():
            if other.fingerprint == certificate.fingerprint or other.name == certificate.name:
                raise DocumentError(
                    f"roster: the parties {number} and {endpoint.number} have the same certificate or name"
                )
        found[endpoint.number] = certificate
    if found[me].fingerprint != identity.fingerprint:
        raise DocumentError(
            f"the roster has the certificate {found[me].fingerprint} for party {me}, "
            f"which is this party, but its identity is {identity.fingerprint}"
        )
    return found


def _offered(context: _Context) -> str:
    """Return the fingerprint of the leaf certificate that the caller proved to hold the key of."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
    try:
        return tls.fingerprint(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    except ValueError:
        return "none"


def _first_cause(error: BaseException) -> EngineError:
    """Return what to tell the peers: the first engine error in `error`, or that it was something else."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, BaseExceptionGroup):
        causes = error.split(EngineError)[0]
        if causes is not None:
            return _first_cause(causes.exceptions[0])
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return StoppedError("this party was stopped")
    return EngineError("an unexpected error")


async def _all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        await event.wait()
