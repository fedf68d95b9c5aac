"""Dialling a peer until it answers, and saying in words why it does not.

gRPC reports most failures of a handshake as "socket closed". After a failed attempt a second, bare
TLS connection therefore asks the peer for the certificate it offers; nothing is sent over it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from mpc_engine.errors import MismatchError, PeerError
from mpc_engine.transport.options import CLIENT_OPTIONS, PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY
from mpc_engine.transport.tls import Certificate, Identity, fingerprint

logger = logging.getLogger(__name__)

_ATTEMPT_S = 10.0
_PROBE_S = 5.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_REFUSALS = 3
"""So many refusals in a row are not a peer that is just starting or stopping."""


@dataclass(frozen=True)
class Dialled:
    """An accepted stream and the connection that carries it."""

    channel: grpc.aio.Channel
    call: grpc.aio.StreamStreamCall[bytes, bytes]


class Dialler:
    """Dials one peer at `address` as `identity`; `label` names the peer in errors."""

    def __init__(self, identity: Identity, peer: Certificate, address: str, label: str) -> None:
        self._identity = identity
        self._peer = peer
        self._address = address
        self._label = label
        self._refusals = 0
        self.trouble = f"has not answered at {address}"
        """Why the last attempt failed."""

    async def dial(self, check: Callable[[], None]) -> Dialled:
        """Try until the peer accepts; the caller sets the deadline. `check` raises to end it earlier.

        Raises PeerError for what will not change by waiting: another certificate than the pinned
        one, or a peer that refuses this party's; MismatchError for another protocol version.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            check()
            dialled = await self._attempt()
            if dialled is not None:
                return dialled
            logger.debug("%s: %s", self._label, self.trouble)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _attempt(self) -> Dialled | None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self._peer.pem,
            private_key=self._identity.private_key_pem,
            certificate_chain=self._identity.certificate.pem,
        )
        options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", self._peer.name)]
        channel = grpc.aio.secure_channel(self._address, credentials, options=options)
        accepted = False
        try:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(SESSION_METHOD)(
                metadata=grpc.aio.Metadata((VERSION_KEY, PROTOCOL_VERSION))
            )
            try:
                async with asyncio.timeout(_ATTEMPT_S):
                    metadata = await call.initial_metadata()
                    accepted = dict(metadata or ()).get(VERSION_KEY) == PROTOCOL_VERSION
                    if accepted:
                        return Dialled(channel, call)
                    code, details = await call.code(), await call.details()
            except TimeoutError:
                call.cancel()
                code, details = grpc.StatusCode.DEADLINE_EXCEEDED, None
            await self._judge(code, details or "")
            return None
        finally:
            if not accepted:
                await channel.close()

    async def _judge(self, code: grpc.StatusCode, details: str) -> None:
        """Set `trouble`; raise if another attempt would end the same way."""
        if code is grpc.StatusCode.UNAUTHENTICATED:
            raise PeerError(f"{self._label} {self._refusal()}")
        if code is grpc.StatusCode.FAILED_PRECONDITION:
            raise MismatchError(f"{self._label} speaks another version of the peer protocol than this party")
        if code is not grpc.StatusCode.UNAVAILABLE:
            self._refusals = 0
            self.trouble = f"does not take part: {code.name} {details}".strip()
            return
        offered = await self._probe()
        if offered is None:
            self._refusals = 0
        elif offered != self._peer.fingerprint:
            raise PeerError(
                f"what answers for {self._label} at {self._address} presents the certificate {offered}; "
                f"the roster has {self._peer.fingerprint}"
            )
        else:
            self._refusals += 1
            self.trouble = self._refusal()
            if self._refusals >= _REFUSALS:
                raise PeerError(f"{self._label} {self.trouble}")

    def _refusal(self) -> str:
        return (
            f"refuses this party's certificate {self._identity.fingerprint}; "
            "its roster does not hold it, or it has expired"
        )

    async def _probe(self) -> str | None:
        """Return the fingerprint of the certificate offered at the address; None sets `trouble`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Verification is off because a certificate that fails it is what this looks for.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        host, _, port = self._address.rpartition(":")
        try:
            async with asyncio.timeout(_PROBE_S):
                _, writer = await asyncio.open_connection(
                    host.strip("[]"), int(port), ssl=context, server_hostname=self._peer.name
                )
        except ssl.SSLError:
            self.trouble = f"does not complete a TLS handshake at {self._address}"
        except TimeoutError:
            self.trouble = f"does not answer at {self._address}"
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number and number > 0 else "not an address"
            self.trouble = f"cannot be reached at {self._address}: {reason}"
        else:
            offered = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            return fingerprint(offered)
        return None
