"""Dialling a peer, and saying in words why it does not answer.

gRPC reports most failures of a handshake as "socket closed". After a failed attempt a second, bare
TLS connection therefore asks the peer for the certificate it offers; nothing is sent over it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpc_engine.errors import (
    CertificateError,
    EngineError,
    EngineMismatchError,
    PeerError,
    UnknownCertificateError,
)
from mpc_engine.identity.certificates import Certificate, Clock, fingerprint
from mpc_engine.identity.folder import Identity
from mpc_engine.transport.options import CLIENT_OPTIONS, PROTOCOL_VERSION, VERSION_KEY
from mpc_engine.transport.refusal import Refusal

PROBE_S = 5.0
_REFUSALS = 3
"""So many refusals in a row are not a peer that is just starting or stopping."""

Call = grpc.aio.StreamStreamCall[bytes, bytes]


class UnreachableError(Exception):
    """Raised by `offered_certificate`; its text continues "party 2 …". It never leaves the transport."""


async def accepted(call: Call) -> Refusal | None:
    """Wait until the peer takes or refuses the stream; return the refusal. The caller sets the deadline."""
    metadata = await call.initial_metadata()
    if dict(metadata or ()).get(VERSION_KEY) == PROTOCOL_VERSION:
        return None
    return Refusal.read(await call.code(), await call.details())


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``. Raises UnreachableError if it is no such thing."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UnreachableError(f"cannot be reached: {address!r} is not an address of the form host:port")
    return host.strip("[]"), int(port)


async def offered_certificate(address: str, name: str) -> Certificate:
    """Return the certificate that is offered at `address` to who asks for `name`; it is not verified.

    Raises UnreachableError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Verification is off because a certificate that fails it is what this looks for.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = split_address(address)
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    except ssl.SSLError:
        raise UnreachableError(f"does not complete a TLS handshake at {address}") from None
    except TimeoutError:
        raise UnreachableError(f"does not answer at {address}") from None
    except OSError as error:
        raise UnreachableError(f"cannot be reached at {address}: {_reason(error)}") from None
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    try:
        found = x509.load_der_x509_certificate(der)
    except ValueError:
        raise UnreachableError(f"offers an unreadable certificate at {address}") from None
    return Certificate(found.public_bytes(Encoding.PEM), name, fingerprint(der), found.not_valid_after_utc)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "its name is not known"


class Dialler:
    """Makes connections to one peer at `address` as `identity`; `label` names the peer in errors.

    `pinned` are the certificates that are trusted for it, `clock` tells whether one has expired.
    """

    def __init__(
        self, identity: Identity, pinned: Sequence[Certificate], address: str, label: str, clock: Clock
    ) -> None:
        self.label = label
        self.address = address
        self._identity = identity
        self._pinned = {each.fingerprint: each for each in pinned}
        self._clock = clock
        self._refusals = 0
        self.trouble = f"has not answered at {address}"
        """Why the last attempt failed; continues "party 2 …"."""

    def channel(self) -> grpc.aio.Channel:
        """Return a new connection, which is made when first used. The caller closes it."""
        credentials = grpc.ssl_channel_credentials(
            root_certificates=b"".join(each.pem for each in self._pinned.values()),
            private_key=self._identity.private_key_pem,
            certificate_chain=self._identity.certificate.pem,
        )
        name = next(iter(self._pinned.values())).name
        options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", name)]
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    def succeeded(self) -> None:
        """Note that the peer accepted."""
        self._refusals = 0

    async def explain(self, refusal: Refusal) -> EngineError | None:
        """Set `trouble` after a refused attempt; return an error if waiting would not help.

        That is CertificateError for an expired certificate, UnknownCertificateError for another than those
        pinned, PeerError where the peer refuses this party's, EngineMismatchError for another protocol.
        """
        if refusal.reason == "CERT_UNKNOWN":
            return self._refused()
        if refusal.code is grpc.StatusCode.FAILED_PRECONDITION:
            words = f"does not speak version {PROTOCOL_VERSION} of the peer protocol: {refusal.words}"
            return self._hopeless(EngineMismatchError, words)
        if refusal.reason or refusal.code is not grpc.StatusCode.UNAVAILABLE:
            self._refusals = 0
            self.trouble = f"refuses: {refusal.words}"
            return None
        try:
            offered = await offered_certificate(self.address, next(iter(self._pinned.values())).name)
        except UnreachableError as error:
            self._refusals = 0
            self.trouble = str(error)
            return None
        known = self._pinned.get(offered.fingerprint)
        if known is None:
            words = (
                f"is not what answers at {self.address}: that presents the certificate "
                f"{offered.fingerprint}; trusted is {', '.join(self._pinned)}"
            )
            return self._hopeless(UnknownCertificateError, words)
        if known.not_after <= self._clock():
            words = f"has a certificate that expired at {known.not_after:%Y-%m-%d %H:%M} UTC"
            return self._hopeless(CertificateError, words)
        self._refusals += 1
        refused = self._refused()
        return refused if self._refusals >= _REFUSALS else None

    def _refused(self) -> EngineError:
        mine = self._identity.certificate
        if mine.not_after <= self._clock():
            words = f"refuses this party's certificate: it expired at {mine.not_after:%Y-%m-%d %H:%M} UTC"
            return self._hopeless(CertificateError, words)
        words = f"refuses this party's certificate {mine.fingerprint}; it does not hold it as this party's"
        return self._hopeless(PeerError, words)

    def _hopeless(self, kind: type[EngineError], words: str) -> EngineError:
        self.trouble = words
        return kind(f"{self.label} {words}")
