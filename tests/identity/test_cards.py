"""Cards: what they say, and that nobody can change a byte of one."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.documents import canonical
from mpc_engine.errors import DocumentError
from mpc_engine.identity import Card, Identity, SigningKey, load_card, read_card, throwaway_identity
from mpc_engine.identity.cards import LARGEST_CARD
from tests.transport.forgery import certificate_pem

NOW = datetime.now(UTC)


@cache
def party() -> Identity:
    """Return a party, the same for all tests."""
    return throwaway_identity("uk-registry", address="registry.example:8470")


def forged(changes: dict[str, object]) -> bytes:
    """Return a card with some fields changed by its own maker, who signs it again."""
    made = party()
    fields = json.loads(made.card.encode()) | changes
    del fields["signature"]
    signature = made.signing.sign("card", rfc8785.dumps(fields)).hex()
    return rfc8785.dumps(fields | {"signature": signature})


def test_a_card_tells_who_somebody_is() -> None:
    made = party()
    fields = json.loads(made.card.encode())
    assert (fields["role"], fields["name"], fields["address"]) == (
        "party",
        "uk-registry",
        "registry.example:8470",
    )
    assert fields["certificate"] == made.certificate.pem.decode()
    assert bytes.fromhex(fields["signing_key"]) == made.signing.public
    assert (fields["accepts"], fields["dev"], fields["origin"], fields["endorsement"]) == (
        True,
        False,
        "",
        "",
    )
    content = f"mpc-engine/card/1\0party\0uk-registry\0{made.fingerprint}\0{made.signing.public.hex()}"
    assert made.card.fingerprint == "sha256:" + hashlib.sha256(content.encode()).hexdigest()
    assert made.card.origin_fingerprint == made.card.fingerprint
    assert (made.card.certificate_fingerprint, made.card.public_key) == (
        made.fingerprint,
        made.signing.public,
    )
    assert len(made.card.words) == 12
    assert "PRIVATE" not in made.card.encode().decode()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_card_is_read_as_it_was_written(end: bytes) -> None:
    written = party().card.encode().removesuffix(b"\n") + end
    assert read_card(written, "x", now=NOW) == party().card
    assert canonical(json.loads(written)) == written.removesuffix(end)


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    content = bytearray(party().card.encode())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    with pytest.raises(DocumentError):
        read_card(bytes(content), "x")


@given(st.binary(max_size=30), st.integers(0, 1500), st.integers(0, 30))
def test_any_damage_is_refused(junk: bytes, place: int, left_out: int) -> None:
    good = party().card.encode()
    content = good[:place] + junk + good[place + left_out :]
    if content.removesuffix(b"\n").removesuffix(b"\r") == good.removesuffix(b"\n"):
        return
    with pytest.raises(DocumentError):
        read_card(content, "x")


@pytest.mark.parametrize("field", sorted(json.loads(party().card.encode())))
def test_every_field_is_needed_and_signed(field: str) -> None:
    fields = json.loads(party().card.encode())
    with pytest.raises(DocumentError):
        read_card(canonical({key: value for key, value in fields.items() if key != field}), "x")
    others = json.loads(throwaway_identity("other", dev=True).card.encode())
    if others[field] != fields[field]:
        with pytest.raises(DocumentError):
            read_card(canonical(fields | {field: others[field]}), "x")


def test_the_signature_is_made_with_the_key_of_the_card() -> None:
    card = json.loads(party().card.encode())
    thief = SigningKey.create()
    with pytest.raises(DocumentError, match="signature does not fit"):
        read_card(canonical(card | {"signing_key": thief.public.hex()}), "x")


P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certificate": certificate_pem("uk-registry", P256, ca=True).decode()}, "CA:TRUE"),
        ({"certificate": certificate_pem("uk-registry", P256, days=826).decode()}, "more than 825 days"),
        (
            {"certificate": certificate_pem("us-registry", P256).decode()},
            "its certificate is for us-registry",
        ),
        ({"certificate": certificate_pem("uk-registry", P256).decode() + "\n"}, "usual form"),
        ({"name": "us-registry"}, "is for us-registry, but its certificate is for uk-registry"),
        ({"name": "UK"}, "no party name"),
        ({"address": ""}, "if, and only if"),
        ({"accepts": False}, "if, and only if"),
        ({"address": "somewhere:0"}, "no port"),
        ({"address": "somewhere:70000"}, "no port"),
        ({"address": "some where:1"}, "address"),
        ({"role": "analyst", "address": ""}, "accepts no connections"),
        ({"role": "analyst"}, "if, and only if"),
        ({"role": "coordinator"}, "role"),
        ({"made": "2026-02-30T00:00:00Z"}, "is no time"),
        ({"made": f"{NOW + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"}, "yet to come"),
        ({"made": "2060-01-01T00:00:00Z"}, "after its certificate expired"),
        ({"origin": "sha256:" + 64 * "0"}, "names its origin and carries an endorsement"),
        ({"endorsement": 128 * "0"}, "names its origin and carries an endorsement"),
        ({"origin": party().card.fingerprint, "endorsement": 128 * "0"}, "names its origin"),
        ({"format": "mpc-engine/card/2"}, "format"),
        ({"more": "x"}, "more"),
        ({"dev": "false"}, "dev"),
    ],
)
def test_cards_that_contradict_themselves(changes: dict[str, object], words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        read_card(forged(changes), "uk.card.json", now=NOW)


def test_expired_cards_can_be_read_but_not_for_now() -> None:
    late = party().certificate.not_after
    with pytest.raises(DocumentError, match="expired"):
        read_card(party().card.encode(), "x", now=late)
    card = read_card(party().card.encode(), "x")
    assert card.expired(late) and not card.expired(late - timedelta(seconds=1))


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    path = tmp_path / "x.card.json"
    with pytest.raises(DocumentError, match="cannot be read"):
        load_card(path)
    spaced = json.dumps(json.loads(party().card.encode()), indent=1).encode()
    for content, words in (
        (b"", "no JSON"),
        (b"[" * 10_000, "no JSON"),
        (b"[]", "no table"),
        (b"\xff", "no JSON"),
        (b" " * (LARGEST_CARD + 1), "larger than"),
        (spaced, "as `party card` writes it"),
    ):
        path.write_bytes(content)
        with pytest.raises(DocumentError, match=words):
            load_card(path)
    path.write_bytes(party().card.encode())
    assert load_card(path) == party().card


def test_cards_are_equal_if_they_say_the_same() -> None:
    again = read_card(party().card.encode(), "somewhere else")
    assert again == party().card and hash(again) == hash(party().card)
    assert isinstance(again, Card) and again != throwaway_identity("uk-registry").card
