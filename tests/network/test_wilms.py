"""The operator's guide, followed from one end to the other on hosts of their own: Wilms tumours."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from mpc_engine.harness.namespaces import obstacle
from mpc_engine.identity import load_card
from tests.network.guide import Guide
from tests.network.hosts import Host, hosts
from tests.network.study import PARTIES, Study
from tests.party.machines import values_of

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

TRUTH = {
    **dict(zip([(s, "FH") for s in ("I", "II", "III", "IV")], (1446, 931, 802, 390), strict=True)),
    **dict(zip([(s, "UH") for s in ("I", "II", "III", "IV")], (126, 121, 142, 70), strict=True)),
}
LARGEST_NOISE = 64
NOT_FOLLOWED = {
    "useradd": "the tests run in the environment that they are in",
    "runuser": "there is no user of that name there",
    "systemctl enable": "nor systemd; the service is started by `party serve`, as the guide also says",
}


def test_the_guide_is_followed(tmp_path: Path) -> None:
    guide = Guide.read()
    with hosts(tmp_path, (*PARTIES, "alice"), {}) as made:
        study = Study(guide, made)
        try:
            _set_up(study)
            _first_release(study)
            _manual_release(study)
            _day_to_day(study)
            _back_up_and_restore(study)
            _change_keys(study)
            _retire(study)
            _revoke(study)
        finally:
            print(study.transcript())
    left = [block for block in guide.left() if not any(words in block for words in NOT_FOLLOWED)]
    assert not left, f"not followed: {left}"


def _set_up(study: Study) -> None:
    study.write_documents()
    study.enrol()
    study.register()
    study.enrol_alice()
    doctor, policy = study.guide.commands("party doctor").splitlines()

    def before(party: str) -> str:
        # Nobody has been started: whom a party dials it does not reach, and all else is well.
        said = study.host(party).run(doctor, fails=0 if party == "uk" else 1)
        failed = set(re.findall(r"^FAILED +(\w+)", said, re.M))
        assert failed == (set() if party == "uk" else {"tcp"}), said
        return study.host(party).run(policy)

    assert all("ε" in said for said in study.together(before).values())
    study.start()
    found = study.together(lambda party: study.host(party).run(doctor))
    assert all("none failed" in said for said in found.values())
    _nobody_dials_us(study.host("us"), study.host("uk"))


def _nobody_dials_us(us: Host, uk: Host) -> None:
    """us listens on its own machine only, and its lines are connections that it began itself."""
    sockets = us.sockets()
    listening = {own.rpartition(":")[0] for own, _, state in sockets if state == "0A"}
    assert listening == {"0100007F"}, sockets
    dialled = [other for own, other, state in sockets if state == "01" and not own.startswith("0100007F")]
    assert len(dialled) >= 2 and all(other.endswith(f":{8470:04X}") for other in dialled), sockets
    assert any(own.endswith(f":{8470:04X}") and state == "0A" for own, _, state in uk.sockets())


def _first_release(study: Study) -> None:
    study.prepare_alice()
    study.ask_first()
    folder = study.host("alice").home / "first"
    cells = values_of(json.loads((folder / "release.json").read_text()))
    errors = [abs((cells[labels] or 0) - truth) for labels, truth in TRUTH.items()]
    assert len(cells) == len(TRUTH) and max(errors) <= LARGEST_NOISE and sum(errors) < 60
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert {row["flag"] for row in rows} == {"ok"}


def _manual_release(study: Study) -> None:
    ids: set[str] = set()
    said = study.follow("alice", "mpc-engine query submit relapse_free_survival.toml")
    (whole,) = re.findall(r"request ([0-9a-f]{32})", said)
    listed, shown, approve = study.guide.commands("party list --config $C").splitlines()
    for party in study.silos:
        host = study.host(party)
        ids |= set(re.findall(r"Waiting for you: ([0-9a-f]{8})", host.until(listed, "Waiting for you")))
        for line in (shown, approve):
            host.run(re.sub(r"\b[0-9a-f]{8}\b", whole[:8], line), typed="y\n")
    assert ids == {whole[:8]}
    said = study.host("alice").run(
        re.sub(r"[0-9a-f]{32}", whole, study.guide.commands("mpc-engine query wait"))
    )
    assert "RELEASED" in said
    verified = study.host("alice").run("mpc-engine receipt verify second --trust cards")
    assert "✗" not in verified


def _day_to_day(study: Study) -> None:
    for command in ("party status", "budget show", "audit verify", "audit export --out audit.jsonl"):
        study.host("uk").run(f"mpc-engine {command} --config $C")


def _spent(host: Host) -> str:
    found = json.loads(host.run("mpc-engine budget show --config $C --json"))
    (dataset,) = (scope for scope in found["scopes"] if scope["kind"] == "dataset")
    return str(dataset["spent"]["micro_epsilon"])


def _back_up_and_restore(study: Study) -> None:
    uk, alice = study.host("uk"), study.host("alice")
    study.follow("uk", "party backup")
    alice.run("mpc-engine query submit mean_age.toml --wait --out third", fails=4)  # not among the presets
    alice.run(
        'sed \'s/^epsilon.*/epsilon = "0.25"/; s/^title.*/title = "First"/\' stage_by_histology.toml > s.toml'
    )
    alice.run("mpc-engine query submit s.toml --wait --out third")
    before = _spent(uk)
    assert uk.stop() == 0
    study.follow("uk", "rm -f state/ledger.sqlite")
    assert _spent(uk) < before
    study.start("uk")
    refused = alice.run("sed -i 's/First/Second/' s.toml; mpc-engine query submit s.toml --wait", fails=11)
    assert "LEDGER_ROLLBACK" in refused
    study.follow("uk", "party recover")
    assert _spent(uk) == before
    alice.run("mpc-engine query submit s.toml --wait --out fourth")


def _change_keys(study: Study) -> None:
    uk = study.host("uk")
    digest = uk.run("mpc-engine party roster --config $C").partition("Digest")[2]
    study.follow("uk", "party card --next")
    study.send("uk", "uk-next.card.json", "us", "helper", "alice")
    for party in ("us", "helper"):
        assert "endorses" in study.follow(party, "trust add uk-next.card.json")
        study.host(party).reload()
    activate, finish = study.guide.commands("rotate --activate").split("systemctl restart mpc-engine@uk\n")
    uk.run(activate)
    assert uk.stop() == 0
    study.start("uk")
    said = uk.run(finish)
    revoking = re.search(r"mpc-engine party revoke \w{8} --reason rotated", " ".join(said.split()))
    assert revoking is not None
    for party in ("us", "helper"):
        host = study.host(party)
        host.run(f"{revoking[0]} --config $C")
        host.reload()
        assert host.run("mpc-engine party roster --config $C").partition("Digest")[2] == digest
    alice = study.host("alice")
    alice.run("mpc-engine party trust add uk-next.card.json --trust cards")
    alice.run("sed -i 's/Second/Third/' s.toml; mpc-engine query submit s.toml --wait --out fifth")
    alice.run("mpc-engine query submit stage_by_histology.toml --wait --out again")
    first, again = ((alice.home / name / "receipt.json").read_bytes() for name in ("first", "again"))
    assert first == again
    for folder in ("first", "fifth"):
        assert "✗" not in alice.run(f"mpc-engine receipt verify {folder} --trust cards")


def _revoke(study: Study) -> None:
    told = study.host("uk").fingerprints["alice.card.json"]
    block = re.sub(r"revoke \w{8}", f"revoke {told}", study.guide.commands("party revoke"))
    for party in study.silos:
        study.host(party).run(block)
        study.host(party).reload()
    study.host("alice").run("mpc-engine query list", fails=6)


def _retire(study: Study) -> None:
    """The helper goes, and another one comes in its place on the same machine, for three are needed.

    All stop and all start again, as for an upgrade.
    """
    guide, uk, us, place, alice = study.guide, *(study.host(name) for name in (*PARTIES, "alice"))
    gone = uk.fingerprints["helper.card.json"]
    for party in PARTIES:
        assert study.host(party).stop() == 0
    place.run("rm -r identity state/keys")

    def coming(text: str) -> str:
        return re.sub(r"\bhelper\b(?!\.example)", "aide", text)

    roster = coming(guide.document('name = "us"\n\n[[party]]'))
    place.run(coming(guide.commands("install -d -m 0755").replace("/uk", "/helper")))
    for host, name in ((uk, "uk"), (us, "us"), (place, "aide")):
        host.write(f"/etc/mpc-engine/{name}/roster.toml", roster)
    place.write("/etc/mpc-engine/aide/party.toml", coming(guide.document('name = "helper"\nroster')))
    place.run("cp /etc/mpc-engine/helper/policy.toml /etc/mpc-engine/aide/")
    said = place.run(coming(guide.commands("C=/etc/mpc-engine/helper/party.toml")))
    card = place.path("/var/lib/mpc-engine/aide/aide.card.json")
    for host, more in ((uk, "--config $C"), (us, "--config $C"), (alice, "--trust cards")):
        study.tell(said, "aide.card.json", host)
        shutil.copy(card, host.folder)
        host.run(f"mpc-engine party trust add {host.folder}/aide.card.json {more}")
    for host, name in ((uk, "uk"), (us, "us")):
        host.run(f"mpc-engine party revoke {gone} --reason retired --config $C")
        received = card.parent / f"{name}.card.json"
        host.run(
            f"mpc-engine party card --config $C > {name}.card.json; mpc-engine party trust list --config $C"
        )
        shutil.copy(host.path(f"/var/lib/mpc-engine/{name}/{name}.card.json"), received)
        place.fingerprints[received.name] = load_card(received).fingerprint[-8:]
        place.run(f"mpc-engine party trust add {received.name} --config $C")
    digests = {said.partition("Digest")[2] for said in study.everywhere("party roster").values()}
    assert len(digests) == 1
    study.start()
    alice.run("sed -i 's/Third/Fourth/' s.toml; mpc-engine query submit s.toml --wait --out sixth")
    assert "✗" not in alice.run("mpc-engine receipt verify sixth --trust cards")
