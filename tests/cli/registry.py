"""A party with a ledger of three requests, and a daemon that answers as a test tells it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mpc_engine.errors import EngineError
from mpc_engine.identity import throwaway_identity
from mpc_engine.ledger.charge import Charge, Scope
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party.control import SOCKET_NAME, ControlServer
from mpc_engine.party.overview import Summary
from mpc_engine.party.submission import Submission, make_submission
from tests.party.machines import CODEBOOK
from tests.party.questions import COUNT, CROSSTAB, query

ROSTER = """
[[party]]
name = "uk"
address = "127.0.0.1:8471"
[[party]]
name = "us"
address = "127.0.0.1:8472"
[[party]]
name = "helper"
address = "127.0.0.1:8473"
silo = false
"""
CONFIG = """
name = "uk"
roster = "roster.toml"
codebook = "codebook.toml"
mapping = "uk.mapping.toml"
identity = "identity"
data = "data"
dataset = "wilms-uk"
[policy]
greatest_epsilon = "1"
least_threshold = 5
approval = "manual"
[policy.budget]
epsilon = "10"
delta = "1e-5"
projects = { colon = "2" }
other_projects = "none"
"""
ADA = throwaway_identity("ada", role="analyst")


class Clock:
    """A clock that goes on by a minute whenever it is asked."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


def asked(fields: dict[str, Any], key: str, **changed: Any) -> Submission:
    """Return a request of Ada's."""
    return make_submission(query(fields, **changed), "ab" * 32, "colon", key, ADA, Clock())


FIRST = asked(CROSSTAB, "first", title="Stage\x1b[2J by sex")
SECOND = asked(COUNT, "second")
THIRD = asked(COUNT, "third", title="How many are there of whom the register knows the stage and the sex")


def take(ledger: Ledger, submission: Submission) -> None:
    """Take in a request."""
    with ledger.transaction() as tx:
        tx.submit(
            id=submission.request_id,
            analyst=submission.analyst.fingerprint,
            analyst_name="ada",
            key=submission.key,
            project=submission.project,
            body=json.dumps(submission.model_dump(mode="json", by_alias=True)).encode(),
            digest=submission.digest,
            received_from="us",
        )


def spend(ledger: Ledger, submission: Submission, ticket: str, fate: str) -> None:
    """Run a session for a request, up to a fate."""
    scopes = (Scope("dataset", "wilms-uk"), Scope("project", "colon"), Scope("analyst", "ada"))
    with ledger.transaction() as tx:
        tx.reserve(
            ticket,
            request=submission.request_id,
            question=ticket,
            charge=Charge(500_000, 1 << 36),
            scopes=scopes,
            limits=(),
        )
        tx.computing(ticket, f"session {ticket}")
        if fate == "aborted":
            tx.abort(ticket, "ROUND_TIMEOUT", "us did not answer")
        else:
            tx.commit(ticket, b"facts", b"sealed")


def party_folder(tmp_path: Path) -> Path:
    """Return a party's folder, with a ledger of three requests: one rejected, one spent, one that waits."""
    texts = {"roster.toml": ROSTER, "uk.toml": CONFIG, "codebook.toml": CODEBOOK}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    ledger = Ledger.open(tmp_path / "state", party="uk", clock=Clock())
    for submission in (FIRST, SECOND, THIRD):
        take(ledger, submission)
    with ledger.transaction() as tx:
        tx.decide(FIRST.request_id, "uk", "rejected", "REQUEST_DECLINED", "too fine", by="op")
        tx.settle(FIRST.request_id, "REJECTED", "REQUEST_DECLINED", "too fine")
        for party in ("uk", "us", "helper"):
            tx.decide(SECOND.request_id, party, "approved", by="op" if party == "uk" else "")
        tx.decide(THIRD.request_id, "us", "approved")
    spend(ledger, SECOND, "1" * 32, "aborted")
    spend(ledger, SECOND, "2" * 32, "committed")
    ledger.close()
    return tmp_path


Answers = dict[str, Any]


@contextmanager
def running(folder: Path) -> Iterator[Answers]:
    """Run a daemon that gives the answers that a test puts here; what it was asked is under "asked"."""
    answers: Answers = {"asked": []}

    async def handle(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        answers["asked"].append((command, dict(fields)))
        answer = answers[command]
        if isinstance(answer, EngineError):
            raise answer
        return dict(answer)

    ready, loop = threading.Event(), asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with ControlServer(folder / "state" / SOCKET_NAME, handle):
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield answers
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


def summary(submission: Submission = THIRD, **changed: Any) -> dict[str, Any]:
    """Return the summary of a request as a daemon tells it."""
    told = {
        "id": submission.request_id,
        "state": "PARTIALLY_REVIEWED",
        "analyst": "ada",
        "project": "colon",
        "preset": "count",
        "title": "How many?",
        "epsilon": "1",
        "received": "2026-03-01T12:00:00Z",
        "decisions": {"uk": "waiting", "us": "approved", "helper": "approved"},
        "waits": True,
    }
    return Summary.of(told | changed | {"of a newer version": 1}).as_fields()


LINES = [
    ["head", "ada, for the project colon"],
    ["text", "Preset count: how many records satisfy the filters. " * 3],
    ["warn", "With two silos each can take its own numbers away from the answer and has the other's."],
]


def fits(text: str) -> None:
    """Check that no line is wider than a terminal and that nothing steers it."""
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80, text
