"""What the client is made of: a profile, or a scenario in its place."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.client import Client, connect
from mpc_engine.client.profile import load_access
from mpc_engine.documents import Document
from mpc_engine.errors import (
    DeadlineError,
    DocumentError,
    IdempotencyError,
    PolicyError,
    RequestStateError,
    UnknownRequestError,
)
from mpc_engine.identity import create_identity, load_identity
from mpc_engine.party.messages import Amounts
from mpc_engine.scenario.simulate import Simulated
from tests.client.fakes import Study, someone
from tests.party.machines import QUERY
from tests.scenario.studies import write_scenario


def ask(client: Client, **more: Any) -> Any:
    """Return the usual question."""
    return client.crosstab(by=["stage", "sex"], epsilon="1", **more)


# --- profiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('project = "wilms"', 'project = "a b"'), "project"),
        (('address = "127', 'port = "127'), "is not a key known here"),
        (('identity = "alice"', 'identity = "bob"'), "cannot be read"),
        (('party = "uk.card.json"', 'party = "alice/card.json"'), "is the card of an analyst"),
        (('project = "wilms"', 'project = "wilms"\ndev = true'), "dev is true"),
        (('project = "wilms"', 'project = "wilms"\ntrust = "none"'), "there is no folder"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said(study: Study, change: tuple[str, str], words: str) -> None:
    text = study.profile.read_text()
    assert change[0] in text
    study.profile.write_text(text.replace(*change))
    with pytest.raises(DocumentError, match=words):
        connect(study.profile)


def test_a_partys_identity_is_not_an_analysts(study: Study) -> None:
    create_identity("uk2", study.folder / "uk2")
    study.profile.write_text(study.profile.read_text().replace('"alice"', '"uk2"'))
    with pytest.raises(DocumentError, match="is a party's"):
        connect(study.profile)


def test_cards_of_all_parties_are_read_for_receipts(study: Study) -> None:
    folder = study.folder / "cards"
    folder.mkdir()
    us = create_identity("us", study.folder / "us-identity", address="us.example:1")
    for identity in (us, someone("uk"), load_identity(study.folder / "alice")):
        (folder / f"{identity.name}.card.json").write_bytes(identity.card.encode())
    study.profile.write_text(study.profile.read_text() + 'trust = "cards"\n')
    cards = load_access(study.profile).cards
    assert {name: len(each) for name, each in cards.items()} == {"uk": 1, "us": 1}


# --- simulation ---------------------------------------------------------------------------------------


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a scenario whose parties are replaced: they release the dummy sums at once."""
    path, _ = write_scenario(tmp_path)
    runs: list[Any] = []

    async def simulate(scenario: Any, on_event: Any) -> Simulated:
        query = json.loads(scenario.path(scenario.query).read_text())
        assert scenario.path(scenario.codebook) == tmp_path / "codebook.toml"
        runs.append(query)
        on_event("silo-0", {"event": "phase", "name": "compute"})
        if query.get("title") == "slow":
            await asyncio.Event().wait()
        if query.get("title") == "fails":
            raise PolicyError("party silo-0: no")
        return Simulated(client.ask(query).preview(rows=500, seed=1).release, {"parties": []}, {})

    monkeypatch.setattr("mpc_engine.client.simulation.simulate", simulate)
    with connect(path) as client:
        client.runs = runs  # type: ignore[attr-defined]
        yield client


def test_a_simulation_takes_the_place_of_a_party(simulated: Any) -> None:
    question = ask(simulated)
    result = question.run(key="k")
    assert len(result.table) == 6 and result.receipt.fields == {"parties": []}
    again = question.submit("k")
    assert again.known and again.result().table.equals(result.table)
    assert question.run().table.equals(result.table)
    assert len(simulated.runs) == 1  # the same question is answered once
    with pytest.raises(IdempotencyError):
        simulated.crosstab(by="sex", epsilon="1").submit("k")
    assert [status.state for status in simulated.requests()] == ["RELEASED", "RELEASED"]
    second, first = simulated.requests()
    assert first.served_from is None and second.served_from.ticket == first.id
    assert (first.cost.micro_epsilon, second.cost.micro_epsilon) == (10**6, 0)
    cost = question.cost()
    assert cost.served_from == second.served_from and "cost: nothing" in str(cost)
    assert ask(simulated, title="new").cost().served_from is None
    assert cost.outline.plan.members[0].name == "silo-0" and not cost.remaining
    assert "k: at least 5" in str(simulated.policy("silo-0"))
    assert not simulated.policy("helper-0").fields["silo"]
    assert [party.role for party in simulated.parties().parties][-1] == "helper"


def test_a_simulation_fails_and_is_withdrawn_like_any_request(simulated: Any) -> None:
    failing = ask(simulated, title="fails").submit()
    assert failing.wait(10).state == "RETURNED"
    with pytest.raises(PolicyError, match="party silo-0: no"):
        failing.result()
    slow = ask(simulated, title="slow").submit()
    with pytest.raises(DeadlineError):
        slow.wait(0.2)
    progress = slow.status().progress
    assert progress is not None and progress.phase == "compute"
    assert slow.withdraw().state == "WITHDRAWN"
    with pytest.raises(RequestStateError):
        slow.withdraw()
    with pytest.raises(UnknownRequestError):
        simulated.request("0" * 32).status()
    ask(simulated, title="slow").submit()  # which closing ends


def test_amounts_are_shown_as_people_read_them() -> None:
    assert Amounts(micro_epsilon=500_000).words == "ε = 0.5"
    assert Amounts(micro_epsilon=None, delta=None).words == "ε without limit, δ without limit"
    assert Amounts(micro_epsilon=-1, delta=str(1 << 80)).words == "ε = -0.000001, δ = 2^-20"
    assert issubclass(Amounts, Document)
    assert "crosstab" in QUERY
