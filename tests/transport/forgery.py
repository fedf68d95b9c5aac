"""Certificates that must not be accepted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from mpc_engine import identity as tls

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def certificate_pem(
    name: str,
    key: SigningKey,
    *,
    ca: bool | None = False,
    names: tuple[str, ...] | None = None,
    days: int = 30,
    issuer: x509.Name | None = None,
    issuer_key: SigningKey | None = None,
    key_cert_sign: bool = False,
) -> bytes:
    """Return a certificate with the given faults; without any, it could be pinned."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - timedelta(hours=1)
    builder = x509.CertificateBuilder(
        issuer or subject, subject, key.public_key(), x509.random_serial_number()
    )
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    sans = [x509.DNSName(san) for san in ((name,) if names is None else names)]
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    usage = [True, *[False] * 4, key_cert_sign, *[False] * 3]
    builder = builder.add_extension(x509.KeyUsage(*usage), critical=True)
    certificate = builder.sign(issuer_key or key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: SigningKey) -> bytes:
    """Return the private key in PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def unchecked(name: str, pem: bytes, key: SigningKey) -> tls.Identity:
    """Return an identity without the checks that `tls` makes."""
    certificate = x509.load_pem_x509_certificate(pem)
    fingerprint = tls.fingerprint(certificate.public_bytes(serialization.Encoding.DER))
    forged = tls.Certificate(pem, name, fingerprint, certificate.not_valid_after_utc)
    return replace(tls.throwaway_identity(name), certificate=forged, private_key_pem=key_pem(key))


def certificate_authority(name: str) -> tls.Identity:
    """Return a self-signed CA:TRUE identity."""
    key = ec.generate_private_key(ec.SECP256R1())
    return unchecked(name, certificate_pem(name, key, ca=True, key_cert_sign=True), key)


def leaf_signed_by(issuer: tls.Identity, name: str) -> tls.Identity:
    """Return an identity called `name` whose certificate `issuer` signed, with the chain."""
    issuer_key = serialization.load_pem_private_key(issuer.private_key_pem, password=None)
    if not isinstance(issuer_key, SigningKey):
        raise TypeError("not a signing key")
    subject = x509.load_pem_x509_certificate(issuer.certificate.pem).subject
    key = ec.generate_private_key(ec.SECP256R1())
    pem = certificate_pem(name, key, issuer=subject, issuer_key=issuer_key)
    leaf = unchecked(name, pem, key)
    chain = tls.Certificate(pem + issuer.certificate.pem, name, leaf.fingerprint, leaf.certificate.not_after)
    return replace(leaf, certificate=chain)
