"""The commands that make, exchange, change and revoke cards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mpc_engine.identity import TrustStore, create_identity, load_card, load_identity
from tests.cli.conftest import Run
from tests.party.machines import Study, make_study

IN_FORCE = "In force at the next start or reload of the service (`systemctl reload mpc-engine@{}`)."


@pytest.fixture
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Three parties that trust each other; the commands run in the folder of p1."""
    made = make_study(tmp_path, registered=False)
    monkeypatch.chdir(made.home("p1"))
    return made


def fits(text: str) -> None:
    """Check that a text fits a terminal of 80 columns."""
    assert max(map(len, text.splitlines())) <= 80


def test_a_party_makes_its_keys_and_prints_its_card(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    arguments = ("party", "init", "--name", "uk", "--address", "uk.example:8470", "--identity", folder)
    made = run(*arguments)
    identity = load_identity(folder)
    assert made.status == 0
    fits(made.out)
    assert identity.card.fingerprint in made.out
    assert all(word in made.out for word in identity.card.words)
    assert (identity.card.address, identity.card.accepts, identity.card.dev) == (
        "uk.example:8470",
        True,
        False,
    )
    assert "PRIVATE" not in made.out
    printed = run("party", "card", "--identity", folder)
    assert printed.out.encode() == (folder / "card.json").read_bytes()
    run(*arguments).failed_with(2, "holds an identity already")


def test_a_party_that_nobody_can_connect_to(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    start = ("party", "init", "--name", "uk", "--identity", folder)
    run(*start).failed_with(2, "--address HOST:PORT", "--no-inbound")
    run(*start, "--no-inbound", "--address", "uk:1").failed_with(2, "say either")
    run("party", "init", "--no-inbound").failed_with(2, "name this party: --name")
    run("party", "init", "--name", "U K", "--no-inbound", "--identity", folder).failed_with(
        2, "no party name"
    )
    assert not folder.exists()
    assert "accepts no connections" in run(*start, "--no-inbound", "--dev").out
    card = load_card(folder / "card.json")
    assert (card.accepts, card.address, card.dev) == (False, "", True)
    changed = run("party", "card", "--identity", folder, "--address", "uk:8470")
    assert json.loads(changed.out)["address"] == "uk:8470"
    assert load_card(folder / "card.json").fingerprint == card.fingerprint


def test_init_takes_name_and_address_from_the_documents(run: Run, tmp_path: Path) -> None:
    parties = make_study(tmp_path, registered=False)
    home = parties.home("p2")
    parties.rewrite("p2", "party.toml", 'identity = "identity"', 'identity = "new"')
    run("party", "init", "--config", home / "party.toml").failed_with(2, "--address HOST:PORT")
    parties.rewrite("p2", "roster.toml", 'name = "p2"', 'name = "p2"\naddress = "p2.example:1"')
    run("party", "init", "--config", home / "party.toml", "--name", "p3").failed_with(2, "of p2, not of p3")
    assert run("party", "init", "--config", home / "party.toml").status == 0
    assert load_card(home / "new/card.json").address == "p2.example:1"


# --- trust ------------------------------------------------------------------------------------------


def test_a_card_is_added_with_its_fingerprint(run: Run, tmp_path: Path) -> None:
    card = create_identity("us", tmp_path / "us", address="us:1").card
    add = ("party", "trust", "add", tmp_path / "us/card.json", "--trust", tmp_path / "trust")
    run(*add).failed_with(2, "must be confirmed", card.fingerprint, "--fingerprint")
    run(*add, "--fingerprint", "00000000").failed_with(2, "another fingerprint than confirmed")
    run(*add, "--dev", "--fingerprint", card.fingerprint).failed_with(2, "for DEV parties only")
    added = run(*add, "--fingerprint", card.fingerprint)
    assert added.status == 0 and "Added to the cards that are trusted." in added.out
    assert "reload" not in added.out  # no service reads this folder
    fits(added.out)
    assert all(word in added.out for word in (card.fingerprint, *card.words))
    assert TrustStore(tmp_path / "trust").cards("us") == (card,)
    assert "trusted already" in run(*add).out


@pytest.mark.parametrize("right", [True, False])
def test_the_last_digits_are_typed_at_a_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    card = create_identity("us", tmp_path / "us", address="us:1").card
    asked = []

    def answer(question: str) -> str:
        asked.append(question)
        return card.fingerprint[-8:] if right else "12345678"

    monkeypatch.setattr("mpc_engine.cli.trust.typer.prompt", answer)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    result = run("party", "trust", "add", tmp_path / "us/card.json", "--trust", tmp_path / "trust")
    assert len(asked) == 1 and "us" in asked[0]
    assert result.status == (0 if right else 2), result.err
    assert TrustStore(tmp_path / "trust").names() == (("us",) if right else ())


def test_the_cards_are_listed(run: Run, parties: Study) -> None:
    listed = run("party", "trust", "list", "--config", "party.toml")
    assert listed.status == 0
    fits(listed.out)
    fields = json.loads(run("party", "trust", "list", "--config", "party.toml", "--json").out)
    assert [card["name"] for card in fields["trusted"]] == ["p2", "p3"]
    for card in fields["trusted"]:
        assert card["fingerprint"][-8:] in listed.out and card["address"] in listed.out
    gone = fields["trusted"][0]["fingerprint"]
    run("party", "revoke", gone[-8:], "--config", "party.toml").failed_with(2, "Missing option '--reason'")
    revoked = run("party", "revoke", gone[-8:], "--reason", "key lost", "--config", "party.toml")
    assert (
        revoked.status == 0
        and gone in revoked.out
        and "No card of p2 is left" in " ".join(revoked.out.split())
    )
    after = run("party", "trust", "list", "--config", "party.toml")
    assert "key lost" in after.out
    run("party", "roster", "--config", "party.toml").failed_with(2, "holds no card of p2", "party trust add")
    run("party", "revoke", "01234567", "--reason", "x", "--config", "party.toml").failed_with(
        2, "no card has"
    )
    both = ("--config", "party.toml", "--trust", "trust")
    run("party", "trust", "list", *both).failed_with(2, "name either --config, or --trust")


def test_an_empty_store_says_how_to_fill_it(run: Run, tmp_path: Path) -> None:
    assert "party trust add" in run("party", "trust", "list", "--trust", tmp_path).out
    assert "party analyst add" in run("party", "analyst", "list", "--trust", tmp_path).out


# --- roster and rotation ----------------------------------------------------------------------------


def test_all_parties_see_the_same_roster(run: Run, parties: Study) -> None:
    texts, fields = [], []
    for name in parties.names:
        config = parties.home(name) / "party.toml"
        shown = run("party", "roster", "--config", config)
        assert shown.status == 0
        fits(shown.out)
        assert f"{name} (this party)" in shown.out
        texts.append(shown.out.partition("Digest")[2])
        fields.append(json.loads(run("party", "roster", "--config", config, "--json").out))
    assert len(set(texts)) == 1
    assert {each["digest"] for each in fields} == {fields[0]["digest"]}
    assert fields[0]["digest"] in texts[0] and all(word in texts[0] for word in fields[0]["words"])
    assert [party["this_party"] for party in fields[1]["parties"]] == [False, True, False]
    plain = run("plan", "query.toml", "--config", "party.toml", "--json")
    assert plain.status == 0, plain.err


def test_keys_are_changed_without_a_telephone_call(run: Run, parties: Study) -> None:
    digest = json.loads(run("party", "roster", "--config", "party.toml", "--json").out)["digest"]
    theirs, folder = parties.home("p2") / "party.toml", parties.home("p2") / "identity"
    old = load_card(folder / "card.json")
    run("party", "rotate", "--config", theirs, "--activate").failed_with(2, "no new identity waits")
    run("party", "card", "--config", theirs, "--next").failed_with(2, "no new identity waits")
    made = run("party", "rotate", "--config", theirs)
    assert made.status == 0
    fits(made.out.replace(str(parties.folder), ""))
    run("party", "rotate", "--config", theirs).failed_with(2, "holds a new identity already")
    waiting = run("party", "card", "--config", theirs, "--next").out
    (parties.folder / "sent.json").write_text(waiting)
    added = run("party", "trust", "add", parties.folder / "sent.json", "--config", "party.toml")
    assert added.status == 0 and "endorses it" in added.out
    assert IN_FORCE.format("p1") in " ".join(added.out.split())
    assert load_card(parties.folder / "sent.json").fingerprint in added.out
    assert load_card(folder / "card.json") == old
    assert run("party", "rotate", "--config", theirs, "--activate").status == 0
    assert run("party", "card", "--config", theirs).out == waiting
    finished = run("party", "rotate", "--config", theirs, "--finish")
    assert old.fingerprint in finished.out and f"revoke {old.fingerprint[-8:]}" in finished.out
    for config in ("party.toml", theirs):
        shown = run("party", "roster", "--config", config, "--json")
        assert json.loads(shown.out)["digest"] == digest
    kept = run("party", "revoke", old.fingerprint, "--reason", "rotated", "--config", "party.toml")
    assert "Still trusted for p2" in kept.out
    assert json.loads(run("party", "roster", "--config", "party.toml", "--json").out)["digest"] == digest


# --- analysts ---------------------------------------------------------------------------------------


def test_an_analyst_is_enrolled(run: Run, parties: Study) -> None:
    made = run("analyst", "init", "--name", "alice", "--out", "alice", "--dev")
    card = load_card(Path("alice/card.json"))
    assert made.status == 0 and card.fingerprint in made.out
    fits(made.out)
    assert run("analyst", "card", "--identity", "alice").out.encode() == card.encode()
    run("analyst", "card", "--identity", "identity").failed_with(2, "identity of a party")
    add = ("party", "analyst", "add", "alice/card.json", "--config", "party.toml")
    run(*add).failed_with(2, "Missing option '--budget'")
    run(*add, "--budget", "2.0").failed_with(2, "must be confirmed")
    run(*add, "--budget", "0", "--fingerprint", card.fingerprint).failed_with(2, "budget")
    run(*add, "--budget", "2", "--presets", "average").failed_with(2, "'average' is no preset; presets: ")
    limits = ("--budget", "2.0", "--presets", "crosstab, count", "--projects", "breast-2026")
    added = run(*add, *limits, "--fingerprint", card.fingerprint[-8:])
    assert added.status == 0 and "from now on" not in added.out
    fits(added.out)
    assert IN_FORCE.format("p1") in " ".join(added.out.split())
    listed = run("party", "analyst", "list", "--config", "party.toml")
    fits(listed.out)
    for words in ("alice", card.fingerprint[-8:], "2.0", "crosstab", "breast-2026"):
        assert words in listed.out
    (fields,) = json.loads(run("party", "analyst", "list", "--config", "party.toml", "--json").out)[
        "analysts"
    ]
    assert (fields["budget"], fields["presets"], fields["projects"]) == (
        "2.0",
        ["crosstab", "count"],
        ["breast-2026"],
    )
    changed = " ".join(run(*add, "--budget", "3").out.split())
    assert "terms were changed" in changed and IN_FORCE.format("p1") in changed
    run("party", "trust", "add", "alice/card.json", "--config", "party.toml").failed_with(2, "analyst add")
    party = parties.home("p2") / "identity/card.json"
    run("party", "analyst", "add", party, "--budget", "1", "--config", "party.toml").failed_with(
        2, "party trust add"
    )
    gone = run("party", "revoke", card.fingerprint, "--reason", "left", "--config", "party.toml")
    said = " ".join(gone.out.split())
    assert "its requests are refused" in said and IN_FORCE.format("p1") in said


def test_help_fits_a_terminal(run: Run) -> None:
    for command in (
        ("party", "init"),
        ("party", "card"),
        ("party", "trust"),
        ("party", "trust", "add"),
        ("party", "trust", "list"),
        ("party", "roster"),
        ("party", "rotate"),
        ("party", "revoke"),
        ("party", "analyst"),
        ("party", "analyst", "add"),
        ("party", "analyst", "list"),
        ("analyst",),
        ("analyst", "init"),
        ("analyst", "card"),
    ):
        result = run(*command, "--help")
        assert result.status == 0, command
        fits(result.out)
        assert "..." not in result.out.replace("[ARGS]...", "")
