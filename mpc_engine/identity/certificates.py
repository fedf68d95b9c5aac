"""Self-signed certificates of parties and analysts, and the fingerprint that others pin.

There is no authority above the parties. Each certificate is a leaf (CA:FALSE) that signs itself, and
a party is whoever holds the key of a certificate that the others trust for it: names inside certificates
decide nothing. A certificate that could sign others is refused, for its owner could pose as anybody.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc_engine.errors import DocumentError

Clock = Callable[[], datetime]
"""Returns the present, with its time zone."""

LONGEST_VALIDITY = timedelta(days=825)
LEAST_RSA_BITS = 3072
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"
SIGNING_FILE = "signing.pem"
CARD_FILE = "card.json"

# Dated back, so that a peer whose clock is a little behind accepts a new certificate.
_BACKDATED = timedelta(hours=1)
_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\Z")


@dataclass(frozen=True)
class Certificate:
    """A pinned certificate that passed `read_certificate`."""

    pem: bytes
    name: str
    """Its one DNS name, which TLS clients ask for."""
    fingerprint: str
    not_after: datetime


def utc_now() -> datetime:
    """Return the present in UTC: the clock of everything that is given no other."""
    return datetime.now(UTC)


def fingerprint(der: bytes) -> str:
    """Return ``sha256:`` and 64 hexadecimal digits for a certificate in DER."""
    return "sha256:" + hashlib.sha256(der).hexdigest()


def new_certificate(
    name: str, *, validity: timedelta = LONGEST_VALIDITY, clock: Clock = utc_now
) -> tuple[Certificate, bytes]:
    """Return a new self-signed certificate (P-256) and its private key in PEM.

    It is valid from an hour before `clock`'s time for `validity` in all. Raises DocumentError for an unusable
    name or validity.
    """
    check_name(name)
    if not _BACKDATED < validity <= LONGEST_VALIDITY:
        raise DocumentError(f"a certificate is valid for at most {LONGEST_VALIDITY.days} days")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = clock()
    start = now - _BACKDATED
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(_PURPOSES, critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return read_certificate(pem, where=f"the new certificate of {name}", now=now), private


def check_name(name: str) -> None:
    """Raise DocumentError unless `name` can be a party's: a DNS name in lower case, at most 63 characters."""
    if not _NAME.match(name):
        raise DocumentError(f"{name!r} is no party name: lower-case letters, digits, hyphens, dots")


def check_key(pem: bytes, certificate: Certificate, *, where: str) -> None:
    """Raise DocumentError unless `pem` is the unencrypted private key of `certificate`."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DocumentError(f"{where}: not an unencrypted private key in PEM") from None
    if key.public_key() != x509.load_pem_x509_certificate(certificate.pem).public_key():
        raise DocumentError(f"{where}: this key does not belong to {CERTIFICATE_FILE} beside it")


def load_certificate(path: Path, *, now: datetime | None = None, timely: bool = True) -> Certificate:
    """Return the certificate in the file `path`; arguments and errors as `read_certificate`."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    return read_certificate(pem, where=str(path), now=now, timely=timely)


def read_certificate(
    pem: bytes, *, where: str, now: datetime | None = None, timely: bool = True
) -> Certificate:
    """Return the one certificate in `pem` if it may be pinned; `where` names its origin in errors.

    Raises DocumentError unless it is an X.509 v3 certificate that signs itself, says CA:FALSE, may not
    sign others, has exactly one name, a strong key (P-256, P-384, RSA from 3072 bits), is valid for no
    more than 825 days in all and, if `timely`, at `now` (default: the present).
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        if len(certificates) != 1:
            raise DocumentError(f"{where}: holds {len(certificates)} certificates; exactly one is pinned")
        certificate = certificates[0]
        problem = _problem(certificate)
        if problem is None and timely:
            problem = _untimely(certificate, utc_now() if now is None else now)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise DocumentError(f"{where}: not a usable X.509 v3 certificate in PEM") from None
    if problem is not None:
        raise DocumentError(f"{where}: {problem}")
    der = certificate.public_bytes(serialization.Encoding.DER)
    canonical = certificate.public_bytes(serialization.Encoding.PEM)
    name = names.get_values_for_type(x509.DNSName)[0]
    return Certificate(canonical, name, fingerprint(der), certificate.not_valid_after_utc)


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def _problem(certificate: x509.Certificate) -> str | None:
    """Return why `certificate` may not be pinned, or None. Raises ExtensionNotFound if it says too little."""
    extensions = certificate.extensions
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        return "the certificate is an authority (CA:TRUE); its owner could pose as any other party"
    usage = [ext.value for ext in extensions if isinstance(ext.value, x509.KeyUsage)]
    if any(value.key_cert_sign for value in usage):
        return "the certificate may sign other certificates; its owner could pose as any other party"
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if len(list(names)) != 1 or len(names.get_values_for_type(x509.DNSName)) != 1:
        return "the certificate must carry exactly one name, a DNS name"
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            return f"its RSA key has {key.key_size} bits; {LEAST_RSA_BITS} are required"
    elif not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    ):
        return "its key is neither P-256, P-384 nor RSA"
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return "the certificate does not sign itself"
    if certificate.not_valid_after_utc - certificate.not_valid_before_utc > LONGEST_VALIDITY:
        return f"the certificate is valid for more than {LONGEST_VALIDITY.days} days"
    return None


def _untimely(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why `certificate` may not be used at `now`, or None."""
    if now < certificate.not_valid_before_utc:
        return f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    if now >= certificate.not_valid_after_utc:
        return f"the certificate expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return None
