"""The port on which a party serves analysts: a server of its own, with quotas for each of them.

Only enrolled certificates complete the handshake, and every call is checked again by the fingerprint of
its certificate, so that revoking one takes effect on connections that are open. What a call means is the
business of the handler, which gets and returns bytes; nobody's flood reaches another analyst's quota, and
peers and health have servers of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import grpc
import grpc.aio

from mpc_engine.errors import (
    DeadlineError,
    DocumentError,
    EngineError,
    RateLimitError,
    StoppedError,
    TooLargeError,
    UnknownCertificateError,
)
from mpc_engine.identity.folder import Identity
from mpc_engine.transport.analyst_methods import CHUNK_BYTES, METHODS, PORT_OPTIONS, SERVICE, Method
from mpc_engine.transport.failures import RETRY_AFTER, status_of
from mpc_engine.transport.options import is_bloated

logger = logging.getLogger(__name__)

Handle = Callable[[str, str, bytes], Awaitable[bytes]]
"""Answers a call: the fingerprint of the analyst's certificate, the method's name and its message."""
Trusted = Callable[[], Mapping[str, bytes]]
"""Returns the certificates of enrolled analysts, PEM by fingerprint."""

MOST_CALLS: Final = 8
"""Calls that one analyst may have under way."""
BURST: Final = 20
"""Calls that one analyst may make at once after a rest."""
CALLS_PER_S: Final = 5.0
"""Calls per second that one analyst may make for long."""
_GONE: Final = (grpc.aio.InternalError, grpc.aio.UsageError, grpc.aio.AioRpcError)
"""What reading and writing raise when the caller is gone."""
_MESSAGE_S: Final = 10.0
"""How long a caller may take to send its message."""


class _RefusedError(Exception):
    """A call is refused with this failure and these metadata."""

    def __init__(self, failure: EngineError, **metadata: str) -> None:
        super().__init__(failure)
        self.failure, self.metadata = failure, metadata


class Quota:
    """What one analyst may still do: a bucket of calls that fills up with time, and calls under way."""

    def __init__(self, now: float, burst: int, per_s: float, most: int) -> None:
        self._left, self._at = float(burst), now
        self._burst, self._per_s, self._most = burst, per_s, most
        self._running: Counter[str] = Counter()

    @contextmanager
    def taken(self, method: Method, now: float) -> Iterator[None]:
        """Count one call while it runs. Raises a refusal that says when to try again."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            raise _slower("more calls in so short a time", (1 - self._left) / self._per_s)
        self._left -= 1
        if self._running.total() >= self._most:
            raise _slower(f"more than {self._most} calls at a time", 1.0)
        if self._running[method.name] >= method.at_once:
            raise _slower(f"more than {method.at_once} calls of {method.name} at a time", 1.0)
        self._running[method.name] += 1
        try:
            yield
        finally:
            self._running[method.name] -= 1


def _slower(what: str, wait_s: float) -> _RefusedError:
    seconds = max(1, math.ceil(wait_s))
    message = f"{what} than are served to one analyst; try again in {seconds} s"
    return _RefusedError(RateLimitError(message), **{RETRY_AFTER: str(seconds)})


class AnalystServer:
    """Serves analysts at ``address`` (host:port, port 0 for a free one) as ``identity``.

    Args:
        trusted: the enrolled analysts' certificates; read when the server starts and at :meth:`reload`.
        handle: answers calls; an EngineError that it raises is told to the caller, and of anything else
            the name of its class alone.
        clock: seconds that only grow, for quotas; by default those of the event loop.
        burst, per_s, most: the quota of each analyst.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        *,
        trusted: Trusted,
        handle: Handle,
        clock: Callable[[], float] | None = None,
        burst: int = BURST,
        per_s: float = CALLS_PER_S,
        most: int = MOST_CALLS,
    ) -> None:
        self._address, self._identity = address, identity
        self._read_trusted, self._handle = trusted, handle
        self._clock = clock
        self._burst, self._per_s, self._most = burst, per_s, most
        self._trusted: Mapping[str, bytes] = {}
        self._quotas: dict[str, Quota] = {}
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        self._server: grpc.aio.Server | None = None
        self._begun: set[asyncio.Task[bytes]] = set()
        self._stopping = False
        self.refused: Counter[str] = Counter()
        """Calls that ended with a failure, by its reason."""

    async def start(self) -> int:
        """Listen, and return the port. Raises DocumentError if it is taken or no address."""
        self.reload()
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._take_fresh,  # type: ignore[arg-type]  # gRPC takes None for no change
            require_client_authentication=True,
        )
        server = grpc.aio.server(options=PORT_OPTIONS)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {name: self._handler(name) for name in METHODS}),)
        )
        try:
            port = server.add_secure_port(self._address, credentials)
        except RuntimeError:
            raise DocumentError(
                f"cannot listen on {self._address} for analysts: it is in use, or no address of this machine"
            ) from None
        await server.start()
        self._server = server
        return port

    async def stop(self, grace: float) -> None:
        """Take no further call, give those under way ``grace`` seconds, and finish what changes state."""
        self._stopping = True
        if self._server is not None:
            await self._server.stop(grace)
        if self._begun:
            await asyncio.wait(self._begun)

    def reload(self) -> None:
        """Read the enrolled analysts again; a revoked one is refused from now on, in open connections too."""
        self._trusted = dict(self._read_trusted())
        self._quotas = {name: quota for name, quota in self._quotas.items() if name in self._trusted}
        self._fresh = self._configuration()

    # --- the connection ---------------------------------------------------------------------------

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        # The party's own certificate is a root too, for gRPC wants at least one; as a caller it is unknown.
        own = self._identity.certificate.pem
        return grpc.ssl_server_certificate_configuration(
            [(self._identity.private_key_pem, own)],
            root_certificates=b"".join([own, *self._trusted.values()]),
        )

    def _take_fresh(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates for the next handshake, None if they are as before; called by gRPC."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def _caller(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
        offered: Any = context.auth_context().get("x509_pem_cert", ())
        if len(offered) != 1:
            raise _RefusedError(UnknownCertificateError("the caller presents no certificate"))
        der = ssl.PEM_cert_to_DER_cert(offered[0].decode("ascii"))
        caller = "sha256:" + hashlib.sha256(der).hexdigest()
        self._check_enrolled(caller)
        return caller

    def _check_enrolled(self, caller: str) -> None:
        if caller not in self._trusted:
            logger.info("a call with a certificate that is not enrolled: %s", caller)
            raise _RefusedError(UnknownCertificateError(f"the certificate {caller} is not enrolled here"))

    # --- calls ------------------------------------------------------------------------------------

    def _handler(self, name: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = METHODS[name]

        async def serve(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            try:
                await self._serve(method, context)
            except _RefusedError as refusal:
                failure, metadata = refusal.failure, refusal.metadata
                with suppress(EngineError, *_GONE):
                    # Who is refused while still sending would be told of a broken connection instead.
                    await _message(context)
            except EngineError as error:
                failure, metadata = error, {}
            except _GONE:
                return
            except Exception as error:
                logger.error("%s failed unexpectedly: %s", method.name, type(error).__name__)
                failure, metadata = EngineError(f"this party failed: {type(error).__name__}"), {}
            else:
                return
            self.refused[failure.reason] += 1
            await context.abort_with_status(status_of(failure, **metadata))

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: Method, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        caller = self._caller(context)
        if is_bloated(context.invocation_metadata()):
            raise _RefusedError(TooLargeError("a call comes with far less metadata"))
        now = (self._clock or asyncio.get_running_loop().time)()
        quota = self._quotas.get(caller)
        if quota is None:
            quota = self._quotas[caller] = Quota(now, self._burst, self._per_s, self._most)
        with quota.taken(method, now):
            body = await _message(context)
            if self._stopping:
                raise StoppedError("this party is being stopped")
            try:
                async with asyncio.timeout(method.most_s):
                    answer = await self._answer(method, caller, body)
                    self._check_enrolled(caller)
                    for start in range(0, len(answer), CHUNK_BYTES):
                        await context.write(answer[start : start + CHUNK_BYTES])
            except TimeoutError:
                raise DeadlineError(f"{method.name} took longer than {method.most_s:g} s") from None

    async def _answer(self, method: Method, caller: str, body: bytes) -> bytes:
        if not method.changes:
            return await self._handle(caller, method.name, body)

        # A caller that goes away must not stop what it began between two steps.
        async def begun() -> bytes:
            return await self._handle(caller, method.name, body)

        task = asyncio.create_task(begun())
        self._begun.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # of which the caller was told, if it was still there


async def _message(context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Return the message of a call. Raises DeadlineError if it takes too long, DocumentError without one."""
    try:
        async with asyncio.timeout(_MESSAGE_S):
            body: Any = await context.read()
    except TimeoutError:
        raise DeadlineError(f"no message came within {_MESSAGE_S:g} s of the call") from None
    if not isinstance(body, bytes):
        raise DocumentError("the call ended without a message")
    return body
