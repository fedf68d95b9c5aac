"""An identity's folder: made once, kept private, changed in steps that can be interrupted."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mpc_engine.errors import CertificateError, DocumentError
from mpc_engine.identity import (
    CARD_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    SIGNING_FILE,
    activate,
    create_identity,
    expiry_warning,
    finish,
    load_card,
    load_certificate,
    load_identity,
    rotate,
    throwaway_identity,
    update_card,
)

FILES = {CARD_FILE, CERTIFICATE_FILE, KEY_FILE, SIGNING_FILE}
START = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_an_identity_is_written_once_and_read_back(tmp_path: Path) -> None:
    directory = tmp_path / "party"
    made = create_identity("se-registry", directory, address="se:8470")
    assert {path.name for path in directory.iterdir()} == FILES
    for secret in (KEY_FILE, SIGNING_FILE):
        assert stat.S_IMODE((directory / secret).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert load_identity(directory) == made
    assert load_certificate(directory / CERTIFICATE_FILE) == made.certificate
    assert load_card(directory / CARD_FILE) == made.card
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(DocumentError, match="holds an identity already"):
        create_identity("se-registry", directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert "PRIVATE" not in repr(made) and made.signing.public.hex() not in repr(made.signing)


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_file_of_an_identity_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(DocumentError, match="holds an identity already"):
        create_identity("se-registry", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DocumentError, match="No space left"):
        create_identity("se-registry", tmp_path / "party")
    assert list((tmp_path / "party").iterdir()) == []
    monkeypatch.undo()
    create_identity("se-registry", tmp_path / "party")


def test_loading_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read"):
        load_identity(tmp_path)
    one = tmp_path / "one"
    create_identity("one", one)
    other = create_identity("two", tmp_path / "two")
    original = (one / KEY_FILE).read_bytes()
    (one / KEY_FILE).write_bytes(other.private_key_pem)
    with pytest.raises(DocumentError, match="does not belong"):
        load_identity(one)
    (one / KEY_FILE).write_bytes(b"nonsense")
    with pytest.raises(DocumentError, match="not an unencrypted private key"):
        load_identity(one)
    (one / KEY_FILE).write_bytes(original)
    (one / CARD_FILE).write_bytes(other.card.encode())
    with pytest.raises(DocumentError, match="card does not belong to the keys"):
        load_identity(one)
    for secret in (KEY_FILE, SIGNING_FILE):
        (tmp_path / "two" / secret).chmod(0o640)
        with pytest.raises(DocumentError, match="0600"):
            load_identity(tmp_path / "two")
        (tmp_path / "two" / secret).chmod(0o600)


def test_an_expired_identity_can_only_be_followed_by_a_new_one(tmp_path: Path) -> None:
    made = create_identity("se-registry", tmp_path)
    late = made.certificate.not_after
    with pytest.raises(CertificateError, match="expired"):
        load_identity(tmp_path, clock=lambda: late)
    new = rotate(tmp_path, clock=lambda: late)
    assert activate(tmp_path, clock=lambda: late).certificate == new.certificate


def test_an_address_changes_without_the_keys(tmp_path: Path) -> None:
    made = create_identity("se-registry", tmp_path, address="old:1")
    card = update_card(tmp_path, address="new:2")
    assert (card.address, card.fingerprint) == ("new:2", made.card.fingerprint)
    assert card.made > made.card.made
    assert load_identity(tmp_path).card == card
    assert not update_card(tmp_path, address=None, accepts=False).accepts
    with pytest.raises(DocumentError, match="address"):
        update_card(tmp_path, address="no port")
    rotate(tmp_path)
    activate(tmp_path)
    again = update_card(tmp_path, address="newer:3")
    assert again.endorsed_by(made.card)


# --- rotation ---------------------------------------------------------------------------------------


def test_keys_are_changed_in_steps(tmp_path: Path) -> None:
    old = create_identity("se-registry", tmp_path, address="se:8470")
    new = rotate(tmp_path)
    assert load_identity(tmp_path).certificate == old.certificate
    assert load_identity(tmp_path).others == (new.card,)
    assert new.card.endorsed_by(old.card) and not old.card.endorsed_by(new.card)
    assert new.card.origin_fingerprint == old.card.fingerprint
    assert new.signing.public != old.signing.public
    with pytest.raises(DocumentError, match="holds a new identity already"):
        rotate(tmp_path)
    now = activate(tmp_path)
    assert (now.certificate, now.private_key_pem, now.signing, now.card) == (
        new.certificate,
        new.private_key_pem,
        new.signing,
        new.card,
    )
    assert now.others == (old.card,)
    kept = next((tmp_path / "previous").iterdir())
    assert {path.name for path in kept.iterdir()} == FILES
    assert stat.S_IMODE((kept / KEY_FILE).stat().st_mode) == 0o600
    with pytest.raises(DocumentError, match="no new identity waits"):
        activate(tmp_path)
    assert finish(tmp_path) == (old.card,)
    assert {path.name for path in kept.iterdir()} == {CARD_FILE, CERTIFICATE_FILE}
    assert finish(tmp_path) == ()
    assert load_identity(tmp_path).others == (old.card,)


def test_the_origin_stays_through_many_rotations(tmp_path: Path) -> None:
    first = create_identity("se-registry", tmp_path)
    cards = [first.card]
    for _ in range(3):
        rotate(tmp_path)
        cards.append(activate(tmp_path).card)
    assert {card.origin_fingerprint for card in cards} == {first.card.fingerprint}
    assert len({card.fingerprint for card in cards}) == 4
    assert cards[3].endorsed_by(cards[2]) and not cards[3].endorsed_by(cards[1])
    keys = [path.parent.name for path in tmp_path.glob(f"previous/*/{KEY_FILE}")]
    assert keys == [cards[2].fingerprint[7:23]]  # older ones were destroyed


@pytest.mark.parametrize("moved", range(5))
def test_an_interrupted_activation_is_completed(tmp_path: Path, moved: int) -> None:
    old = create_identity("se-registry", tmp_path)
    new = rotate(tmp_path)
    calls = 0
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        nonlocal calls
        if calls == moved:
            raise OSError(5, "Input/output error")
        calls += 1
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", failing)
        if moved == 4:
            activate(tmp_path)
        else:
            with pytest.raises(DocumentError, match="Input/output error"):
                activate(tmp_path)
            with pytest.raises(DocumentError, match="rotate --activate` again"):
                load_identity(tmp_path)
    if moved < 4:
        activate(tmp_path)
    assert load_identity(tmp_path).certificate == new.certificate
    assert load_identity(tmp_path).others == (old.card,)


def test_a_card_endorsed_by_another_key_is_no_successor(tmp_path: Path) -> None:
    old = create_identity("se-registry", tmp_path / "old").card
    create_identity("se-registry", tmp_path / "thief")
    assert not rotate(tmp_path / "thief").card.endorsed_by(old)
    assert not old.endorsed_by(old)


# --- warnings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "within"),
    [
        (timedelta(days=60, seconds=1), None),
        (timedelta(days=60), 60),
        (timedelta(days=30, seconds=1), 60),
        (timedelta(days=30), 30),
        (timedelta(days=7, seconds=1), 30),
        (timedelta(days=7), 7),
        (timedelta(seconds=1), 7),
        (timedelta(0), 0),
        (timedelta(days=-400), 0),
    ],
)
def test_warnings_before_the_end(left: timedelta, within: int | None) -> None:
    identity = throwaway_identity("se-registry", clock=lambda: START)
    now = identity.certificate.not_after - left
    warning = expiry_warning(identity.card, now)
    assert warning == expiry_warning(identity.certificate, now)
    assert (warning.within if warning else None) == within
    if warning is not None:
        assert warning.days == max(left.days, 0)
        assert "se-registry" in warning.message
        assert ("expired" in warning.message) == (within == 0)
