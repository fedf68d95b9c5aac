"""Certificates that may be pinned, and those that may not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine import identity as tls
from mpc_engine.errors import DocumentError
from tests.transport.forgery import SigningKey, certificate_authority, certificate_pem, leaf_signed_by
from tests.transport.parties import identity

P256 = ec.generate_private_key(ec.SECP256R1())


def test_an_identity_is_a_leaf_that_can_be_pinned() -> None:
    made = tls.throwaway_identity("uk-registry")
    certificate = x509.load_pem_x509_certificate(made.certificate.pem)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["uk-registry"] == [made.name]
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime == timedelta(days=825)
    der = certificate.public_bytes(Encoding.DER)
    assert made.fingerprint == tls.fingerprint(der) == "sha256:" + hashlib.sha256(der).hexdigest()
    assert tls.throwaway_identity("uk-registry").fingerprint != made.fingerprint


def test_the_private_key_does_not_show() -> None:
    assert b"PRIVATE KEY" in identity("p1").private_key_pem
    assert "PRIVATE" not in repr(identity("p1"))


@pytest.mark.parametrize(
    "name", ["", "Upper", "under_score", "-a", "a-", "a..b", "a b", "ü", "a" * 64, "a\n"]
)
def test_names_that_tls_could_not_ask_for(name: str) -> None:
    with pytest.raises(DocumentError, match="no party name"):
        tls.throwaway_identity(name)


def _p256(**faults: object) -> bytes:
    return certificate_pem("p9", P256, **faults)  # type: ignore[arg-type]


def _other(key: SigningKey) -> bytes:
    return certificate_pem("p9", key)


def _of_another_curve() -> bytes:
    """Return a certificate whose key names a curve that there is not, 1.2.840.10045.3.1.9."""
    der = x509.load_pem_x509_certificate(_p256()).public_bytes(Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d0301")
    assert der.count(curve + b"\x07") == 1
    text = base64.encodebytes(der.replace(curve + b"\x07", curve + b"\x09")).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n".encode()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: _p256(ca=True), "CA:TRUE"),
        (lambda: _p256(key_cert_sign=True), "may sign other"),
        (lambda: _p256(ca=None), "not a usable"),
        (lambda: _p256(names=()), "not a usable"),
        (lambda: _p256(names=("p9", "p8")), "exactly one name"),
        (lambda: _p256(days=826), "more than 825 days"),
        (lambda: _other(rsa.generate_private_key(65537, 2048)), "2048 bits"),
        (lambda: _other(ec.generate_private_key(ec.SECP521R1())), "neither P-256"),
        (lambda: certificate_authority("p9").certificate.pem, "CA:TRUE"),
        (lambda: leaf_signed_by(identity("p1"), "p9").certificate.pem, "holds 2 certificates"),
        (
            lambda: leaf_signed_by(identity("p1"), "p9").certificate.pem.split(b"-\n-")[0] + b"-",
            "sign itself",
        ),
        (_of_another_curve, "not a usable"),
        (lambda: b"", "not a usable"),
        (lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a usable"),
    ],
)
def test_certificates_that_may_not_be_pinned(make: object, text: str) -> None:
    pem = make()  # type: ignore[operator]
    with pytest.raises(DocumentError, match=f"the card: .*{text}"):
        tls.read_certificate(pem, where="the card")


def test_certificates_are_pinned_only_while_valid() -> None:
    pem = _p256(days=10)
    now = datetime.now(UTC)
    assert tls.read_certificate(pem, where="x").name == "p9"
    with pytest.raises(DocumentError, match="not valid before"):
        tls.read_certificate(pem, where="x", now=now - timedelta(hours=2))
    late = now + timedelta(days=10)
    with pytest.raises(DocumentError, match="expired"):
        tls.read_certificate(pem, where="x", now=late)
    assert tls.read_certificate(pem, where="x", now=late, timely=False).name == "p9"


def test_a_strong_rsa_key_may_be_pinned() -> None:
    assert tls.read_certificate(_other(rsa.generate_private_key(65537, 3072)), where="x").name == "p9"


@given(st.binary(max_size=200), st.integers(0, 600))
def test_a_damaged_certificate_is_refused_or_the_same(junk: bytes, place: int) -> None:
    good = identity("p1").certificate
    pem = good.pem[:place] + junk + good.pem[place + len(junk) :]
    with contextlib.suppress(DocumentError):
        assert tls.read_certificate(pem, where="x").fingerprint == good.fingerprint
