"""Signatures are made for one purpose each, and their keys show in no text."""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.identity import SigningKey, verify
from mpc_engine.identity.words import WORDS, words
from tests.transport.forgery import key_pem

KEY = SigningKey.create()
OTHER = SigningKey.create()


def test_what_is_signed_is_the_purpose_and_the_content() -> None:
    signature = KEY.sign("receipt", b"content")
    assert (len(KEY.public), len(signature)) == (32, 64)
    Ed25519PublicKey.from_public_bytes(KEY.public).verify(signature, b"mpc-engine/receipt/1\0content")


def test_a_known_answer() -> None:
    # RFC 8032, section 7.1, test 1: secret key and its public key.
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert SigningKey(Ed25519PrivateKey.from_private_bytes(secret)).public.hex() == public


@given(st.text(max_size=20).filter(lambda text: "\0" not in text), st.binary(max_size=64), st.data())
def test_a_signature_holds_for_nothing_else(purpose: str, content: bytes, data: st.DataObject) -> None:
    signature = KEY.sign(purpose, content)
    assert verify(KEY.public, purpose, content, signature)
    assert not verify(OTHER.public, purpose, content, signature)
    assert not verify(KEY.public, purpose + "x", content, signature)
    assert not verify(KEY.public, purpose, content + b"\0", signature)
    place = data.draw(st.integers(0, 63))
    broken = bytearray(signature)
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    assert not verify(KEY.public, purpose, content, bytes(broken))
    assert not verify(KEY.public[:31], purpose, content, signature)
    assert not verify(KEY.public, purpose, content, signature[:63])


def test_a_purpose_cannot_end_early() -> None:
    with pytest.raises(EngineError):
        KEY.sign("a/1\0b", b"")


def test_keys_do_not_show(tmp_path: Path) -> None:
    KEY.save(tmp_path / "signing.pem")
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
    assert SigningKey.load(tmp_path / "signing.pem") == KEY != OTHER
    assert repr(KEY) == str(KEY) == "<SigningKey>"
    with pytest.raises(TypeError):
        pickle.dumps(KEY)
    with pytest.raises(FileExistsError):
        OTHER.save(tmp_path / "signing.pem")
    assert SigningKey.load(tmp_path / "signing.pem") == KEY


def test_files_that_are_no_signing_keys(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    with pytest.raises(DocumentError, match="cannot be read"):
        SigningKey.load(path)
    path.write_bytes(b"nonsense")
    path.chmod(0o600)
    with pytest.raises(DocumentError, match="not an unencrypted private key"):
        SigningKey.load(path)
    path.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(DocumentError, match="not an Ed25519 key"):
        SigningKey.load(path)
    path.chmod(0o640)
    with pytest.raises(DocumentError, match="0600"):
        SigningKey.load(path)


# --- words ------------------------------------------------------------------------------------------


def _one_letter_apart(one: str, other: str) -> bool:
    """Whether a letter changed, added or left out turns one word into the other."""
    if len(one) == len(other):
        return sum(a != b for a, b in zip(one, other, strict=True)) == 1
    short, long = sorted((one, other), key=len)
    return len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def test_no_two_words_can_be_taken_for_each_other() -> None:
    assert len(WORDS) == len({word[:4] for word in WORDS}) == 256
    assert all(4 <= len(word) <= 8 and word.isascii() and word.islower() for word in WORDS)
    assert not [pair for pair in zip(sorted(WORDS), sorted(WORDS)[1:], strict=False) if pair[0] == pair[1]]
    for index, word in enumerate(WORDS):
        assert not [other for other in WORDS[:index] if _one_letter_apart(word, other)]


@given(st.binary(min_size=12, max_size=40))
def test_words_stand_for_bytes(digest: bytes) -> None:
    spoken = words(digest)
    assert bytes(WORDS.index(word) for word in spoken) == digest[:12]


def test_too_few_bytes_for_the_words() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        words(bytes(11))
