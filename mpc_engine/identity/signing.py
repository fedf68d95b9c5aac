"""Ed25519 signatures of parties and analysts, each made for one purpose.

The key that signs is not the key of TLS: a signature that a handshake asks for can never pass for one
under a receipt, nor the other way round. What is signed begins with its purpose, so that a signature made
for one purpose proves nothing for another.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.identity.files import read_secret, write_new

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64


class SigningKey:
    """A private Ed25519 key (RFC 8032). It shows itself in no text and cannot be pickled."""

    __slots__ = ("_key", "public")

    public: bytes
    """The public key, 32 bytes."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def create(cls) -> SigningKey:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Return the key in a PEM file.

        Raises DocumentError if it is missing, no Ed25519 key, or others than its owner may read it.
        """
        try:
            key = serialization.load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise DocumentError(f"{path}: not an unencrypted private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise DocumentError(f"{path}: not an Ed25519 key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to a new file with mode 0600. Raises FileExistsError or another OSError."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_new(path, pem, 0o600)

    def sign(self, purpose: str, content: bytes) -> bytes:
        """Return the signature, 64 bytes, of `content` for `purpose`."""
        return self._key.sign(_framed(purpose, content))

    def __repr__(self) -> str:
        return "<SigningKey>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not pickled")


def verify(public: bytes, purpose: str, content: bytes, signature: bytes) -> bool:
    """Return whether `signature` was made for `purpose` over `content` with the key of `public`.

    Whatever is wrong with the arguments makes it False. A purpose holds no NUL.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _framed(purpose, content))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _framed(purpose: str, content: bytes) -> bytes:
    """Return what is signed: no two pairs of purpose and content give the same bytes."""
    if "\0" in purpose:
        raise EngineError("the purpose of a signature holds no NUL")
    return b"mpc-engine/" + purpose.encode() + b"/1\0" + content
