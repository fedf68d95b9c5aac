"""An analyst's connection with one party: calls, answers in parts, and repeating what may be repeated."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import grpc.aio

from mpc_engine.errors import EngineError, PeerError, RateLimitError, TooLargeError, UnknownCertificateError
from mpc_engine.identity.folder import Identity
from mpc_engine.transport.analyst_methods import (
    CALL_OPTIONS,
    METHODS,
    MOST_ANSWER_BYTES,
    MOST_REQUEST_BYTES,
    Method,
)
from mpc_engine.transport.failures import failure_of

ATTEMPTS: Final = 5
"""Most times that one call is tried."""
REST_S: Final = 1.0
"""How much longer a call rests that came too fast."""
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_PROBE_S: Final = 5.0
_UNCONNECTED: Final = "failed to connect"
"""In gRPC's words for a connection that was never made."""


def full_jitter(most_s: float) -> float:
    """Return seconds drawn evenly from 0 to ``most_s``, so that callers do not come back in step."""
    return most_s * secrets.randbelow(1 << 20) / (1 << 20)


class AnalystChannel:
    """A connection with the party ``name`` at ``address`` that presents exactly ``certificate``.

    It is made with the first call, in the event loop that runs then, and lasts until :meth:`close`.

    Args:
        address: host:port of the party's analyst port.
        identity: the analyst's.
        certificate: the party's pinned certificate in PEM; several, one after the other, while it is renewed.
        name: the party's, which its certificate states.
        sleep, jitter, clock: how pauses between attempts are made.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        certificate: bytes,
        name: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float], float] = full_jitter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._address, self._identity, self._certificate = address, identity, certificate
        self._sleep, self._jitter, self._clock = sleep, jitter, clock
        self._channel: grpc.aio.Channel | None = None

    async def call(self, method: str, body: bytes, timeout_s: float) -> bytes:
        """Return the whole answer to one message within ``timeout_s``, all attempts together.

        What failed as UNAVAILABLE, or came too fast, is tried again if the method may be repeated. Raises
        the class of `mpc_engine.errors` whose reason the party stated; PeerError if it cannot be reached or
        shows another certificate, UnknownCertificateError if it refuses the analyst's, DeadlineError if time
        runs out, TooLargeError for a message or an answer beyond all bounds.
        """
        called = METHODS[method]
        if len(body) > MOST_REQUEST_BYTES:
            raise TooLargeError(
                f"the request has {len(body):,} bytes; at most {MOST_REQUEST_BYTES:,} are taken"
            )
        ends = self._clock() + timeout_s
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._attempt(called, body, max(0.05, ends - self._clock()))
            except EngineError as failure:
                fast = isinstance(failure, RateLimitError)
                passing = fast or failure.grpc_code == "UNAVAILABLE"
                again = called.idempotent and passing and attempt < ATTEMPTS
                wait_s = self._jitter(pause_s) + (REST_S if fast else 0.0)
                if not again or self._clock() + wait_s >= ends:
                    raise await self._explained(failure) from None
            await self._sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise PeerError(f"{self.name} cannot be reached")  # never: the last attempt returns or raises

    async def close(self) -> None:
        """End the connection; calls under way fail."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _attempt(self, method: Method, body: bytes, timeout_s: float) -> bytes:
        stub: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._connected().unary_stream(method.path)
        call = stub(body, timeout=timeout_s)
        parts, size = [], 0
        try:
            async for part in call:
                size += len(part)
                if size > MOST_ANSWER_BYTES:
                    raise TooLargeError(f"{self.name} answers with more than {MOST_ANSWER_BYTES:,} bytes")
                parts.append(part)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, f"{self.name} ({self._address})") from None
        finally:
            call.cancel()
        return b"".join(parts)

    async def _explained(self, failure: EngineError) -> EngineError:
        """Return why no connection is made; gRPC says no more than that it is not.

        A second, bare TLS connection asks for the certificate that is shown there. Nothing is sent over it.
        """
        if not isinstance(failure, PeerError) or _UNCONNECTED not in str(failure):
            return failure
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Verification is off because a certificate that fails it is what this looks for.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        host, _, port = self._address.rpartition(":")
        where = f"{self.name} ({self._address})"
        try:
            async with asyncio.timeout(_PROBE_S):
                _, writer = await asyncio.open_connection(
                    host.strip("[]"), int(port), ssl=context, server_hostname=self.name
                )
        except (OSError, ValueError, TimeoutError):
            return PeerError(f"{where} cannot be reached")
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        shown, pinned = ssl.DER_cert_to_PEM_cert(der), self._certificate.decode("ascii", "replace")
        if "".join(shown.split()) not in "".join(pinned.split()):
            return PeerError(f"{where} shows another certificate than that of its card")
        return UnknownCertificateError(
            f"{where} refuses the certificate {self._identity.fingerprint}: it is not enrolled there, not "
            "any more, or has expired"
        )

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=self._certificate,
                private_key=self._identity.private_key_pem,
                certificate_chain=self._identity.certificate.pem,
            )
            options = [*CALL_OPTIONS, ("grpc.ssl_target_name_override", self.name)]
            self._channel = grpc.aio.secure_channel(self._address, credentials, options=options)
        return self._channel
