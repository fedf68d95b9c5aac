"""An analyst's revoked card, from the trust store to the judgement, where anybody's requests are taken."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from mpc_engine.errors import PolicyError
from mpc_engine.identity import TrustStore, activate, create_identity, load_identity, rotate
from mpc_engine.party.dossier import read_dossier
from mpc_engine.party.situation import Situation
from mpc_engine.party.submission import Submission, make_submission
from mpc_engine.scenario.trial import ANALYST, PROJECT, Trial, make_trial
from mpc_engine.statistics.presets import parse_query

PRIVACY = {"epsilon": "0.5", "rule": "noisy", "threshold": 5}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Parties' documents."""
    return make_trial(tmp_path_factory.mktemp("revoked") / "trial", rows=5)


def asked(trial: Trial, key: str) -> Submission:
    """Return a request that the analyst signs with the present card."""
    query = parse_query({"preset": "count", "privacy": PRIVACY})
    identity = load_identity(trial.folder / ANALYST)
    return make_submission(query, read(trial).codebook.digest(), PROJECT, key, identity)


def read(trial: Trial) -> Situation:
    """Return the helper's situation, which takes requests of analysts whom it does not know."""
    situation = read_dossier(trial.folder / "helper/party.toml").situation
    assert situation.policy.accepts_of(situation.silo) == "any"
    return situation


def enrolled(trial: Trial, submission: Submission) -> None:
    """Enrol at the helper whoever signed a request."""
    terms = TrustStore(trial.folder / "north/trust", dev=True).analysts()[0].terms
    store = TrustStore(trial.folder / "helper/trust", dev=True)
    store.add_analyst(submission.analyst, terms, typed=submission.analyst.fingerprint)


def test_a_revoked_analyst_is_refused_under_new_keys_too_until_enrolled(trial: Trial) -> None:
    first = asked(trial, "one")
    assert read(trial).judge(first, {}).verdict == "auto"
    enrolled(trial, first)
    assert read(trial).judge(first, {}).verdict == "auto"
    TrustStore(trial.folder / "helper/trust", dev=True).revoke(first.analyst.fingerprint, "left")
    judged = read(trial).judge(first, {})
    assert judged.verdict == "refused"
    with pytest.raises(PolicyError, match="helper revoked a card of alice"):
        judged.check()
    # Another party may have enrolled the next card, on the endorsement of the revoked one …
    rotate(trial.folder / ANALYST)
    activate(trial.folder / ANALYST)
    second = asked(trial, "two")
    assert second.analyst.origin_fingerprint == first.analyst.fingerprint != second.analyst.fingerprint
    # … or quite another one of that name.
    shutil.move(trial.folder / ANALYST, trial.folder / "before")
    create_identity(ANALYST, trial.folder / ANALYST, role="analyst", dev=True)
    third = asked(trial, "three")
    assert third.analyst.origin_fingerprint == third.analyst.fingerprint != first.analyst.fingerprint
    for each in (first, second, third):
        assert read(trial).judge(each, {}).verdict == "refused"
    enrolled(trial, third)
    here = read(trial)
    assert here.judge(third, {}).verdict == "auto"
    assert here.judge(first, {}).verdict == here.judge(second, {}).verdict == "refused"
    assert replace(here, revoked=frozenset()).judge(first, {}).verdict == "auto"


def test_revoking_one_analyst_locks_nobody_else_out(trial: Trial) -> None:
    """A card says itself which card it follows."""
    alice = asked(trial, "four")
    forged = alice.analyst.model_copy(update={"name": "mallory"})
    here = replace(read(trial), revoked=frozenset({forged.name}), analysts={})
    assert here.judge(alice, {}).verdict == "auto"
