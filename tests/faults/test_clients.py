"""F6, F7, F27 and F32: what the analyst's side does, or what befalls it."""

from __future__ import annotations

import signal

import pytest

from mpc_engine.client.request import Request
from mpc_engine.errors import IdempotencyError, RequestStateError
from mpc_engine.party.failpoints import FAILPOINTS
from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, EPSILON, LEAST, Parties, patiently
from tests.party.nursery import nursery

DYING = """
import os, signal
from mpc_engine.client import connect
client = connect({profile!r})
asked = client.crosstab(by=["sex"], epsilon={epsilon!r}, threshold={least}, rule="noisy", title={title!r})
asked.submit({key!r})
os.kill(os.getpid(), signal.SIGKILL)
"""


def die_after_submitting(parties: Parties, title: str, key: str) -> None:
    """Hand in a question from a process that is killed as soon as it has."""
    program = DYING.format(
        profile=str(parties.trial.profile), epsilon=EPSILON, least=LEAST, title=title, key=key
    )
    folder = parties.trial.folder
    client = nursery().fork(
        "tests.party.nursery:program", program, folder=folder, errors=folder / "analyst.err"
    )
    assert client.wait() == -signal.SIGKILL


def retry(parties: Parties, title: str, key: str) -> Request:
    """Ask the same under the same key and return the request, which the party knows."""
    with parties.client() as client:
        asked = client.crosstab(by=["sex"], epsilon=EPSILON, threshold=LEAST, rule="noisy", title=title)
        request = patiently(lambda: asked.submit(key))
        assert request.known
        parties.end_of(request)
        first = patiently(request.result)
        again = patiently(lambda: asked.submit(key))
        assert again.id == request.id and patiently(again.result).release == first.release
        return request


def test_a_client_that_died_asks_again(parties: Parties) -> None:
    die_after_submitting(parties, "a client that died", "died")
    request = retry(parties, "a client that died", "died")
    parties.quiet()
    assert parties.states(request.id) == {name: ["RELEASED"] for name in NAMES}
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)


@pytest.mark.parametrize("place", ["after_commit", "committed_sent", "before_opened"])
def test_a_client_and_its_party_die_and_it_asks_again(parties: Parties, place: str) -> None:
    parties.trap("north", place)
    die_after_submitting(parties, f"both died {place}", f"both-{place}")
    assert parties.ended("north") == -signal.SIGKILL
    parties.start("north")
    parties.wait_ready()
    request = retry(parties, f"both died {place}", f"both-{place}")
    parties.quiet()
    assert parties.states(request.id) == {name: ["RELEASED"] for name in NAMES}
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)


def test_another_question_under_the_same_key(parties: Parties) -> None:
    with parties.client() as client:
        asked = {"by": ["sex"], "epsilon": EPSILON, "threshold": LEAST, "rule": "noisy"}
        request = client.crosstab(**asked, title="one question").submit("one key")
        parties.end_of(request)
        for _ in range(2):
            with pytest.raises(IdempotencyError):
                patiently(lambda: client.crosstab(**asked, title="another question").submit("one key"))
        with parties.client("south") as south, pytest.raises(IdempotencyError):
            patiently(lambda: south.crosstab(**asked, title="another question").submit("one key"))
    parties.quiet()
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)


def test_one_question_at_two_parties_at_once(parties: Parties) -> None:
    asked = {"by": ["sex"], "epsilon": EPSILON, "threshold": LEAST, "rule": "noisy", "title": "a race"}
    with parties.client() as north, parties.client("south") as south:
        # Under one key it is one request, under another one it is answered with the same release.
        handed_in = [
            patiently(lambda client=client, key=key: client.crosstab(**asked).submit(key))  # type: ignore[misc]
            for key in ("race one", "race two")
            for client in (north, south)
        ]
        ended = [parties.end_of(request) for request in handed_in]
        results = [patiently(request.result).release for request in handed_in]
    assert len({request.id for request in handed_in}) == 2
    assert len({status.ticket for status in ended}) == 1
    assert all(release == results[0] for release in results)
    parties.quiet()
    spent = [parties.spent(request) for request in {request.id for request in handed_in}]
    assert {name: sum(each[name] for each in spent) for name in NAMES} == dict.fromkeys(NAMES, CHARGE)


@pytest.mark.parametrize("place", FAILPOINTS)
def test_a_request_is_withdrawn_at_each_phase(parties: Parties, place: str) -> None:
    """South stands still at the phase while the analyst withdraws at north."""
    parties.trap("south", place, how="stop")
    with parties.client() as client:
        request = parties.ask_new(client)
        parties.stopped("south")
        try:
            patiently(request.withdraw)
            withdrawn = True
        except RequestStateError:
            withdrawn = False
        parties.go_on("south")
        status = parties.finished(request)
    parties.quiet()
    spent, states = parties.spent(request.id), parties.states(request.id)
    assert status.state == ("WITHDRAWN" if withdrawn else "RELEASED"), (status, states)
    if FAILPOINTS.index(place) < FAILPOINTS.index("before_commit"):
        assert withdrawn and spent == dict.fromkeys(NAMES, 0)
    elif FAILPOINTS.index(place) >= FAILPOINTS.index("after_pattern"):
        assert not withdrawn and spent == dict.fromkeys(NAMES, CHARGE)
    if withdrawn:
        assert not {each for found in states.values() for each in found} - {"ABORTED", "LOST"}
