"""The messages of the analyst port: what is signed, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.client import connect
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.identity import Identity, throwaway_identity
from mpc_engine.party.encoding import read_message, read_result, write_message, write_result
from mpc_engine.party.messages import (
    About,
    Amounts,
    CostQuestion,
    PolicyAnswer,
    Status,
    WaitFor,
    publish_policy,
)
from mpc_engine.party.submission import Submission, make_submission, question_digest
from mpc_engine.statistics.presets import parse_query
from mpc_engine.transport.analyst_methods import METHODS
from mpc_engine.transport.failures import error_info
from tests.client.fakes import Study, someone

QUERY = parse_query({"preset": "crosstab", "by": ["stage", "sex"], "privacy": {"epsilon": "1.0"}})
BOOK = "ab" * 32


def submission(who: Identity | None = None, **changes: Any) -> Submission:
    """Return a signed request of alice's."""
    given: dict[str, Any] = {"codebook": BOOK, "project": "wilms", "key": "k"} | changes
    clock = lambda: datetime(2026, 11, 1, 12, tzinfo=UTC)  # noqa: E731
    return make_submission(QUERY, identity=who or someone("alice"), clock=clock, **given)


# --- signatures ---------------------------------------------------------------------------------------


def test_a_request_survives_the_way_and_is_its_analysts() -> None:
    sent = submission()
    got = read_message(write_message(sent), Submission)
    got.verify(datetime.now(UTC))
    assert got.asked().digest() == QUERY.digest() and got.made == "2026-11-01T12:00:00Z"
    analyst = someone("alice").card.fingerprint
    expected = hashlib.sha256(b"mpc-engine/request-id/1\0" + analyst.encode() + b"\0k").hexdigest()[:32]
    assert got.request_id == sent.request_id == expected
    assert got.digest == question_digest(QUERY.digest_fields(), BOOK, "wilms")


def test_ids_follow_analyst_and_key_alone_and_digests_the_question_alone() -> None:
    base = submission()
    assert submission(project="other").request_id == base.request_id
    assert submission(key="l").request_id != base.request_id
    assert submission(who=someone("bob")).request_id != base.request_id
    assert submission(key="l").digest == submission(who=someone("bob")).digest == base.digest
    assert len({base.digest, submission(project="x").digest, submission(codebook="cd" * 32).digest}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"project": "other"},
        {"key": "l"},
        {"made": "2026-11-01T12:00:01Z"},
        {"codebook": "cd" * 32},
        {"signature": "00" * 64},
        {"query": QUERY.digest_fields() | {"by": ["sex"]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_request_does_not_verify(change: dict[str, Any]) -> None:
    fields = json.loads(write_message(submission())) | change
    with pytest.raises(DocumentError, match="signature"):
        parse(fields, Submission).verify()


def test_the_card_of_another_or_of_a_party_does_not_verify() -> None:
    fields = json.loads(write_message(submission()))
    fields["analyst"] = someone("bob").card.model_dump(by_alias=True)
    with pytest.raises(DocumentError, match="signature"):
        parse(fields, Submission).verify()
    with pytest.raises(DocumentError, match="card is a party's"):
        submission(who=throwaway_identity("uk"))
    fields = json.loads(write_message(submission()))
    fields["analyst"]["name"] = "eve"
    with pytest.raises(DocumentError):
        parse(fields, Submission).verify()


def test_a_query_in_another_form_than_the_canonical_one_is_refused() -> None:
    fields = json.loads(write_message(submission()))
    fields["query"]["privacy"]["epsilon"] = "1.00"
    with pytest.raises(DocumentError, match="not in the form"):
        parse(fields, Submission).asked()
    fields["query"] = {"preset": "magic"}
    with pytest.raises(DocumentError, match="preset"):
        parse(fields, Submission).asked()


@pytest.mark.parametrize("change", [{"key": ""}, {"key": "x" * 65}, {"key": "a\tb"}, {"project": "../x"}])
def test_keys_and_projects_are_short_and_printable(change: dict[str, str]) -> None:
    with pytest.raises(DocumentError, match=next(iter(change))):
        submission(**change)


def test_a_policy_is_its_partys() -> None:
    uk = someone("uk")
    answer = read_message(write_message(publish_policy({"party": "uk", "k": 5}, uk)), PolicyAnswer)
    assert answer.signed_by(uk.card)
    assert not answer.signed_by(someone("alice").card)
    assert not answer.model_copy(update={"policy": {"party": "uk", "k": 1}}).signed_by(uk.card)
    assert not publish_policy({"party": "us", "k": 5}, uk).signed_by(uk.card)


# --- reading ------------------------------------------------------------------------------------------

BAD = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "bad UTF-8": b'{"id":"\xff"}',
    "half a surrogate": b'{"id":"\\ud800"}',
    "200 deep": b'{"id":' + b"[" * 200 + b"]" * 200 + b"}",
    "100,000 deep": b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "twice": b'{"id":"' + b"0" * 32 + b'","id":"' + b"1" * 32 + b'"}',
    "not a number": b'{"id":NaN}',
    "a long number": b'{"id":' + b"9" * 5000 + b"}",
    "an unknown key": b'{"id":"' + b"0" * 32 + b'","x":1}',
    "a wrong type": b'{"id":1}',
    "a missing key": b"{}",
    "a NUL": b'{"id":"\\u0000"}',
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_whatever_is_no_message_is_refused(content: bytes) -> None:
    for model in (About, WaitFor, Submission, CostQuestion, Status):
        with pytest.raises(DocumentError):
            read_message(content, model)
    with pytest.raises(DocumentError):
        read_result(content)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=10,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_anything_at_all_is_a_message_or_a_documented_failure(content: bytes) -> None:
    for model in (About, WaitFor, Submission, CostQuestion, Status):
        try:
            message = read_message(content, model)
        except DocumentError:
            continue
        assert read_message(write_message(message), model) == message


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_request_with_any_damage_is_refused_or_does_not_verify(data: st.DataObject) -> None:
    content = bytearray(write_message(submission()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = read_message(bytes(content), Submission)
        found.verify()
        found.asked()
    except EngineError as error:
        assert isinstance(error, DocumentError)
    else:
        assert found == submission()  # white space, or a change and its reverse


def test_results_are_read_whole_and_large_ones_fast() -> None:
    release = {"groups": [{"tallies": [{"values": [None, 1, -2] * 400_000}]}]}
    assert read_result(write_result(release, None)) == (release, None)
    assert read_result(write_result({}, {"a": "ü"})) == ({}, {"a": "ü"})
    for content in (b'{"release":{}}', b'{"release":{},"receipt":[]}', b'{"release":null,"receipt":null}'):
        with pytest.raises(DocumentError):
            read_result(content)


def test_a_status_says_why_and_has_a_mark_of_all_it_says() -> None:
    fields: dict[str, Any] = {
        "id": "0" * 32,
        "state": "RETURNED",
        "parties": {},
        "cost": {"micro_epsilon": 1},
        "release_available": False,
        "receipt_complete": False,
        "times": {},
    }
    with pytest.raises(DocumentError, match="reason"):
        parse(fields, Status)
    one = parse(fields | {"reason": "BUDGET_EXCEEDED"}, Status)
    two = parse(fields | {"reason": "BUDGET_EXCEEDED", "detail": "x"}, Status)
    assert one.final and one.mark != two.mark and one.mark == read_message(write_message(one), Status).mark
    assert one.cost == Amounts(micro_epsilon=1)
    steering = parse(fields | {"reason": "DATA", "detail": "a\x1b[2Jb\nc", "title": "\x07"}, Status)
    assert (steering.detail, steering.title) == ("a [2Jb\nc", " ")


# --- over the wire ------------------------------------------------------------------------------------


def test_over_the_wire_every_bad_message_is_an_invalid_argument(study: Study) -> None:
    alice = study.enrolled[0]
    address = next(line for line in study.profile.read_text().splitlines() if "address" in line)

    async def main() -> None:
        credentials = grpc.ssl_channel_credentials(
            someone("uk").certificate.pem, alice.private_key_pem, alice.certificate.pem
        )
        options = [("grpc.ssl_target_name_override", "uk")]
        async with grpc.aio.secure_channel(address.split('"')[1], credentials, options) as channel:
            for method in METHODS:
                for name, content in BAD.items():
                    if method in ("List", "Parties") and name == "a missing key":
                        continue  # which is all there is to say
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        async for _ in channel.unary_stream(METHODS[method].path)(content):
                            pass
                    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, name)
                    info = error_info(caught.value)
                    assert info is not None and info["reason"] == "DOCUMENT"
                    assert "Traceback" not in str(info) and "/" not in info["message"].replace(
                        "mpc-engine/", ""
                    )

    asyncio.run(main())
    with connect(study.profile) as client:
        assert client.requests() == ()
