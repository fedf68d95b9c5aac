"""The trust store: who gets in, who stays out, and what rotation and revocation leave."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mpc_engine.documents import parse
from mpc_engine.errors import CertificateError, DocumentError
from mpc_engine.identity import (
    Card,
    Standing,
    Terms,
    TrustStore,
    activate,
    create_identity,
    load_identity,
    make_card,
    rotate,
    throwaway_identity,
    update_card,
    utc_now,
)
from mpc_engine.identity.cards import Particulars

UK = throwaway_identity("uk", address="uk:8470").card
ALICE = throwaway_identity("alice", role="analyst", accepts=False).card
TERMS = parse({"budget": "2.0", "presets": ["crosstab"]}, Terms, "terms")


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    """An empty store."""
    return TrustStore(tmp_path / "trust")


def contents(store: TrustStore) -> dict[str, bytes]:
    """Return everything in a store."""
    folder = store.directory
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "typed",
    [UK.fingerprint, UK.fingerprint[-8:], UK.fingerprint[7:], UK.fingerprint[-8:].upper() + "\n"],
    ids=["whole", "last eight", "without sha256", "in capitals"],
)
def test_a_confirmed_card_is_trusted(store: TrustStore, typed: str) -> None:
    assert store.standing(UK) is Standing.NEW
    assert store.add(UK, typed=typed) is Standing.NEW
    assert store.cards("uk") == (UK,) and store.names() == ("uk",)
    assert store.add(UK) is Standing.KNOWN
    assert list(contents(store)) == ["uk.card.json"]


@pytest.mark.parametrize(
    "typed",
    [None, "", UK.fingerprint[-7:], UK.fingerprint[7:15], 8 * "0", "sha256:"],
    ids=["none", "empty", "last seven", "first eight", "zeros", "prefix"],
)
def test_a_card_that_is_not_confirmed(store: TrustStore, typed: str | None) -> None:
    with pytest.raises(DocumentError, match=UK.fingerprint):
        store.add(UK, typed=typed)
    with pytest.raises(DocumentError, match="no card of uk"):
        store.cards("uk")
    assert contents(store) == {}


def test_real_and_dev_cards_never_meet(store: TrustStore, tmp_path: Path) -> None:
    dev = throwaway_identity("uk", dev=True).card
    trials = TrustStore(tmp_path / "trials", dev=True)
    with pytest.raises(DocumentError, match="marked DEV"):
        store.add(dev, typed=dev.fingerprint)
    with pytest.raises(DocumentError, match="a real one"):
        trials.add(UK, typed=UK.fingerprint)
    trials.add(dev, typed=dev.fingerprint)
    with pytest.raises(DocumentError, match="is a DEV card"):
        TrustStore(trials.directory).cards("uk")


def test_expired_cards(store: TrustStore) -> None:
    late = UK.pinned.not_after
    future = TrustStore(store.directory, clock=lambda: late)
    with pytest.raises(DocumentError, match="expired"):
        future.add(UK, typed=UK.fingerprint)
    store.add(UK, typed=UK.fingerprint)
    with pytest.raises(CertificateError, match="certificate of uk expired"):
        future.cards("uk")
    assert future.stored() == (UK,)


def test_what_belongs_to_somebody_else(store: TrustStore) -> None:
    store.add(UK, typed=UK.fingerprint)
    analyst = throwaway_identity("uk", role="analyst", accepts=False).card
    with pytest.raises(DocumentError, match="uk is the name of the party"):
        store.add_analyst(analyst, TERMS, typed=analyst.fingerprint)
    us, other = throwaway_identity("us"), throwaway_identity("other")
    store.add(us.card, typed=us.card.fingerprint)
    stolen = make_card(Particulars("party", "other"), other.certificate, us.signing, utc_now())
    with pytest.raises(DocumentError, match="us and other share a key"):
        store.add(stolen, typed=stolen.fingerprint)
    half = make_card(
        Particulars("party", "us"),
        throwaway_identity("us").certificate,
        us.signing,
        utc_now() + timedelta(seconds=5),
    )
    with pytest.raises(DocumentError, match="two cards of us share a key"):
        store.add(half, typed=half.fingerprint)


def test_older_cards_of_the_same_name(store: TrustStore) -> None:
    old = throwaway_identity("uk", clock=lambda: utc_now() - timedelta(days=3)).card
    store.add(UK, typed=UK.fingerprint)
    with pytest.raises(DocumentError, match="before the one trusted here"):
        store.add(old, typed=old.fingerprint)


# --- rotation ---------------------------------------------------------------------------------------


def rotated(folder: Path, times: int) -> list[Card]:
    """Return the cards of a party that rotates some times."""
    cards = [create_identity("us", folder, address="us:1").card]
    for _ in range(times):
        rotate(folder)
        cards.append(activate(folder).card)
    return cards


def test_an_endorsed_successor_needs_no_confirmation(store: TrustStore, tmp_path: Path) -> None:
    cards = rotated(tmp_path / "us", 2)
    store.add(cards[0], typed=cards[0].fingerprint)
    for index, card in enumerate(cards[1:], start=1):
        assert store.add(card) is Standing.SUCCESSOR
        assert store.cards("us") == tuple(reversed(cards[: index + 1]))
        assert store.add(card) is Standing.KNOWN
    end = cards[0].pinned.not_after
    assert TrustStore(store.directory, clock=lambda: end).stored() == store.cards("us")
    with pytest.raises(DocumentError, match="before the one trusted here"):
        TrustStore(store.directory).add(update(cards[0], tmp_path), typed=cards[0].fingerprint)


def update(card: Card, tmp_path: Path) -> Card:
    """Return a card of somebody else's key that claims to be older than `card` and of the same party."""
    return throwaway_identity(card.name, clock=lambda: card.made_at - timedelta(days=1)).card


def test_a_skipped_card_breaks_the_chain(store: TrustStore, tmp_path: Path) -> None:
    cards = rotated(tmp_path / "us", 2)
    store.add(cards[0], typed=cards[0].fingerprint)
    assert store.standing(cards[2]) is Standing.REPLACEMENT
    with pytest.raises(DocumentError, match="must be confirmed"):
        store.add(cards[2])
    assert store.add(cards[1]) is Standing.SUCCESSOR
    assert store.add(cards[2]) is Standing.SUCCESSOR


def test_a_card_with_a_false_endorsement_must_be_confirmed(store: TrustStore, tmp_path: Path) -> None:
    us, thief = throwaway_identity("us"), throwaway_identity("us")
    store.add(us.card, typed=us.card.fingerprint)
    later = utc_now() + timedelta(seconds=5)
    forged = make_card(
        Particulars("party", "us"),
        thief.certificate,
        thief.signing,
        later,
        origin=us.card.fingerprint,
        endorsement=thief.signing.sign("card-endorsement", b"x").hex(),
    )
    with pytest.raises(DocumentError, match="must be confirmed"):
        store.add(forged)
    assert store.cards("us") == (us.card,)


def test_a_replacement_revokes_what_was_there(store: TrustStore) -> None:
    lost = throwaway_identity("us", clock=lambda: utc_now() - timedelta(days=3)).card
    fresh = throwaway_identity("us").card
    store.add(lost, typed=lost.fingerprint)
    assert store.add(fresh, typed=fresh.fingerprint) is Standing.REPLACEMENT
    assert store.cards("us") == (fresh,)
    assert [each.read() for each in store.revoked()] == [lost]
    with pytest.raises(DocumentError, match="was revoked"):
        store.add(lost, typed=lost.fingerprint)


def test_an_address_is_updated_without_confirmation(store: TrustStore, tmp_path: Path) -> None:
    made = create_identity("us", tmp_path / "us", address="old:1").card
    store.add(made, typed=made.fingerprint)
    changed = update_card(tmp_path / "us", address="new:2")
    assert store.add(changed) is Standing.UPDATE
    assert [card.address for card in store.cards("us")] == ["new:2"]
    with pytest.raises(DocumentError, match="before the one trusted here"):
        store.add(made)
    new = rotate(tmp_path / "us").card
    store.add(new)
    again = update_card(tmp_path / "us", address="newer:3")
    assert store.add(again) is Standing.UPDATE
    assert {card.fingerprint: card.address for card in store.cards("us")} == {
        new.fingerprint: "new:2",
        made.fingerprint: "newer:3",
    }


# --- revocation -------------------------------------------------------------------------------------


def test_a_revoked_card_counts_no_more(tmp_path: Path) -> None:
    moment = utc_now().replace(microsecond=0)
    store = TrustStore(tmp_path / "trust", clock=lambda: moment + timedelta(minutes=1))
    old, new = rotated(tmp_path / "us", 1)
    store.add(old, typed=old.fingerprint)
    store.add(new)
    assert store.revoke(old.fingerprint[-8:], "rotated") == old
    assert store.cards("us") == (new,)
    (noted,) = store.revoked()
    assert (noted.read(), noted.reason) == (old, "rotated")
    assert datetime.strptime(noted.revoked, "%Y-%m-%dT%H:%M:%S%z") == moment + timedelta(minutes=1)
    store.revoke(new.fingerprint, "left")
    with pytest.raises(DocumentError, match="no card of us"):
        store.cards("us")
    with pytest.raises(DocumentError, match="was revoked"):
        store.add(new, typed=new.fingerprint)


def test_a_revoked_key_endorses_nobody(store: TrustStore, tmp_path: Path) -> None:
    old = create_identity("us", tmp_path / "us").card
    store.add(old, typed=old.fingerprint)
    new = rotate(tmp_path / "us").card
    store.revoke(old.fingerprint, "stolen")
    assert store.standing(new) is Standing.NEW


def test_a_revocation_that_was_interrupted_holds(store: TrustStore) -> None:
    store.add(UK, typed=UK.fingerprint)
    before = contents(store)
    store.revoke(UK.fingerprint, "stolen")
    (store.directory / "uk.card.json").write_bytes(before["uk.card.json"])
    with pytest.raises(DocumentError, match="no card of uk"):
        store.cards("uk")


@pytest.mark.parametrize(
    "wanted",
    ["", "0", UK.fingerprint[-7:], 8 * "0", "sha256:"],
    ids=["empty", "zero", "last seven", "zeros", "prefix"],
)
def test_revoking_nobody(store: TrustStore, wanted: str) -> None:
    store.add(UK, typed=UK.fingerprint)
    with pytest.raises(DocumentError, match="no card has a fingerprint"):
        store.revoke(wanted, "x")
    with pytest.raises(DocumentError, match="reason"):
        store.revoke(UK.fingerprint, "")
    assert store.cards("uk") == (UK,)


# --- analysts ---------------------------------------------------------------------------------------


def test_analysts_are_enrolled_with_their_terms(store: TrustStore) -> None:
    assert store.add_analyst(ALICE, TERMS, typed=ALICE.fingerprint) is Standing.NEW
    (alice,) = store.analysts()
    assert (alice.name, alice.cards) == ("alice", (ALICE,))
    assert alice.terms.model_dump() == TERMS.model_dump()
    assert store.names() == ()
    larger = parse({"budget": "3", "delta": "1e-6", "projects": ["breast"]}, Terms, "terms")
    assert store.add_analyst(ALICE, larger) is Standing.KNOWN
    assert store.analysts()[0].terms.model_dump() == larger.model_dump()
    assert store.revoke(ALICE.fingerprint, "left") == ALICE
    assert store.analysts() == ()
    assert store.terms("alice").budget == "3"


def test_roles_are_not_mixed_up(store: TrustStore) -> None:
    with pytest.raises(DocumentError, match="party analyst add"):
        store.add(ALICE, typed=ALICE.fingerprint)
    with pytest.raises(DocumentError, match="party trust add"):
        store.add_analyst(UK, TERMS, typed=UK.fingerprint)
    with pytest.raises(DocumentError, match="must be confirmed"):
        store.add_analyst(ALICE, TERMS)
    assert contents(store) == {}


@pytest.mark.parametrize("terms", [{}, {"budget": 2}, {"budget": "0"}, {"budget": "2", "presets": []}])
def test_terms_that_cannot_be(terms: dict[str, object]) -> None:
    with pytest.raises(DocumentError):
        parse(terms, Terms, "terms")


def test_an_expired_analyst_is_not_listed(store: TrustStore) -> None:
    store.add_analyst(ALICE, TERMS, typed=ALICE.fingerprint)
    late = ALICE.pinned.not_after
    assert TrustStore(store.directory, clock=lambda: late).analysts() == ()


# --- a store that somebody changed ------------------------------------------------------------------


def test_files_under_another_name_are_refused(store: TrustStore) -> None:
    store.add(UK, typed=UK.fingerprint)
    (store.directory / "uk.card.json").rename(store.directory / "us.card.json")
    with pytest.raises(DocumentError, match="holds the card of the party uk"):
        store.names()


def test_a_changed_file_is_refused(store: TrustStore) -> None:
    store.add(UK, typed=UK.fingerprint)
    path = store.directory / "uk.card.json"
    fields = json.loads(path.read_bytes())
    path.write_text(json.dumps(fields | {"address": "evil:1"}, separators=(",", ":"), sort_keys=True))
    with pytest.raises(DocumentError, match="signature does not fit"):
        store.cards("uk")


def test_a_store_that_cannot_be_written(store: TrustStore) -> None:
    store.directory.write_text("a file")
    with pytest.raises(DocumentError, match="cannot be written"):
        store.add(UK, typed=UK.fingerprint)


def test_an_identity_keeps_its_equality(tmp_path: Path) -> None:
    made = create_identity("us", tmp_path)
    assert load_identity(tmp_path) == made == replace(made)
