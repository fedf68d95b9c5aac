"""A party's or analyst's own identity: keys, certificate and card in one folder that stays on its machine.

    identity/certificate.pem  key.pem  signing.pem  card.json     what is presented now
    identity/next/…                                               made by `rotate`, not presented yet
    identity/previous/FINGERPRINT/…                               what was presented before

Changing the keys takes days, because every peer's operator has to act, and no release must fail meanwhile:

1. `rotate` makes a new certificate and signing key in `next/`. The new card carries the fingerprint of the
   party's first card and an endorsement by the key in use. The party goes on with its old certificate.
2. The operator sends the new card to the peers. Each adds it; from then on that peer accepts both
   certificates and both signing keys. The endorsement stands for the telephone call.
3. When all peers have added it, `activate` moves the old identity to `previous/` and the new one into its
   place; the service presents it from its next start. A peer that has not added the card refuses the party
   from here on, which is why this is a step of its own.
4. `finish` destroys the old private keys, and the peers revoke the old card. Without it the keys are
   destroyed by the next activation; peers drop the old certificate when it expires in any case.

The roster names a party by its first card, so none of this changes the roster.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from mpc_engine.errors import CertificateError, DocumentError
from mpc_engine.identity.cards import Card, Particulars, Role, endorse, load_card, make_card
from mpc_engine.identity.certificates import (
    CARD_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    LONGEST_VALIDITY,
    SIGNING_FILE,
    Certificate,
    Clock,
    check_key,
    load_certificate,
    new_certificate,
    utc_now,
)
from mpc_engine.identity.files import read_secret, replace, sync_folder, write_new
from mpc_engine.identity.signing import SigningKey

NEXT = "next"
PREVIOUS = "previous"
_ACTIVATING = "activating"
_FILES = (KEY_FILE, SIGNING_FILE, CERTIFICATE_FILE, CARD_FILE)


@dataclass(frozen=True)
class Identity:
    """What a party or analyst proves itself with."""

    certificate: Certificate
    private_key_pem: bytes = field(repr=False)
    signing: SigningKey = field(repr=False)
    card: Card
    others: tuple[Card, ...] = ()
    """The cards of the same party that wait in `next/` or were presented before."""
    former: tuple[SigningKey, ...] = field(default=(), repr=False)
    """Signing keys that were presented before and are not destroyed yet."""

    @property
    def name(self) -> str:
        """The name in the certificate."""
        return self.certificate.name

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the certificate."""
        return self.certificate.fingerprint


def throwaway_identity(
    name: str,
    *,
    address: str = "",
    accepts: bool = True,
    role: Role = "party",
    dev: bool = False,
    validity: timedelta = LONGEST_VALIDITY,
    clock: Clock = utc_now,
) -> Identity:
    """Return a new identity that exists in memory only.

    A party without an `address` accepts no connections, whatever `accepts` says. Raises DocumentError for an
    unusable name, address or validity.
    """
    certificate, private = new_certificate(name, validity=validity, clock=clock)
    signing = SigningKey.create()
    about = Particulars(role, name, address if accepts else "", accepts and bool(address), dev)
    return Identity(certificate, private, signing, make_card(about, certificate, signing, clock()))


def create_identity(
    name: str,
    directory: Path,
    *,
    address: str = "",
    accepts: bool = True,
    role: Role = "party",
    dev: bool = False,
    clock: Clock = utc_now,
) -> Identity:
    """Write a new identity into `directory` (mode 0700) and return it; arguments as `throwaway_identity`.

    Certificate and card are readable by all, the keys by their owner only (mode 0600). Raises DocumentError
    if one of the files exists: replacing a key silently would lock the party out of every roster.
    """
    identity = throwaway_identity(name, address=address, accepts=accepts, role=role, dev=dev, clock=clock)
    _write(identity, directory)
    return identity


def load_identity(directory: Path, *, clock: Clock = utc_now, timely: bool = True) -> Identity:
    """Return the identity in `directory`, with the cards in `next/` and `previous/`.

    Raises DocumentError if a file is missing or unusable, keys, certificate and card do not belong together,
    or others than the owner may read a key; CertificateError if, with `timely`, the certificate has expired.
    """
    if (directory / _ACTIVATING).exists():
        raise DocumentError(
            f"{directory}: changing to the new identity was interrupted; run `party rotate --activate` again"
        )
    identity = _read(directory, clock, timely)
    folders = [directory / NEXT, *sorted((directory / PREVIOUS).glob("*"))]
    others = [load_card(each / CARD_FILE) for each in folders if (each / CARD_FILE).exists()]
    others.sort(key=lambda card: card.made, reverse=True)
    kept = [each / SIGNING_FILE for each in sorted((directory / PREVIOUS).glob("*"))]
    former = tuple(SigningKey.load(path) for path in kept if path.exists())
    return Identity(
        identity.certificate, identity.private_key_pem, identity.signing, identity.card, tuple(others), former
    )


def update_card(
    directory: Path, *, address: str | None, accepts: bool = True, clock: Clock = utc_now
) -> Card:
    """Write a new card for the same keys, with another address (None: as before), and return it.

    Its fingerprint is that of the old card, so peers add it without a telephone call. Raises DocumentError.
    """
    identity = load_identity(directory, clock=clock)
    old = identity.card
    where = old.address if address is None else address
    about = Particulars(old.role, old.name, where if accepts else "", accepts and bool(where), old.dev)
    card = make_card(
        about,
        identity.certificate,
        identity.signing,
        max(clock(), old.made_at + timedelta(seconds=1)),
        origin=old.first,
        endorsement=old.endorsement,
    )
    _write_safely(directory, lambda: replace(directory / CARD_FILE, card.encode()))
    return card


def rotate(directory: Path, *, clock: Clock = utc_now) -> Identity:
    """Make the identity that follows the one in `directory`, in `next/`; return it. See the module's text.

    Raises DocumentError if one waits there already, or as `load_identity`; an expired certificate may be
    followed by a new one.
    """
    old = load_identity(directory, clock=clock, timely=False)
    if (directory / NEXT).exists():
        raise DocumentError(
            f"{directory / NEXT} holds a new identity already: have its card added by all peers, then run "
            "`party rotate --activate`; or delete that folder, if no peer has added it"
        )
    made = max(clock(), old.card.made_at + timedelta(seconds=1))
    certificate, private = new_certificate(old.name, clock=clock)
    signing = SigningKey.create()
    about = Particulars(old.card.role, old.name, old.card.address, old.card.accepts, old.card.dev)
    draft = make_card(about, certificate, signing, made)
    card = make_card(
        about,
        certificate,
        signing,
        made,
        origin=old.card.origin_fingerprint,
        endorsement=endorse(old.card, old.signing, draft.fingerprint),
    )
    new = Identity(certificate, private, signing, card)
    _write(new, directory / NEXT)
    return new


def activate(directory: Path, *, clock: Clock = utc_now) -> Identity:
    """Present the identity in `next/` from now on and return it; the old one goes to `previous/`.

    May be called again after an interruption. Raises DocumentError if there is nothing to activate.
    """
    arriving = directory / _ACTIVATING
    if not arriving.exists():
        new = directory / NEXT
        if not (new / CARD_FILE).exists():
            raise DocumentError(f"{directory}: no new identity waits here; `party rotate` makes one")
        _read(new, clock, timely=True)
        finish(directory)
        old = _read(directory, clock, timely=False)
        kept = directory / PREVIOUS / _folder_name(old.card)
        _write_safely(directory, lambda: shutil.rmtree(kept, ignore_errors=True))
        _write(old, kept)
        _write_safely(directory, lambda: new.rename(arriving))
    _write_safely(directory, lambda: _move_in(arriving, directory))
    return load_identity(directory, clock=clock)


def finish(directory: Path) -> tuple[Card, ...]:
    """Destroy the private keys in `previous/`; return the cards they belonged to. Raises DocumentError.

    The cards stay: old signatures are verified with them.
    """
    ended = []
    for folder in sorted((directory / PREVIOUS).glob("*")):
        if (folder / KEY_FILE).exists() or (folder / SIGNING_FILE).exists():
            ended.append(load_card(folder / CARD_FILE))
            _write_safely(folder, partial(_destroy_keys, folder))
    return tuple(ended)


def _destroy_keys(folder: Path) -> None:
    for name in (KEY_FILE, SIGNING_FILE):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)


def _read(directory: Path, clock: Clock, timely: bool) -> Identity:
    certificate = load_certificate(directory / CERTIFICATE_FILE, timely=False)
    if timely and clock() >= certificate.not_after:
        raise CertificateError(
            f"{directory / CERTIFICATE_FILE}: this certificate expired at "
            f"{certificate.not_after:%Y-%m-%d %H:%M} UTC"
        )
    pem = read_secret(directory / KEY_FILE)
    check_key(pem, certificate, where=str(directory / KEY_FILE))
    signing = SigningKey.load(directory / SIGNING_FILE)
    card = load_card(directory / CARD_FILE)
    if card.certificate_fingerprint != certificate.fingerprint or card.public_key != signing.public:
        raise DocumentError(f"{directory / CARD_FILE}: this card does not belong to the keys beside it")
    return Identity(certificate, pem, signing, card)


def _write(identity: Identity, directory: Path) -> None:
    """Write the four files of an identity into a folder that has none of them; all of them or none."""
    written: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any((directory / name).exists() for name in _FILES):
            raise FileExistsError
        for name in _FILES:
            path = directory / name
            if name == SIGNING_FILE:
                identity.signing.save(path)
            elif name == KEY_FILE:
                write_new(path, identity.private_key_pem, 0o600)
            elif name == CERTIFICATE_FILE:
                write_new(path, identity.certificate.pem, 0o644)
            else:
                write_new(path, identity.card.encode(), 0o644)
            written.append(path)
        sync_folder(directory)
        sync_folder(directory.parent)
    except FileExistsError:
        _forget(written)
        raise DocumentError(f"{directory} holds an identity already; it is not replaced") from None
    except OSError as error:
        _forget(written)
        raise DocumentError(f"{directory}: the identity cannot be written: {error.strerror}") from None


def _forget(written: list[Path]) -> None:
    for path in written:
        path.unlink(missing_ok=True)


def _move_in(arriving: Path, directory: Path) -> None:
    """Move what is left in `arriving` into its place; a second call goes on where a first one ended."""
    sync_folder(directory)
    for name in _FILES:
        if (arriving / name).exists():
            os.replace(arriving / name, directory / name)
    sync_folder(directory)
    arriving.rmdir()
    sync_folder(directory)


def _write_safely(directory: Path, change: Callable[[], object]) -> None:
    try:
        change()
    except OSError as error:
        raise DocumentError(f"{directory}: the identity cannot be changed: {error.strerror}") from None


def _folder_name(card: Card) -> str:
    return card.fingerprint.removeprefix("sha256:")[:16]
