"""A receipt is checked offline: what it proves, what it does not, and everything that breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.identity import TrustStore, throwaway_identity
from mpc_engine.party.receipt import FORMAT, RECEIPT_PURPOSE, receipt_content
from mpc_engine.release.table import release_digest
from tests.cli.conftest import Run

PARTIES = {name: throwaway_identity(name) for name in ("uk", "us", "helper")}
STRANGER = throwaway_identity("us")
RELEASE: dict[str, Any] = {
    "format": "mpc-engine/release/2",
    "groups": [{"name": "count", "tallies": [{"name": "records", "values": [12]}]}],
}
Fields = dict[str, Any]


def signed(fields: Fields, **signers: Any) -> Fields:
    """Return a receipt with the signatures of all parties, or of others in their places."""
    content = receipt_content(fields)
    by = PARTIES | signers
    signatures = {name: by[name].signing.sign(RECEIPT_PURPOSE, content).hex() for name in PARTIES}
    return {**fields, "signatures": signatures}


def receipt() -> Fields:
    """Return a receipt without signatures."""
    parties = [
        {
            "name": name,
            "card": identity.card.origin_fingerprint,
            "signing_key": identity.signing.public.hex(),
        }
        for name, identity in PARTIES.items()
    ]
    return {"format": FORMAT, "parties": parties, "release_sha256": release_digest(RELEASE)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a receipt, its release, and a folder of the parties' cards but uk's."""
    (tmp_path / "receipt.json").write_text(json.dumps(signed(receipt())))
    (tmp_path / "release.json").write_text(json.dumps(RELEASE))
    store = TrustStore(tmp_path / "trust")
    for name in ("us", "helper"):
        store.add(PARTIES[name].card, typed=PARTIES[name].card.fingerprint[-8:])
    (tmp_path / "uk.card.json").write_bytes(PARTIES["uk"].card.encode())
    return tmp_path


def test_a_receipt_that_holds(run: Run, folder: Path) -> None:
    trusted = ("--trust", folder / "trust", "--card", folder / "uk.card.json")
    result = run("receipt", "verify", folder / "receipt.json", "--release", folder, *trusted)
    assert result.status == 0, result.err
    assert max(map(len, result.out.splitlines())) <= 80
    words = " ".join(result.out.split())
    for name in PARTIES:
        assert f"✓ {name} signed it" in words and f"✓ its key for {name} is that of the card" in words
    assert "✓ it is of this release" in words and "✗" not in words
    assert "What this proves" in words and "What it does not prove" in words
    assert "noise was drawn" in words and "--trust" not in words
    found = json.loads(run("receipt", "verify", folder, *trusted, "--json").out)
    assert found["ok"] and found["proves"] and all(each["ok"] for each in found["findings"])
    assert any("of this release" in each["words"] for each in found["findings"])  # found in the folder


def test_without_cards_it_says_whose_keys_it_cannot_tell(run: Run, folder: Path) -> None:
    result = run("receipt", "verify", folder / "receipt.json")
    assert result.status == 0
    words = " ".join(result.out.split())
    assert "Whose they are it cannot show" in words and "No release was compared" in words


def changed(change: Callable[[Fields], object]) -> Fields:
    """Return a signed receipt that was changed after signing."""
    fields = signed(receipt())
    change(fields)
    return fields


BROKEN: dict[str, tuple[Fields, str]] = {
    "a field": (changed(lambda fields: fields.update(release_sha256="0" * 64)), "uk did not sign it"),
    "a signature": (changed(lambda fields: fields["signatures"].pop("us")), "signatures are missing: us"),
    "another's": (signed(receipt(), us=STRANGER), "us did not sign it"),
    "a party": (changed(lambda fields: fields["parties"].pop()), "did not sign it"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_hold_is_said_and_fails(run: Run, folder: Path, what: str) -> None:
    fields, words = BROKEN[what]
    (folder / "receipt.json").write_text(json.dumps(fields))
    result = run("receipt", "verify", folder / "receipt.json")
    result.failed_with(7, "does not hold", words)
    assert "This receipt proves nothing" in result.out and "What this proves" not in result.out
    found = run("receipt", "verify", folder / "receipt.json", "--json")
    assert found.status == 7
    told = json.loads(found.out)
    assert not told["ok"] and told["proves"] == []


def test_a_key_on_no_trusted_card_fails(run: Run, folder: Path) -> None:
    result = run("receipt", "verify", folder / "receipt.json", "--trust", folder / "trust")
    result.failed_with(7, "its key for uk is on no card")
    fields = receipt()
    fields["parties"][1]["signing_key"] = STRANGER.signing.public.hex()
    (folder / "receipt.json").write_text(json.dumps(signed(fields, us=STRANGER)))
    cards = ("--trust", folder / "trust", "--card", folder / "uk.card.json")
    run("receipt", "verify", folder / "receipt.json", *cards).failed_with(7, "its key for us is on no card")


def test_dev_cards_are_asked_for_by_an_option(run: Run, folder: Path) -> None:
    identity = throwaway_identity("us", dev=True)
    store = TrustStore(folder / "dev", dev=True)
    store.add(identity.card, typed=identity.card.fingerprint[-8:])
    refused = run("receipt", "verify", folder / "receipt.json", "--trust", folder / "dev")
    refused.failed_with(2, "us.card.json: is a DEV card", "add --dev")
    assert "configuration" not in refused.said
    real = run("receipt", "verify", folder / "receipt.json", "--trust", folder / "trust", "--dev")
    real.failed_with(2, "is a real card", "leave --dev out")


def test_another_release_fails(run: Run, folder: Path) -> None:
    release = json.loads(json.dumps(RELEASE))
    release["groups"][0]["tallies"][0]["values"] = [13]
    (folder / "release.json").write_text(json.dumps(release))
    run("receipt", "verify", folder).failed_with(7, "it is of another release")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("receipt.json", "{}", "not a receipt"),
        ("receipt.json", "[]", "table of keys"),
        ("receipt.json", '{"format": "mpc-engine/receipt/1", "parties": 7}', "not a receipt"),
        ("release.json", "{", "not valid JSON"),
        ("release.json", "[]", "is not a release"),
        ("release.json", "{}", "release"),
    ],
)
def test_what_is_no_receipt_or_release_is_named(
    run: Run, folder: Path, file: str, content: str, words: str
) -> None:
    (folder / file).write_text(content)
    run("receipt", "verify", folder).failed_with(2, words)


def test_files_that_are_missing_are_named(run: Run, folder: Path) -> None:
    run("receipt", "verify", folder / "none.json").failed_with(2, "there is no such file")
    no_folder = ("--trust", folder / "nobody")
    run("receipt", "verify", folder, *no_folder).failed_with(2, "is no folder of cards")
    no_release = ("--release", folder / "none.json")
    run("receipt", "verify", folder / "receipt.json", *no_release).failed_with(2, "cannot be read")
