"""Cards: what a party or an analyst tells the others about itself, signed with its own key.

A card proves nothing about who made it, only that nobody changed it since: the operators compare its
fingerprint, or its words, by telephone. From then on the party's later cards are recognised by their
`endorsement`, a signature with the key of the card before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from mpc_engine import __version__
from mpc_engine.documents import Document, Field, canonical, parse
from mpc_engine.errors import DocumentError
from mpc_engine.identity.certificates import Certificate, check_name, read_certificate
from mpc_engine.identity.signing import PUBLIC_BYTES, SIGNATURE_BYTES, SigningKey, verify
from mpc_engine.identity.words import words

Role = Literal["party", "analyst"]

FORMAT: Final = "mpc-engine/card/1"
LARGEST_CARD = 16_384
"""Most bytes of a card's file."""

_CARD_PURPOSE = "card"
_ENDORSEMENT_PURPOSE = "card-endorsement"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SKEW = timedelta(days=1)
"""So far ahead of the reader's clock a card may have been made."""

_Fingerprint = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
_Signature = Annotated[str, Field(pattern=rf"^([0-9a-f]{{{2 * SIGNATURE_BYTES}}})?$")]


class Card(Document):
    """The public description of a party or an analyst. Checked by `verify`, which every reader here calls.

    `address` is where others reach it, ``host:port``, empty where nobody dials in (`accepts` is false then)
    and for analysts. `first`, in the document `origin`, is the fingerprint of the party's first card and
    `endorsement` the previous card's signature; both are empty in the first card itself. `dev` marks a
    throw-away party of a trial.
    """

    format: Literal["mpc-engine/card/1"] = FORMAT
    role: Role
    name: Annotated[str, Field(min_length=1, max_length=63)]
    address: Annotated[str, Field(pattern=r"^(\S{1,253}:[0-9]{1,5})?$")]
    accepts: bool
    certificate: Annotated[str, Field(max_length=4096)]
    signing_key: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * PUBLIC_BYTES}}}$")]
    engine: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[0-9A-Za-z.+!-]+$")]
    made: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    dev: bool
    first: Annotated[_Fingerprint, Field(alias="origin")]
    endorsement: _Signature
    signature: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * SIGNATURE_BYTES}}}$")]

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:`` and 64 digits over role, name, certificate and signing key: what operators compare."""
        content = "\0".join((FORMAT, self.role, self.name, self.certificate_fingerprint, self.signing_key))
        return "sha256:" + hashlib.sha256(content.encode()).hexdigest()

    @property
    def origin_fingerprint(self) -> str:
        """The fingerprint of the party's first card, which stays the same when its keys are changed."""
        return self.first or self.fingerprint

    @property
    def words(self) -> tuple[str, ...]:
        """The first 96 bits of the fingerprint as 12 words."""
        return words(bytes.fromhex(self.fingerprint.removeprefix("sha256:")))

    @cached_property
    def pinned(self) -> Certificate:
        """The certificate, read; it may have expired."""
        return read_certificate(self.certificate.encode(), where=self._label, timely=False)

    @property
    def certificate_fingerprint(self) -> str:
        """The fingerprint of the certificate, which TLS shows."""
        return self.pinned.fingerprint

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public signing key."""
        return bytes.fromhex(self.signing_key)

    @property
    def made_at(self) -> datetime:
        """When the card was made, by its maker's clock."""
        return _moment(self.made, self._label)

    @property
    def _label(self) -> str:
        return self._origin or f"the card of {self.name}"

    def expired(self, now: datetime) -> bool:
        """Return whether the certificate has expired at `now`."""
        return now >= self.pinned.not_after

    def verify(self, now: datetime | None = None) -> None:
        """Check everything that the card says about itself, and at `now`, if given, that it is not expired.

        Raises DocumentError for a signature that is not the card's, a certificate that may not be pinned or
        has another name, and for times, addresses or successions that cannot be.
        """
        where = self._label
        try:
            check_name(self.name)
        except DocumentError as error:
            raise DocumentError(f"{where}: {error}") from None
        certificate = read_certificate(
            self.certificate.encode(), where=where, now=now, timely=now is not None
        )
        if certificate.pem.decode() != self.certificate:
            raise DocumentError(f"{where}: the certificate is not in the usual form of PEM")
        if certificate.name != self.name:
            raise DocumentError(f"{where}: is for {self.name}, but its certificate is for {certificate.name}")
        if not verify(self.public_key, _CARD_PURPOSE, self._signed, bytes.fromhex(self.signature)):
            raise DocumentError(f"{where}: the card's own signature does not fit: it was changed or damaged")
        made = self.made_at
        if made >= certificate.not_after:
            raise DocumentError(f"{where}: was made after its certificate expired")
        if now is not None and made > now + _SKEW:
            raise DocumentError(f"{where}: was made at {self.made}, which is yet to come; check both clocks")
        if (self.role == "party" and self.accepts) != bool(self.address):
            raise DocumentError(f"{where}: a party has an address if, and only if, it accepts connections")
        if self.address and not 0 < int(self.address.rpartition(":")[2]) < 1 << 16:
            raise DocumentError(f"{where}: {self.address} has no port from 1 to 65535")
        if self.role == "analyst" and self.accepts:
            raise DocumentError(f"{where}: an analyst accepts no connections")
        if bool(self.first) != bool(self.endorsement) or self.first == self.fingerprint:
            raise DocumentError(
                f"{where}: a later card names its origin and carries an endorsement, a first neither"
            )

    def endorsed_by(self, older: Card) -> bool:
        """Return whether `older`, another card of the same party, names this one as its successor."""
        return (
            bool(self.first)
            and (older.role, older.name, older.dev) == (self.role, self.name, self.dev)
            and older.origin_fingerprint == self.first
            and older.fingerprint != self.fingerprint
            and verify(
                older.public_key,
                _ENDORSEMENT_PURPOSE,
                _succession(self.first, self.fingerprint),
                bytes.fromhex(self.endorsement),
            )
        )

    def encode(self) -> bytes:
        """Return the card as its file holds it: canonical JSON and a line feed."""
        return canonical(self.model_dump(by_alias=True)) + b"\n"

    def __eq__(self, other: object) -> bool:
        # Where a card was read from, which the base compares as well, is no part of it.
        return isinstance(other, Card) and self.encode() == other.encode()

    def __hash__(self) -> int:
        return hash(self.signature)

    @property
    def _signed(self) -> bytes:
        return canonical(self.model_dump(by_alias=True, exclude={"signature"}))


@dataclass(frozen=True)
class Particulars:
    """What a card says besides keys. `address` is empty where nobody dials in."""

    role: Role
    name: str
    address: str = ""
    accepts: bool = False
    dev: bool = False


def make_card(
    about: Particulars,
    certificate: Certificate,
    signing: SigningKey,
    made: datetime,
    *,
    origin: str = "",
    endorsement: str = "",
) -> Card:
    """Return a new card, signed and checked. Raises DocumentError as `Card.verify` does."""
    fields: dict[str, object] = {
        "format": FORMAT,
        "role": about.role,
        "name": about.name,
        "address": about.address,
        "accepts": about.accepts,
        "certificate": certificate.pem.decode(),
        "signing_key": signing.public.hex(),
        "engine": __version__,
        "made": made.astimezone(UTC).strftime(_TIME),
        "dev": about.dev,
        "origin": origin,
        "endorsement": endorsement,
    }
    signature = signing.sign(_CARD_PURPOSE, canonical(fields)).hex()
    card = parse(fields | {"signature": signature}, Card, f"the card of {about.name}")
    card.verify()
    return card


def endorse(older: Card, signing: SigningKey, fingerprint: str) -> str:
    """Return `older`'s endorsement of the card with `fingerprint`, in hexadecimal."""
    return signing.sign(_ENDORSEMENT_PURPOSE, _succession(older.origin_fingerprint, fingerprint)).hex()


def read_card(content: bytes, where: str, *, now: datetime | None = None) -> Card:
    """Return the card in `content`; `where` names its origin in errors.

    Raises DocumentError for whatever is not, byte for byte, a card as its maker wrote it, and as
    `Card.verify` does at `now`.
    """
    if len(content) > LARGEST_CARD:
        raise DocumentError(f"{where}: is larger than {LARGEST_CARD} bytes, the most a card may have")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        raise DocumentError(f"{where}: not a card: no JSON") from None
    if not isinstance(fields, dict):
        raise DocumentError(f"{where}: not a card: no table of keys")
    card = parse(fields, Card, where)
    if content not in (card.encode(), card.encode()[:-1], card.encode()[:-1] + b"\r\n"):
        raise DocumentError(f"{where}: not a card as `party card` writes it; ask for the file itself")
    card.verify(now)
    return card


def load_card(path: Path, *, now: datetime | None = None) -> Card:
    """Return the card in a file; errors as `read_card`, and for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_CARD + 1)
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    return read_card(content, str(path), now=now)


def _succession(origin: str, fingerprint: str) -> bytes:
    return f"{origin}\0{fingerprint}".encode()


def _moment(text: str, where: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise DocumentError(f"{where}: {text} is no time") from None
