"""An analyst's revoked card, from the trust store to the judgement, where anybody's requests are taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpc_engine.errors import PolicyError
from mpc_engine.identity import TrustStore, activate, load_identity, rotate
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


def test_a_revoked_card_and_those_that_follow_it_are_refused_unless_enrolled(trial: Trial) -> None:
    first = asked(trial, "one")
    fingerprint = first.analyst.fingerprint
    store = TrustStore(trial.folder / "helper/trust", dev=True)
    assert read(trial).judge(first, {}).verdict == "auto"
    if fingerprint not in read(trial).analysts:
        known = TrustStore(trial.folder / "north/trust", dev=True).analysts()[0]
        store.add_analyst(first.analyst, known.terms, typed=fingerprint)
    assert read(trial).judge(first, {}).verdict == "auto"
    store.revoke(fingerprint, "left")
    judged = read(trial).judge(first, {})
    assert judged.verdict == "refused"
    with pytest.raises(PolicyError, match="helper revoked a card of alice"):
        judged.check()
    # Another party may have enrolled the next card on the endorsement of the revoked one.
    rotate(trial.folder / ANALYST)
    activate(trial.folder / ANALYST)
    second = asked(trial, "two")
    assert second.analyst.origin_fingerprint == fingerprint != second.analyst.fingerprint
    assert read(trial).judge(second, {}).verdict == "refused"
    terms = TrustStore(trial.folder / "north/trust", dev=True).analysts()[0].terms
    store.add_analyst(second.analyst, terms, typed=second.analyst.fingerprint)
    here = read(trial)
    assert here.judge(second, {}).verdict == "auto" and here.judge(first, {}).verdict == "refused"
    assert replace(here, revoked=frozenset()).judge(first, {}).verdict == "auto"
