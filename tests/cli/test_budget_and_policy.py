"""What an operator sees of budgets, of the audit chain and of policies, at 80 columns."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpc_engine.cli import policy
from mpc_engine.identity import TrustStore, create_identity
from mpc_engine.identity.trust import Terms
from mpc_engine.ledger.charge import Charge, Scope
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party.policy import Policy
from mpc_engine.party.published import published
from tests.cli.conftest import Run
from tests.cli.registry import ADA, Answers, fits, party_folder, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A party's folder."""
    return party_folder(tmp_path)


@pytest.fixture
def daemon(folder: Path) -> Iterator[Answers]:
    """A daemon of the party."""
    with running(folder) as answers:
        yield answers


# --- budgets and audit --------------------------------------------------------------------------------


def test_budgets_and_what_they_were_spent_on(run: Run, folder: Path) -> None:
    TrustStore(folder / "trust").add_analyst(ADA.card, Terms(budget="3"), typed=_typed())
    result = run("budget", "show", "--config", folder / "uk.toml")
    assert result.status == 0, result.err
    fits(result.out)
    found = json.loads(run("budget", "show", "--json", "--config", folder / "uk.toml").out)
    scopes = {(each["kind"], each["name"]): each for each in found["scopes"]}
    assert list(scopes) == [("dataset", "wilms-uk"), ("project", "colon"), ("analyst", "ada")]
    dataset = scopes["dataset", "wilms-uk"]
    assert dataset["spent"] == {"micro_epsilon": 500_000, "delta": str(1 << 36)}
    assert dataset["remaining"]["micro_epsilon"] == 9_500_000
    assert int(dataset["remaining"]["delta"]) == (1 << 100) // 10**5 - (1 << 36)
    assert scopes["project", "colon"]["limit"]["micro_epsilon"] == 2_000_000
    assert scopes["analyst", "ada"]["limit"] == {"micro_epsilon": 3_000_000, "delta": None}
    assert [row["state"] for row in found["rows"]] == ["released", "spent, not released"]
    assert {row["decided"] for row in found["rows"]} == {"op"}
    words = " ".join(result.out.split())
    assert "given back" in words and "may have been opened" in words
    assert "how many records" in words


def _typed() -> str:
    return ADA.card.fingerprint[-8:]


def test_budgets_of_a_running_party_are_asked_for(run: Run, folder: Path, daemon: Answers) -> None:
    none = {"micro_epsilon": None, "delta": None}
    spent = {"micro_epsilon": 0, "delta": "0"}
    scope = {"kind": "dataset", "name": "d", "spent": spent, "held": spent, "remaining": none, "limit": none}
    daemon["budget"] = {"scopes": [scope], "rows": []}
    result = run("budget", "show", "--config", folder / "uk.toml")
    fits(result.out)
    assert "no limit" in result.out and "Nothing has been spent." in result.out


def test_a_debit_of_a_request_that_a_restored_ledger_lacks_says_so(run: Run, folder: Path) -> None:
    ledger = Ledger.open(folder / "state", party="uk")
    with ledger.transaction() as tx:
        tx.adopt(
            "3" * 32,
            request="f" * 32,
            question="q",
            charge=Charge(1_000_000),
            scopes=[Scope("dataset", "wilms-uk")],
            peer="us",
            analyst_name="ada",
            project="colon",
        )
    ledger.close()
    result = run("budget", "show", "--config", folder / "uk.toml")
    fits(result.out)
    # The words stand in a narrow column, so that they may be wrapped.
    assert "(the" in result.out.partition("f" * 8)[2] and "ledger)" in result.out.partition("f" * 8)[2]


def test_the_chain_is_verified_and_exported(run: Run, folder: Path) -> None:
    config = ("--config", folder / "uk.toml")
    create_identity("uk", folder / "identity", address="uk.example:8470")
    verified = run("audit", "verify", *config)
    fits(verified.out)
    told = json.loads(run("audit", "verify", "--json", *config).out)
    assert f"{told['entries']} entries verify" in verified.out and told["head"] in verified.out
    out = folder / "chain.jsonl"
    assert run("audit", "export", "--out", out, *config).status == 0
    _, *entries, seal = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["seq"] for each in entries] == list(range(1, told["entries"] + 1))
    assert entries[-1]["hash"] == seal["hash"] == told["head"]
    assert {"submitted", "decided", "reserved", "committed"} <= {each["kind"] for each in entries}
    card = folder / "identity" / "card.json"
    shown = run("audit", "verify", "--file", out, "--card", card)
    fits(shown.out)
    assert f"{told['entries']} entries of uk" in " ".join(shown.out.split())
    content = out.read_text()
    out.write_text(content.replace('"approved"', '"rejected"', 1))
    run("audit", "verify", "--file", out, "--card", card).failed_with(11, "of the export was changed")
    run("audit", "verify", "--file", out).failed_with(2, "--card")
    run("audit", "verify").failed_with(2, "--config")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    some = run("audit", "export", "--since", told["entries"] - 2, "--out", out, *config)
    assert len(out.read_text().splitlines()) == 4 and "2 entries" in some.out
    none = run("audit", "export", "--since", told["entries"], "--out", out, *config)
    assert len(out.read_text().splitlines()) == 2 and "0 entries" in none.out
    run("audit", "export", "--out", folder / "nowhere" / "x", *config).failed_with(2, "cannot be written")


def test_a_changed_chain_does_not_verify(run: Run, folder: Path) -> None:
    ledger = folder / "state" / "ledger.sqlite"
    content = ledger.read_bytes()
    assert b"too fine" in content
    ledger.write_bytes(content.replace(b"too fine", b"too nice"))
    run("audit", "verify", "--config", folder / "uk.toml").failed_with(11, "changed after it was written")


# --- policy -------------------------------------------------------------------------------------------


def test_a_policy_is_shown_with_its_warnings(run: Run, folder: Path) -> None:
    result = run("policy", "show", "--config", folder / "uk.toml")
    assert result.status == 0, result.err
    fits(result.out)
    words = " ".join(result.out.split())
    assert "! Only 2 silos" in words and "at most 10, δ = 0.00001" in words
    assert "colon 2; each other none" in words
    found = json.loads(run("policy", "show", "--json", "--config", folder / "uk.toml").out)
    assert found["policy"]["party"] == "uk" and found["digest"] in result.out
    assert len(found["warnings"]) == 2


def test_a_running_party_with_another_policy_is_told(run: Run, folder: Path, daemon: Answers) -> None:
    daemon["policy"] = {"digest": "0" * 64, "policy": {}}
    result = run("policy", "show", "--config", folder / "uk.toml")
    assert "The running party has another policy" in result.out


def test_a_policy_for_another_codebook_is_refused(run: Run, folder: Path) -> None:
    text = (
        (folder / "uk.toml")
        .read_text()
        .replace("[policy.budget]", "columns = { postcod = [] }\n[policy.budget]")
    )
    (folder / "uk.toml").write_text(text)
    result = run("policy", "show", "--config", folder / "uk.toml")
    result.failed_with(2, "policy.columns.postcod", "no variable 'postcod'")


def test_policy_show_needs_to_know_whose(run: Run, folder: Path) -> None:
    assert run("policy", "show").status == 2
    assert run("policy", "show", "--config", folder / "uk.toml", "--party", "us").status == 2


@pytest.mark.parametrize("signed", [True, False])
def test_what_another_party_published(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    fields = published(Policy("1", 5), "us", "wilms-us", "cd" * 16, {"version": "1", "source": "ab" * 32})

    class Desk:
        """A party that answers with what `fields` is."""

        def __init__(self, access: object) -> None:
            self.closed = False

        async def policy(self, party: str) -> tuple[dict[str, Any], bool]:
            assert party == "us"
            return fields, signed

        async def close(self) -> None:
            self.closed = True

    access = SimpleNamespace(party=SimpleNamespace(name="uk"))
    monkeypatch.setattr(policy, "load_access", lambda path: access)
    monkeypatch.setattr(policy, "PartyDesk", Desk)
    arguments = ("policy", "show", "--profile", folder / "profile.toml", "--party", "us")
    result = run(*arguments)
    assert result.status == 0, result.err
    fits(result.out)
    assert ("may never have published it" in " ".join(result.out.split())) is not signed
    assert json.loads(run(*arguments, "--json").out)["signed"] is signed
    fields["least_threshold"] = "\x1b[2J"
    run(*arguments).failed_with(5, "what us published is no policy")
    fields["least_threshold"], fields["party"] = 5, "uk"
    run(*arguments).failed_with(5, "what us published is no policy")
