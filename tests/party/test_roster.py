"""The roster and everybody's cards, and what a configuration may say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mpc_engine.documents import parse
from mpc_engine.errors import CertificateError, DocumentError, TooFewPartiesError
from mpc_engine.identity import (
    Identity,
    TrustStore,
    create_identity,
    load_identity,
    rotate,
    throwaway_identity,
    utc_now,
)
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.roster import Roster
from tests.party.machines import make_study

NAMES = ("p1", "p2", "p3")


def roster(*entries: dict[str, object]) -> Roster:
    """Return a roster of p1, p2, p3 with more keys in their entries."""
    more = entries + ({},) * (3 - len(entries))
    return parse(
        {"party": [{"name": n} | e for n, e in zip(NAMES, more, strict=True)]}, Roster, "roster.toml"
    )


def parties(store: TrustStore, *, dials_only: tuple[str, ...] = ()) -> dict[str, Identity]:
    """Return identities of p1, p2, p3; the cards of all are trusted."""
    made = {}
    for name in NAMES:
        address = "" if name in dials_only else f"{name}:8470"
        made[name] = throwaway_identity(name, address=address, dev=store.dev)
        store.add(made[name].card, typed=made[name].card.fingerprint)
    return made


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    """An empty store."""
    return TrustStore(tmp_path / "trust")


def test_cards_give_addresses_and_certificates(store: TrustStore) -> None:
    made = parties(store)
    read = roster({}, {"address": "tunnel:1"}).read(store, made["p1"])
    assert [end.address for end in read.endpoints] == ["p1:8470", "tunnel:1", "p3:8470"]
    assert [end.certificates for end in read.endpoints] == [(made[n].certificate.pem,) for n in NAMES]
    assert [member.fingerprint for member in read.members] == [made[n].card.fingerprint for n in NAMES]
    assert read.cards == tuple((made[n].card,) for n in NAMES)
    assert read.digest == roster().read(store, made["p3"]).digest


def test_a_rotation_changes_no_roster(store: TrustStore, tmp_path: Path) -> None:
    made = parties(store)
    create_identity("p4", tmp_path / "p4", address="p4:1")
    new = parse({"party": [{"name": n} for n in ("p1", "p2", "p4")]}, Roster, "roster.toml")
    card = load_identity(tmp_path / "p4").card
    store.add(card, typed=card.fingerprint)
    before = new.read(store, made["p1"])
    rotate(tmp_path / "p4")
    theirs = new.read(store, load_identity(tmp_path / "p4"))
    store.add(theirs.cards[2][0])
    after = new.read(store, made["p1"])
    assert before.digest == after.digest == theirs.digest
    assert before.members == after.members
    assert len(after.endpoints[2].certificates) == 2
    assert after.cards[2] == theirs.cards[2] == (theirs.cards[2][0], card)


def test_a_missing_card_is_named(store: TrustStore) -> None:
    own = throwaway_identity("p2")
    with pytest.raises(DocumentError, match="no card of p1, p3; ask for it"):
        roster().read(store, own)
    with pytest.raises(DocumentError, match="no party is called 'p9'"):
        roster().read(store, throwaway_identity("p9"))


def test_an_expired_card_is_named(store: TrustStore) -> None:
    own = throwaway_identity("p1", address="p1:1")
    for name in ("p2", "p3"):
        old = throwaway_identity(name, address="p:1", validity=timedelta(days=10))
        store.add(old.card, typed=old.card.fingerprint)
    late = utc_now() + timedelta(days=20)
    with pytest.raises(CertificateError, match="certificate of p2 expired"):
        roster().read(TrustStore(store.directory, clock=lambda: late), own)
    # A service starts all the same, and waits for the new card.
    found = roster().read(TrustStore(store.directory, clock=lambda: late), own, timely=False)
    assert [len(end.certificates) for end in found.endpoints] == [1, 1, 1]


def test_one_party_may_accept_no_connections(store: TrustStore) -> None:
    made = parties(store, dials_only=("p1",))
    read = roster().read(store, made["p1"])
    assert [(end.accepts, end.address) for end in read.endpoints] == [
        (False, ""),
        (True, "p2:8470"),
        (True, "p3:8470"),
    ]
    with pytest.raises(DocumentError, match="gives an address for p1, whose card says"):
        roster({"address": "p1:1"}).read(store, made["p1"])


def test_two_parties_that_accept_no_connections(store: TrustStore) -> None:
    made = parties(store, dials_only=("p1", "p3"))
    with pytest.raises(DocumentError, match=r"roster\.toml: .*1 \(p1\) and 3 \(p3\)"):
        roster().read(store, made["p1"])


def test_input_only_silos_need_no_connection_with_each_other(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    names = [f"p{number}" for number in range(1, 6)]
    for name in names:
        card = throwaway_identity(name, address="" if name > "p3" else "p:1").card
        store.add(card, typed=card.fingerprint)
    entries = [{"name": name, "computing": name <= "p3"} for name in names]
    read = parse({"party": entries}, Roster, "r").read(store, throwaway_identity("p1", address="p:1"))
    assert [end.accepts for end in read.endpoints] == [True, True, True, False, False]


def test_dev_and_real_parties_never_meet(tmp_path: Path) -> None:
    trials = TrustStore(tmp_path / "dev", dev=True)
    made = parties(trials)
    roster().read(trials, made["p1"])
    with pytest.raises(DocumentError, match="`dev` of its configuration says otherwise"):
        roster().read(trials, throwaway_identity("p1", address="p1:1"))
    with pytest.raises(DocumentError, match="is a DEV card"):
        roster().read(TrustStore(tmp_path / "dev"), throwaway_identity("p1", address="p1:1"))


def test_too_few_parties_and_roles_that_do_nothing(store: TrustStore) -> None:
    two = parse({"party": [{"name": "p1"}, {"name": "p2"}]}, Roster, "r")
    with pytest.raises(TooFewPartiesError):
        two.read(store, throwaway_identity("p1"))
    with pytest.raises(DocumentError, match="must compute"):
        roster({"silo": False, "computing": False})
    with pytest.raises(DocumentError, match="before input-only"):
        roster({"computing": False})
    with pytest.raises(DocumentError, match="certificate: is not a key known here"):
        roster({"certificate": "p1.pem"})


# --- configurations ---------------------------------------------------------------------------------

FIELDS: dict[str, object] = {
    "name": "p1",
    "roster": "roster.toml",
    "codebook": "codebook.toml",
    "identity": "identity",
    "policy": {"greatest_epsilon": "1", "least_threshold": 5},
}


def test_what_a_configuration_leaves_out() -> None:
    config = parse(FIELDS, PartyConfig, "party.toml")
    assert (config.trust, config.state, config.dev, config.dataset) == ("trust", "state", False, None)
    service = config.service
    assert (service.analysts, service.health, service.metrics) == (None, None, None)
    assert (service.most_sessions, service.session_s, service.log) == (4, 900, "stderr")
    config.check_service()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service": {"health": "0.0.0.0:8080"}}, "service.health: must be on this machine only"),
        ({"service": {"metrics": "registry.example:80"}}, "service.metrics: must be on this machine only"),
        ({"service": {"metrics": "10.0.0.1:80"}}, "service.metrics: must be on this machine only"),
        ({"service": {"analysts": "nowhere"}}, "service.analysts"),
        ({"service": {"most_sessions": 0}}, "service.most_sessions: must be at least 1"),
        ({"service": {"port": 1}}, "service.port: is not a key known here"),
        ({"dataset": ""}, "dataset"),
        ({"dataset": "../x"}, "dataset"),
        ({"policy": None}, "policy: is required"),
        ({"policy": "a.toml", "policy_file": "b.toml"}, "policy_file: names the file"),
        ({"policy": {"greatest_epsilon": "1"}}, "policy.least_threshold: is required"),
        ({"data": "data"}, "both its `mapping`"),
    ],
)
def test_configurations_that_break_a_rule(changes: dict[str, object], words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parse(FIELDS | changes, PartyConfig, "party.toml")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:9100", "localhost:9100", "127.9.9.9:9100"])
def test_ports_for_this_machine(address: str) -> None:
    service = {"health": address, "metrics": address, "analysts": "0.0.0.0:8471"}
    assert parse(FIELDS | {"service": service}, PartyConfig, "party.toml").service.metrics == address


def test_a_silo_that_serves_names_its_data_set() -> None:
    silo = FIELDS | {"data": "data", "mapping": "mapping.toml"}
    with pytest.raises(DocumentError, match="dataset: is required at a silo that serves"):
        parse(silo, PartyConfig, "party.toml").check_service()
    parse(silo | {"dataset": "cancer-2020"}, PartyConfig, "party.toml").check_service()


def test_a_policy_in_a_file_of_its_own(tmp_path: Path) -> None:
    study = make_study(tmp_path, registered=False)
    home = study.home("p1")
    inline, _ = load_config(home / "party.toml")
    policy = 'greatest_epsilon = "1"\nleast_threshold = 5\n'
    study.rewrite("p1", "party.toml", f"[policy]\n{policy}", "")
    text = (home / "party.toml").read_text()
    (home / "party.toml").write_text('policy = "policy.toml"\n' + text)
    with pytest.raises(DocumentError, match=r"policy\.toml: there is no such file"):
        load_config(home / "party.toml")
    (home / "policy.toml").write_text(policy)
    config, _ = load_config(home / "party.toml")
    assert config.accepted() == inline.accepted()
    (home / "policy.toml").write_text(policy.replace("5", "0"))
    with pytest.raises(DocumentError, match=r"policy\.toml: least_threshold"):
        load_config(home / "party.toml")


def test_a_configuration_finds_its_own_identity_and_the_others(tmp_path: Path) -> None:
    study = make_study(tmp_path, registered=False)
    directories = []
    for name in study.names:
        config, agreed = load_config(study.home(name) / "party.toml")
        directories.append(config.directory(agreed))
    assert len({each.digest for each in directories}) == 1
    assert directories[0].endpoints == directories[2].endpoints
    config, agreed = load_config(study.home("p1") / "party.toml")
    (study.home("p1") / "identity").rename(study.home("p1") / "moved")
    (study.home("p2") / "identity").rename(study.home("p1") / "identity")
    with pytest.raises(DocumentError, match="is the identity of the party p2"):
        config.directory(agreed)
