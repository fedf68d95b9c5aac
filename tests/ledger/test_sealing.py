"""Sealed shares and their keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError, LedgerBrokenError, LedgerWriteError, StaleSessionError
from mpc_engine.ledger.sealing import InMemoryKeys, SealedKeys, Sealing

ONE, TWO = "0" * 31 + "1", "0" * 31 + "2"
KINDS: list[Callable[[Path], Sealing]] = [lambda path: SealedKeys(path / "keys"), lambda path: InMemoryKeys()]


@pytest.fixture(params=KINDS, ids=["files", "memory"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Sealing:
    made: Sealing = request.param(tmp_path)
    return made


@given(st.binary(max_size=2000))
def test_what_is_sealed_comes_out_again(content: bytes) -> None:
    keys = InMemoryKeys()
    sealed = keys.seal(ONE, content)
    assert keys.unseal(ONE, sealed) == content
    assert len(sealed) == len(content) + 28


def test_a_shredded_key_opens_nothing(keys: Sealing) -> None:
    sealed, other = keys.seal(ONE, b"shares"), keys.seal(TWO, b"others")
    assert keys.tickets() == {ONE, TWO}
    keys.shred(ONE)
    keys.shred(ONE)
    assert keys.tickets() == {TWO}
    with pytest.raises(LedgerBrokenError, match="is not on this machine"):
        keys.unseal(ONE, sealed)
    assert keys.unseal(TWO, other) == b"others"


def test_what_is_sealed_for_one_session_opens_for_no_other(keys: Sealing) -> None:
    sealed = keys.seal(ONE, b"shares" * 10)
    keys.seal(TWO, b"others")
    with pytest.raises(LedgerBrokenError, match="do not open"):
        keys.unseal(TWO, sealed)
    for place in (0, 12, len(sealed) - 1):
        spoilt = bytearray(sealed)
        spoilt[place] ^= 1
        with pytest.raises(LedgerBrokenError, match="do not open"):
            keys.unseal(ONE, bytes(spoilt))
    for short in (b"", sealed[:12], sealed[:-1]):
        with pytest.raises(LedgerBrokenError):
            keys.unseal(ONE, short)


def test_a_session_is_sealed_once(keys: Sealing) -> None:
    sealed = keys.seal(ONE, b"shares")
    with pytest.raises(StaleSessionError):
        keys.seal(ONE, b"shares")
    assert keys.unseal(ONE, sealed) == b"shares"


@pytest.mark.parametrize("ticket", ["", "../../etc/passwd", "A" * 32, "0" * 31, "0" * 31 + "\n"])
def test_a_ticket_that_is_none_becomes_no_file(keys: Sealing, ticket: str) -> None:
    for call in (keys.shred, lambda t: keys.seal(t, b""), lambda t: keys.unseal(t, b"")):
        with pytest.raises(DocumentError):
            call(ticket)


def test_keys_are_their_owners_and_survive_him(tmp_path: Path) -> None:
    sealed = SealedKeys(tmp_path / "keys").seal(ONE, b"shares")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "keys").iterdir()] == [0o600]
    assert SealedKeys(tmp_path / "keys").unseal(ONE, sealed) == b"shares"


def test_a_key_is_overwritten_before_its_file_goes(tmp_path: Path) -> None:
    keys = SealedKeys(tmp_path / "keys")
    keys.seal(ONE, b"shares")
    file = tmp_path / "keys" / f"{ONE}.key"
    key = file.read_bytes()
    os.link(file, tmp_path / "second name")
    keys.shred(ONE)
    assert (tmp_path / "second name").read_bytes() not in (key, b"")


def test_half_a_key_is_none(tmp_path: Path) -> None:
    keys = SealedKeys(tmp_path / "keys")
    sealed = keys.seal(ONE, b"shares")
    (tmp_path / "keys" / f"{ONE}.key").write_bytes(b"half")
    with pytest.raises(LedgerBrokenError, match="not on this machine"):
        keys.unseal(ONE, sealed)
    keys.shred(ONE)
    assert keys.tickets() == frozenset()


def test_a_key_that_cannot_be_stored_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = SealedKeys(tmp_path / "keys")

    def failing(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(LedgerWriteError, match="No space"):
            keys.seal(ONE, b"shares")
    assert keys.tickets() == frozenset()
    keys.seal(ONE, b"shares")
    (tmp_path / "file").touch()
    with pytest.raises(LedgerWriteError):
        SealedKeys(tmp_path / "file" / "keys")
