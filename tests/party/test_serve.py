"""Parties as services in processes of their own: answers, restarts, signals, probes, metrics, logs."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mpc_engine.client import Client, connect
from mpc_engine.client.question import Question
from mpc_engine.client.request import Request
from mpc_engine.errors import (
    CertificateError,
    CodebookMismatchError,
    InUseError,
    LedgerWriteError,
    PeerError,
    UnknownCertificateError,
)
from mpc_engine.identity import Terms, TrustStore, create_identity
from mpc_engine.party.logs import EVENTS
from mpc_engine.party.messages import Status
from mpc_engine.party.metrics import OUTCOMES, PHASES
from mpc_engine.scenario.trial import NAMES, PROJECT, make_trial
from tests.party.nursery import environment
from tests.party.services import ENGINE, PATIENCE_S, Services, until

CANARY = "canary-7c1f"
"""In names of folders and files, labels, titles and keys: nowhere in logs and metrics."""
BREAKING = """
import signal, sys
from mpc_engine.errors import LedgerWriteError
from mpc_engine.ledger.store import Store
run = Store.run
def failing(self, sql, values=()):
    if failed and sql == "COMMIT":
        self.broken = self._disk_failed = True
        raise LedgerWriteError("the disk failed under the ledger")
    return run(self, sql, values)
failed = []
Store.run = failing
signal.signal(signal.SIGUSR1, lambda *_: failed.append(True))
from mpc_engine.cli.main import app
sys.argv[0] = "mpc-engine"
app()
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Three parties that are ready."""
    running = Services(make_trial(tmp_path_factory.mktemp(CANARY) / "trial"))
    try:
        running.start()
        running.wait_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture
def alice(services: Services) -> Iterator[Client]:
    """The analyst, connected with the first silo."""
    services.wait_ready()
    with connect(services.trial.profile) as client:
        yield client


def question(client: Client, title: str, *by: str) -> Question:
    """Return a question with a title."""
    return client.crosstab(by=list(by), title=f"{title} {CANARY}", epsilon="0.5", threshold=5, rule="noisy")


def answered(request: Request) -> Status:
    """Return what became of a request, which must have been answered."""
    request.wait(PATIENCE_S)
    status = request.status()
    assert status.state == "RELEASED", f"{status.reason}: {status.detail}"
    return status


def test_a_question_is_answered_and_kept_by_all(services: Services, alice: Client) -> None:
    request = question(alice, "all", "tumour").submit(f"{CANARY}-all")
    ticket = answered(request).ticket
    result = request.result()
    assert result.receipt is not None
    assert ticket is not None
    releases = set()
    for name in NAMES:
        until(lambda name=name: services.logged(name, "session.released"), f"{name} to have released")
        ledger = services.ledger(name)
        row = ledger.session(ticket)
        assert row is not None and row.state == "RELEASED"
        releases.add((ledger.release(ticket), ledger.receipt(ticket)))
        ledger.close()
    assert len(releases) == 1
    # Whoever the analyst asks, the answer is the same.
    elsewhere = services.trial.folder / "south.toml"
    address = services.config("south").service.analysts
    text = services.trial.profile.read_text().replace("north/identity", "south/identity")
    elsewhere.write_text(re.sub(r'address = ".*"', f'address = "{address}"', text))
    with connect(elsewhere) as south:
        assert south.request(request.id).result().release == result.release
    assert services.ask("north", "budget")["scopes"]
    home = services.config("north").path("state")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.iterdir())}
    assert (
        modes["state"] == modes["keys"] == 0o700 and modes["ledger.sqlite"] == modes["control.sock"] == 0o600
    )
    assert stat.S_IMODE(services.trial.log("north").stat().st_mode) == 0o600


def test_probes_tell_alive_from_ready_and_a_restart_goes_on(services: Services, alice: Client) -> None:
    for name in NAMES:
        assert services.serves(name, "") and services.serves(name, "mpc.Peer")
        assert services.serves(name, "mpc.Analyst") == (name != "helper")
    assert services.stop("helper") == [0]
    until(lambda: not services.serves("north", "mpc.Peer"), "north to be not ready")
    assert services.serves("north", "") and services.serves("north", "mpc.Analyst")
    assert services.status("north")["missing"] == ["PEER_UNAVAILABLE"]
    request = question(alice, "restart", "sex").submit("restart")
    assert "helper to decide" in request.status().waiting_for
    services.start("helper")
    answered(request)
    until(lambda: services.serves("north", "mpc.Peer"), "north to be ready again")


def test_a_killed_party_takes_up_where_it_was(services: Services, alice: Client) -> None:
    before = len(services.logged("south", "session.reserved"))
    request = question(alice, "killed", "age_group", "sex").submit("killed")
    until(lambda: len(services.logged("south", "session.reserved")) > before, "a session at south")
    assert services.stop("south", how=signal.SIGKILL) == [-signal.SIGKILL]
    services.start("south")
    began = time.monotonic()
    answered(request)
    # The others hear from south itself that its session is over, long before their deadline for connecting.
    assert time.monotonic() - began < services.config("north").deadlines.connect_s
    spent = set()
    for name in ("north", "south"):
        ledger = services.ledger(name)
        rows = [row for row in ledger.sessions_of(request.id) if row.state != "ABORTED"]
        spent.add(tuple((row.ticket, row.charge) for row in rows))
        ledger.close()
    assert len(spent) == 1 and len(spent.pop()) == 1


def test_a_second_service_on_the_folder_is_refused(services: Services, tmp_path: Path) -> None:
    services.wait_ready("north")
    second = subprocess.run(
        [*ENGINE, "party", "serve", "--config", str(services.trial.config("north"))],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert second.returncode == InUseError.exit_status
    (line,) = second.stderr.splitlines()
    said = json.loads(line)
    assert said["event"] == "party.not_started" and said["reason"] == "IN_USE"
    assert CANARY not in second.stderr
    assert services.status("north")["ready"]


def test_documents_are_read_again_on_demand(services: Services) -> None:
    services.wait_ready()
    path = services.trial.config("south")
    before = path.read_text()

    def reload(text: str, event: str) -> dict[str, object]:
        count = len(services.logged("south", event))
        path.write_text(text)
        services.processes["south"].send_signal(signal.SIGHUP)
        until(lambda: len(services.logged("south", event)) > count, event)
        return services.logged("south", event)[-1]

    def least() -> object:
        return services.ask("south", "policy")["policy"]["least_threshold"]

    stricter = before.replace("least_threshold = 5", "least_threshold = 9")
    assert reload(stricter, "party.reloaded")["restart_needed"] is False
    assert least() == 9
    # Every party learns of it, and what is decided next follows it.
    with connect(services.trial.profile) as client:
        until(lambda: client.policy("south").fields["least_threshold"] == 9, "north to know")
    failed = reload(stricter.replace("least_threshold", f"least_{CANARY}"), "party.not_reloaded")
    assert failed["document"] == "configuration" and failed["reason"] == "DOCUMENT"
    assert least() == 9
    codebook = services.trial.folder / "codebook.toml"
    agreed = codebook.read_text()
    codebook.write_text("name = 3")
    failed = reload(before, "party.not_reloaded")
    codebook.write_text(agreed)
    assert failed["document"] == "codebook" and least() == 9
    moved = reload(re.sub(r'metrics = ".*"', 'metrics = "127.0.0.1:1"', before), "party.reloaded")
    assert moved["restart_needed"] is True
    assert "mpc_engine_ready" in services.metrics("north")
    assert reload(before, "party.reloaded") and least() == 5
    # The log goes on in a new file when the old one was moved away.
    log = services.trial.log("south")
    log.rename(log.with_suffix(".old"))
    services.processes["south"].send_signal(signal.SIGHUP)
    until(lambda: log.exists() and services.logged("south", "party.reloaded"), "a new log")
    log.write_text(log.with_suffix(".old").read_text() + log.read_text())


def test_enrolment_and_revocation_hold_at_once(services: Services, tmp_path: Path) -> None:
    services.wait_ready()
    folder = services.trial.folder
    bob = create_identity("bob", folder / "bob", role="analyst", dev=True)
    profile = folder / "bob.toml"
    profile.write_text(services.trial.profile.read_text().replace('"alice"', '"bob"'))
    store = TrustStore(folder / "north" / "trust", dev=True)

    def reload() -> None:
        count = len(services.logged("north", "party.reloaded"))
        services.processes["north"].send_signal(signal.SIGHUP)
        until(lambda: len(services.logged("north", "party.reloaded")) > count, "north to reload")

    store.add_analyst(bob.card, Terms(budget="1"), typed=bob.card.fingerprint)
    reload()
    with connect(profile) as client:
        assert client.requests() == ()
        store.revoke(bob.card.fingerprint, "left")
        reload()
        with pytest.raises((UnknownCertificateError, PeerError)):
            client.requests()


def test_a_failed_ledger_ends_the_process_and_the_next_start_goes_on(
    services: Services, alice: Client
) -> None:
    assert services.stop("helper") == [0]
    services.start("helper", program=BREAKING)
    services.wait_ready()
    helper = services.processes.pop("helper")
    helper.send_signal(signal.SIGUSR1)
    request = question(alice, "disk", "status").submit("disk")
    assert helper.wait(PATIENCE_S) == LedgerWriteError.exit_status
    assert services.log("helper")[-1]["event"] == "party.ended"
    assert services.log("helper")[-1]["reason"] == "LEDGER_WRITE"
    services.start("helper")
    answered(request)


def test_metrics_have_closed_labels(services: Services, alice: Client) -> None:
    request = question(alice, "metrics", "tumour", "status").submit("metrics")
    answered(request)
    text = until(
        lambda: (
            (found := services.metrics("north"))
            and re.search(r'sessions_total\{outcome="released"\} [1-9]', found)
            and found
        ),
        "a released session to be counted",
    )
    allowed = {
        "outcome": set(OUTCOMES.values()),
        "phase": set(PHASES),
        "peer": {"south", "helper"},
        "party": set(NAMES),
        "direction": {"in", "out"},
        "port": {"peer", "analyst"},
    }
    for labels in re.findall(r"^[a-z_]+\{(.*)\} ", text, re.MULTILINE):
        for name, value in re.findall(r'(\w+)="([^"]*)"', labels):
            if name == "reason":
                assert re.fullmatch(r"[A-Z_]+", value)
            elif name != "le":
                assert value in allowed[name], (name, value)
    for name in (
        "session_seconds_count",
        "peer_up",
        "peer_rtt_seconds",
        "bytes_total",
        "ledger_commit_seconds_sum",
        "cert_not_after_seconds",
        "audit_entries",
        "clock_skew_seconds",
        "requests_open",
        "ready",
    ):
        assert f"\nmpc_engine_{name}" in text, name
    assert "micro" not in text and PROJECT not in text and "alice" not in text
    address = services.config("north").service.metrics
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{address}/", timeout=10)
    host, _, port = (address or "").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(b"x" * 20_000)
        caller.shutdown(socket.SHUT_WR)
        caller.settimeout(10)
        with suppress(ConnectionError):
            assert caller.recv(10) == b""
    assert "mpc_engine_ready 1.0" in services.metrics("north")


def test_another_codebook_is_refused_and_leaves_no_trace(services: Services, alice: Client) -> None:
    """Canaries that a request or a file's name could bring are in no log, metric or standard error."""
    other = services.trial.folder / f"{CANARY}.toml"
    other.write_text((services.trial.folder / "codebook.toml").read_text().replace("leukaemia", CANARY))
    profile = services.trial.folder / "other.toml"
    profile.write_text(services.trial.profile.read_text().replace("codebook.toml", other.name))
    with connect(profile) as client, pytest.raises(CodebookMismatchError):
        question(client, "other", "tumour").cost()
    request = question(alice, "canary", "tumour", "age_group").submit(CANARY)
    answered(request)
    for name in NAMES:
        lines = services.log(name)
        assert lines and all(line["event"] in EVENTS for line in lines)
        written = (
            services.trial.log(name).read_text() + services.metrics(name) + services.errors(name).read_text()
        )
        for secret in (CANARY, "leukaemia", "neuroblastoma", "rows.csv", "alice", str(services.trial.folder)):
            assert secret not in written, (name, secret)


def test_an_expired_certificate_keeps_a_party_from_starting(services: Services, tmp_path: Path) -> None:
    text = services.trial.config("helper").read_text().replace("../", f"{services.trial.folder}/")
    text = text.replace('trust = "trust"', f'trust = "{services.trial.folder}/helper/trust"')
    (tmp_path / "party.toml").write_text(text)
    long_ago = datetime.now(UTC) - timedelta(days=900)
    create_identity("helper", tmp_path / "identity", address="127.0.0.1:1", dev=True, clock=lambda: long_ago)
    ended = subprocess.run(
        [*ENGINE, "party", "serve", "--config", str(tmp_path / "party.toml")],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert ended.returncode == CertificateError.exit_status
    said = json.loads(ended.stderr)
    assert (said["reason"], said["document"]) == ("CERT_EXPIRED", "identity")
    assert str(tmp_path) not in ended.stderr


def test_a_party_starts_though_a_peers_certificate_has_expired(services: Services, tmp_path: Path) -> None:
    """Whoever lets it expire keeps nobody else from serving what they have."""
    assert services.stop("helper") == [0]
    stored = services.trial.folder / "helper" / "trust" / "south.card.json"
    before, long_ago = stored.read_bytes(), datetime.now(UTC) - timedelta(days=900)
    create_identity("south", tmp_path / "south", address="127.0.0.1:1", dev=True, clock=lambda: long_ago)
    stored.write_bytes((tmp_path / "south" / "card.json").read_bytes())
    count = len(services.logged("helper", "certificate.expires"))
    try:
        services.start("helper")
        status = until(lambda: services.status("helper"), "the helper to start")
        assert not status["ready"] and services.serves("helper", "")
        until(lambda: len(services.logged("helper", "certificate.expires")) > count, "a warning")
        assert services.logged("helper", "certificate.expires")[-1]["party"] == "south"
        assert services.stop("helper") == [0]
    finally:
        stored.write_bytes(before)
    services.start("helper")
    services.wait_ready()


def test_stopping_is_clean_and_told_to_the_supervisor(services: Services, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        assert services.stop("helper") == [0]
        services.start("helper", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
        services.wait_ready("helper")
        assert services.stop("helper", how=signal.SIGINT) == [0]
        assert manager.recv(100) == b"STOPPING=1"
    assert services.log("helper")[-1]["event"] == "party.stopped"
    state = services.config("helper").path("state")
    assert not (state / "control.sock").exists() and not (state / "ledger.sqlite-wal").exists()
    services.start("helper")
    services.wait_ready()
