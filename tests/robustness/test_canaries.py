"""Values of records, and names, where nobody may find them: real parties, releases, failures of all kinds."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpc_engine.client import Client, connect
from mpc_engine.errors import EngineError
from mpc_engine.scenario.trial import NAMES as PARTIES
from mpc_engine.scenario.trial import SILOS, make_trial
from mpc_engine.silo.register import register
from tests.party.services import PATIENCE_S, Services, until
from tests.robustness import canaries
from tests.robustness.patience import patiently

FAILING = f"""
import sys, time
from mpc_engine.silo import tabulate as module
true = module.tabulate
class Taken(tuple):
    def take(self):
        return tuple(self)
def tabulate(query, codebook, registration):
    if "explode" in query.title:
        raise ValueError("row 7: CanaryPatient7,{canaries.DOSES[1]} is no code of canary-file-name.csv")
    counts = true(query, codebook, registration)
    if "bound" in query.title:
        return Taken(each * 10**9 + {canaries.DOSES[0]} for each in counts.take())
    if "hang" in query.title:
        time.sleep(5)
    return counts
module.tabulate = tabulate
from mpc_engine.cli.main import app
sys.argv[0] = "mpc-engine"
app()
"""
"""The engine of a silo that fails on demand, quoting records as table libraries do."""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Three parties with canaries in their records and documents."""
    trial = make_trial(tmp_path_factory.mktemp("canary-folder") / "trial", rows=5)
    (trial.folder / "codebook.toml").write_text(canaries.CODEBOOK)
    for name in SILOS:
        home = trial.folder / name
        (home / "rows.mapping.toml").write_text(canaries.MAPPING)
        (home / "canary-file-name.csv").write_text(canaries.rows())
        (home / "rows.csv").unlink()
        shutil.rmtree(home / "data")
        register(home / "rows.mapping.toml", home / "data")
    for name in PARTIES:
        path = trial.config(name)
        path.write_text(
            path.read_text().replace("connect_s = 30", "connect_s = 3").replace("round_s = 30", "round_s = 3")
        )
    running = Services(trial)
    try:
        running.start("north", "helper")
        running.start("south", program=FAILING)
        running.wait_ready()
        yield running
    finally:
        running.kill()


class Witness:
    """Asks questions, and keeps everything that anybody is told."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.told: dict[str, bytes] = {}

    def ask(self, title: str, then: Callable[[], None] = lambda: None, wanted: str = "RETURNED") -> str:
        """Ask a question; return the reason or state with which it ended."""
        with connect(self.services.trial.profile) as client:
            try:
                return self._ask(client, title, then, wanted)
            except EngineError as error:
                self.told[f"{title}: failure"] = str(error).encode()
                raise

    def _ask(self, client: Client, title: str, then: Callable[[], None], wanted: str) -> str:
        asked = client.crosstab(
            by=["tumour", "sex"], title=f"CanaryTitle {title}", epsilon="0.5", threshold=5, rule="noisy"
        )
        request = patiently(lambda: asked.submit(f"CanaryKey-{title}"))
        then()
        patiently(lambda: request.wait(PATIENCE_S))
        status = patiently(request.status)
        self.told[f"{title}: reason"] = f"{status.reason} {status.detail} {status.next_step}".encode()
        assert status.state == wanted, f"{status.reason}: {status.detail}"
        return status.reason or status.state

    def look(self) -> dict[str, bytes]:
        """Return what anybody can see of the parties, their logs and metrics apart."""
        found = dict(self.told)
        for name in self.services.processes:
            for command in ("status", "list", "budget", "policy"):
                found[f"{name}: {command}"] = repr(self.services.ask(name, command, all=True)).encode()
        return found


def _lines(services: Services) -> dict[str, bytes]:
    """Return all logs, metrics and outputs of processes."""
    found = {f"{name}: metrics": services.metrics(name).encode() for name in services.processes}
    for name in PARTIES:
        found[f"{name}: log"] = services.trial.log(name).read_bytes()
        found[f"{name}: stderr"] = services.errors(name).read_bytes()
    return found


def _check(services: Services, witness: Witness) -> None:
    """Look for every canary in every place where it must not be."""
    lines = _lines(services)
    sources = [
        f"{silo}/{what}" for silo in SILOS for what in ("canary-file-name.csv", "rows.mapping", "data/")
    ]
    folder = services.trial.folder
    stored = canaries.files(folder, sources)
    assert any(name.endswith("state/ledger.sqlite") for name in stored)
    places = {**lines, **witness.look(), **stored}
    assert canaries.search(places, canaries.RECORDS) == []
    assert canaries.search(lines, canaries.NAMES) == []
    # Both searches can find what is there.
    assert len(canaries.search(canaries.files(folder), canaries.RECORDS)) > 10
    assert canaries.search(stored, ["CanaryTitle"])
    print(
        f"{len(places)} places, {sum(map(len, places.values())) / 1e6:.1f} MB, "
        f"{len(canaries.RECORDS)} canaries of records, {len(canaries.NAMES)} of names"
    )
    assert not [path for path in folder.rglob("core*") if path.is_file()]


def test_releases_and_failures_show_nothing_of_records(services: Services) -> None:
    witness = Witness(services)
    source = services.trial.folder / "south" / "data"
    assert witness.ask("first", wanted="RELEASED") == "RELEASED"
    reasons = {
        "explode": witness.ask("explode"),
        "bound": witness.ask("bound"),
    }
    moved = source.rename(source.with_name("data-canary-file-name"))
    reasons["moved"] = witness.ask("moved")
    moved.rename(source)
    rows = next(path for path in source.iterdir() if path.name != "registration.json")
    content = rows.read_bytes()
    rows.write_bytes(content[:-8] + b"Canary!!")
    reasons["changed"] = witness.ask("changed")
    rows.write_bytes(content)
    print(reasons)
    assert set(reasons.values()) <= {"LOCAL_COMPUTE_FAILED", "DATA", "INTEGRITY_ABORT", "MISMATCH_SNAPSHOT"}
    _check(services, witness)

    begun = len(services.logged("south", "session.reserved"))
    with connect(services.trial.profile) as client:
        asked = client.crosstab(
            by=["sex"], title="CanaryTitle hang", epsilon="0.5", threshold=5, rule="noisy"
        )
        held = patiently(lambda: asked.submit("CanaryKey-hang"))
        until(lambda: len(services.logged("south", "session.reserved")) > begun, "the session")
        services.stop("south", how=signal.SIGKILL)
        services.start("south", program=FAILING)
        services.wait_ready()
        patiently(held.withdraw)
        witness.told["killed"] = repr(patiently(held.status)).encode()
    services.wait_ready()
    assert witness.ask("last", wanted="RELEASED") == "RELEASED"
    _check(services, witness)


def test_a_party_that_is_made_to_crash_leaves_no_core(services: Services) -> None:
    for name in PARTIES:
        try:
            limits = Path(f"/proc/{services.processes[name].pid}/limits").read_text()
        except OSError:
            pytest.skip("the limits of another process cannot be read here")
        (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert line.split()[4:6] == ["0", "0"]
    services.stop("helper", how=signal.SIGSEGV)
    assert not [path for path in services.trial.folder.rglob("core*") if path.is_file()]
    services.start("helper")
    services.wait_ready()
