"""The Python client against a party on loopback, and against a simulation."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from typing import Any

import numpy as np
import pytest

import mpc_engine
from mpc_engine.client import Client, connect
from mpc_engine.client.preview import MARK, suppressed
from mpc_engine.client.released import Released
from mpc_engine.errors import (
    BudgetError,
    DocumentError,
    EngineMismatchError,
    IdempotencyError,
    PeerError,
    PolicyError,
    RequestStateError,
    StillWaitingError,
    UnknownCertificateError,
    UnknownRequestError,
)
from mpc_engine.identity import create_identity
from mpc_engine.party.messages import Decided, Progress
from mpc_engine.release.publication import Published
from mpc_engine.statistics.presets import presets
from tests.client.fakes import TIME, Study, someone


@pytest.fixture
def client(study: Study) -> Any:
    """A client of alice's."""
    with connect(study.profile) as made:
        yield made


def ask(client: Client, **more: Any) -> Any:
    """Return the usual question."""
    return client.crosstab(by=["stage", "sex"], epsilon="1", **more)


# --- the way through ----------------------------------------------------------------------------------


def test_a_question_comes_back_as_a_result_with_its_receipt(study: Study, client: Client) -> None:
    result = ask(client).run()
    assert isinstance(result, Released)
    assert repr(result).startswith("<Released “") and "ε = 1, k = 5; cells: " in repr(result)
    assert "<table" in result._repr_html_()
    shown = result.table.set_index(["stage", "sex"])["value"]
    assert shown["I", "female"] == 40 and shown["III", "male"] == 50
    assert np.isnan(shown["II", "male"])  # 2 is below k
    assert result.plot() is not None
    verified = result.receipt.verify()
    assert verified and "uk signed it" in str(verified) and "does not prove" in str(verified)
    assert result.receipt.fields is not None and result.receipt.fields["session_id"] == result.request
    result.receipt.save(study.folder / "receipt.json")
    assert json.loads((study.folder / "receipt.json").read_text()) == result.receipt.fields


def test_a_receipt_of_a_stranger_or_of_another_release_does_not_verify(study: Study, client: Client) -> None:
    receipt = ask(client).run().receipt
    unknown = receipt.verify({})
    assert not unknown and "No card of uk is trusted" in str(unknown)
    assert not receipt.verify({"uk": [someone("bob").card]})
    assert receipt.verify({"uk": [someone("bob").card, someone("uk").card]})
    receipt._release = {**receipt._release, "promise": ["nothing"]}
    verified = receipt.verify()
    assert not verified and verified.proves == () and "another release" in str(verified)


def test_the_usual_way_in_is_at_the_top_of_the_package(study: Study) -> None:
    with mpc_engine.connect(study.profile) as client:
        assert len(client.parties().parties) == 3
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        mpc_engine.conect  # noqa: B018


def test_it_works_where_a_loop_is_running_already(study: Study) -> None:
    async def cell() -> int:
        with connect(study.profile) as client:
            return len(ask(client).run().table)

    assert asyncio.run(cell()) == 6


# --- before anything is sent --------------------------------------------------------------------------


def test_every_preset_is_a_method_whose_signature_names_its_keys() -> None:
    for name, model in presets().items():
        method = getattr(Client, name)
        names = set(inspect.signature(method).parameters)
        own = set(model.model_fields) - {"preset", "privacy"}
        assert own | {"self", "epsilon", "rule", "threshold", "delta", "split"} <= names
        assert inspect.signature(method).parameters["epsilon"].default is inspect.Parameter.empty
        assert "Raises" in method.__doc__ and method.__name__ == name


def test_keywords_become_the_document_that_one_would_write(client: Client) -> None:
    filtered = {"variable": "stage", "in": ["I"]}
    question = client.crosstab(by="sex", epsilon="0.50", where=filtered, threshold=8, split={"cells": 1})
    document = {
        "preset": "crosstab",
        "by": ["sex"],
        "where": [filtered],
        "privacy": {"epsilon": "0.5", "threshold": 8, "weights": {"cells": 1}},
    }
    assert question.as_fields() == client.ask(document).as_fields()
    with pytest.raises(TypeError, match="epsilon"):
        client.crosstab(by="sex")
    with pytest.raises(TypeError, match="colour"):
        client.crosstab(by="sex", epsilon="1", colour="red")
    with pytest.raises(DocumentError, match=r"crosstab: privacy\.epsilon: must be text in quotes"):
        client.crosstab(by="sex", epsilon=1.0)


def test_nothing_is_sent_to_validate_plan_and_preview(study: Study, client: Client) -> None:
    question = client.ask(study.query)
    assert question.validate() is question
    assert question.plan.cells == 6 and question.plan.split[0]["epsilon_exact"] == "1"
    assert {opening["section"] for opening in question.plan.openings} == {"PREPARE", "PATTERN", "VALUES"}
    assert json.dumps(question.plan.as_fields(), allow_nan=False)
    assert str(question.plan).startswith("6 cells; ε = 1 in all, k = 5\n")
    with pytest.raises(DocumentError, match="'height'"):
        client.crosstab(by="height", epsilon="1").validate()
    assert study.desk.calls == []


def test_a_preview_is_made_of_made_up_records_and_says_so(study: Study, client: Client) -> None:
    preview = ask(client).preview(rows=100, seed=7)
    assert preview.title.startswith(MARK) and preview.explain().startswith(MARK)
    assert "100 made-up records (seed 7)" in preview.explain()
    shown = preview.table["value"].dropna()
    assert (shown >= 5).all() and shown.sum() <= 100 and (shown == shown.round()).all()
    drawn = " ".join(
        text.get_text() for text in preview.plot().findobj(lambda each: hasattr(each, "get_text"))
    )
    assert MARK in drawn.replace("\n", " ")
    again = ask(client).preview(rows=100, seed=7)
    assert again.table.equals(preview.table)
    tiny = ask(client).preview(rows=4, seed=1)
    assert tiny.table["value"].isna().all()
    with pytest.raises(DocumentError, match="rows"):
        ask(client).preview(rows=0)
    assert study.desk.calls == []


@pytest.mark.parametrize(("rule", "delta"), [("noisy", None), ("strict", "0.000001"), ("exact", None)])
def test_previews_hide_what_the_plan_would_hide_without_noise(
    client: Client, rule: str, delta: str | None
) -> None:
    more = {} if delta is None else {"delta": delta}
    plan = ask(client, rule=rule, **more).plan.plan
    least = plan.guarantee.allotments[0].least_shown or 5
    records = np.array([least - 1, least, least + 1, 100, 0, 4], np.int64)
    patients = np.array([least - 1, least, 4, 100, 0, 4], np.int64)
    found: Published = suppressed(plan, [np.stack([records, patients])])
    by_rule = {
        "noisy": records >= 5,
        "strict": (patients >= 5) & (records >= least),
        "exact": patients >= 5,
    }
    assert found.pattern[0].tolist() == by_rule[rule].tolist()
    assert found.values[0].tolist() == np.where(by_rule[rule], records, 0).tolist()


# --- costs, rules, requests ---------------------------------------------------------------------------


def test_a_cost_is_the_plan_made_again_with_what_remains(study: Study, client: Client) -> None:
    cost = ask(client).cost()
    assert cost.outline.plan.digest == study.desk.plan(client.ask(study.query).query).digest
    assert cost.charge.startswith("ε = 1, δ") and cost.verdicts["us"] == "needs an operator"
    text = str(cost)
    assert (
        "uk has left: data set: ε = 2.5, δ = 2^-40" in text
        and "helper has left: it keeps or tells none" in text
    )
    fields = json.loads(json.dumps(cost.as_fields(), allow_nan=False))
    assert fields["remaining"]["uk"]["data set"] == {"epsilon": "2.5", "delta": "2^-40"}
    assert fields["remaining"]["uk"]["analyst"] is None


def test_a_party_that_lays_out_another_plan_is_noticed(study: Study, client: Client) -> None:
    plan = study.desk.plan
    study.desk.plan = lambda query: plan(query.model_copy(update={"by": ("sex",)}))  # type: ignore[method-assign]
    with pytest.raises(EngineMismatchError, match="another plan"):
        ask(client).cost()


def test_rules_are_shown_with_who_signed_them(study: Study, client: Client) -> None:
    rules = client.policy("uk")
    assert rules.signed and "uk: signed by a card that you trust" in str(rules)
    assert "k: at least 5" in str(rules)
    with pytest.raises(UnknownRequestError, match="nowhere"):
        client.policy("nowhere")


def test_one_key_is_one_request(study: Study, client: Client) -> None:
    first = ask(client).submit("mine")
    second = ask(client).submit("mine")
    assert (first.id, first.known) == (second.id, not second.known)
    with pytest.raises(IdempotencyError, match="'mine' is that of another question"):
        client.crosstab(by="sex", epsilon="1").submit("mine")
    other = ask(client).submit()
    assert other.id != first.id
    assert [status.id for status in client.requests()] == [other.id, first.id]
    assert client.request(first.id).result().request == first.id
    with pytest.raises(DocumentError, match="key"):
        ask(client).submit("x" * 65)
    with pytest.raises(DocumentError, match="key"):
        ask(client).submit("two\nlines")


def test_a_client_that_dies_after_handing_in_finds_its_request_again(study: Study, client: Client) -> None:
    """F6: one request and one debit, whoever dies and retries."""
    answer, taken, go = study.desk.answer, threading.Event(), asyncio.Event()

    async def slow(analyst: str, method: str, body: bytes) -> bytes:
        answered = await answer(analyst, method, body)
        taken.set()
        await go.wait()
        return answered

    study.server._handle = slow
    with connect(study.profile) as dying:
        sending = dying.desk.submit(ask(dying).query, "mine")
        future = asyncio.run_coroutine_threadsafe(sending, dying._loop._running())
        assert taken.wait(20)
        future.cancel()
    study.server._handle = answer
    again = ask(client).submit("mine")
    assert again.known and len(study.desk.held) == 1
    assert again.result().request == again.id
    study.loop.run(_set(go))


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_waiting_tells_of_every_change(study: Study, client: Client) -> None:
    study.desk.auto = False
    study.desk.script = [
        ("PARTIALLY_REVIEWED", {"decisions": {"uk": Decided(decision="approved")}}),
        ("APPROVED", {}),
        ("APPROVED", {"progress": Progress(phase="compute", since=TIME)}),
        ("RELEASED", {"progress": None}),
    ]
    seen = []
    request = ask(client).submit()
    with pytest.raises(RequestStateError, match="is SUBMITTED and has no result"):
        request.result()
    last = request.wait(on_change=lambda status: seen.append((status.state, status.progress is not None)))
    assert last.state == "RELEASED" and last.final
    assert seen == [
        ("SUBMITTED", False),
        ("PARTIALLY_REVIEWED", False),
        ("APPROVED", False),
        ("APPROVED", True),
        ("RELEASED", False),
    ]


def test_waiting_ends_with_its_time_and_the_request_goes_on(study: Study, client: Client) -> None:
    study.desk.auto = False
    request = ask(client).submit()
    with pytest.raises(StillWaitingError, match=r"is SUBMITTED and waits for an operator at us"):
        request.wait(0.6)
    assert request.withdraw().state == "WITHDRAWN"
    assert request.wait(1).state == "WITHDRAWN"
    with pytest.raises(RequestStateError, match="is WITHDRAWN"):
        request.result()
    with pytest.raises(RequestStateError, match="has ended"):
        request.withdraw()


def test_a_refusal_is_raised_as_what_it_is(study: Study, client: Client) -> None:
    study.desk.auto = False
    request = ask(client).submit()
    study.desk.move(request.id, "REJECTED", reason="PRESET_NOT_APPROVED", detail="us never answers crosstab")
    with pytest.raises(PolicyError, match="was rejected: us never answers crosstab"):
        request.result()
    study.desk.move(request.id, "RETURNED", reason="BUDGET_EXCEEDED", detail="nothing is left")
    with pytest.raises(BudgetError, match="nothing is left"):
        request.result()
    with pytest.raises(BudgetError, match="ε = 2 is left"):
        client.crosstab(by="sex", epsilon="3").submit()


def test_another_analysts_request_is_not_there(study: Study, client: Client) -> None:
    request = ask(client).submit()
    create_identity("bob", study.folder / "fresh", role="analyst")
    held = study.desk.held[request.id]
    held.submission = held.submission.model_copy(update={"analyst": someone("bob").card})
    with pytest.raises(UnknownRequestError):
        request.status()


def test_a_revoked_analyst_is_told(study: Study, client: Client) -> None:
    ask(client).submit()
    study.enrolled.clear()
    study.loop.run(_reload(study))
    with pytest.raises(UnknownCertificateError, match="not enrolled here"):
        client.requests()


async def _reload(study: Study) -> None:
    study.server.reload()


def test_a_party_that_is_away_is_named(study: Study) -> None:
    study.loop.run(study.server.stop(0))
    with connect(study.profile) as client, pytest.raises(PeerError, match=r"uk .* cannot be reached"):
        client.requests()


def test_an_answer_that_makes_no_sense_is_another_engine(study: Study, client: Client) -> None:
    answer = study.desk.answer
    study.server._handle = lambda analyst, method, body: nonsense(method)

    async def nonsense(method: str) -> bytes:
        return b'{"release":[]}' if method == "Result" else b'{"id":"x"}'

    with pytest.raises(EngineMismatchError, match="the answer of uk"):
        client.requests()
    with pytest.raises(EngineMismatchError, match="the answer of uk: holds no release"):
        client.run(client.desk.result("0" * 32))
    study.server._handle = answer
    request = ask(client).submit()
    other = ask(client).submit()
    study.desk.held[request.id], status = study.desk.held[request.id], study.desk._status
    study.desk._status = lambda analyst, asked: status(analyst, other.id)  # type: ignore[method-assign]
    with pytest.raises(EngineMismatchError, match=f"is about request {other.id}, not {request.id}"):
        request.status()
