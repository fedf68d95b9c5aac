"""The configurations in parties/ load, and the commands of their README make a release."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpc_engine.identity import load_card
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party.config import load_config
from mpc_engine.scenario.simulate import free_addresses
from tests.network.terminal import loaded, write_shim
from tests.party.machines import Command, engine, start, values_of
from tests.party.nursery import ROOT, environment

PARTIES = ("uk", "us", "helper")
TRUTH = {
    **dict(zip([(s, "FH") for s in ("I", "II", "III", "IV")], (1446, 931, 802, 390), strict=True)),
    **dict(zip([(s, "UH") for s in ("I", "II", "III", "IV")], (126, 121, 142, 70), strict=True)),
}
LARGEST_NOISE = 64
ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


def commands() -> list[list[str]]:
    """Return the commands of parties/README.md, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "parties/README.md").read_text(), re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[0] == "mpc-engine" for line in lines)
    return [line[1:] for line in lines]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the repository has for the parties, with free ports."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "parties").mkdir()
    documents = [shutil.copy(path, folder / "parties") for path in sorted((ROOT / "parties").glob("*.toml"))]
    shutil.copytree(ROOT / "scenarios", folder / "scenarios")
    shutil.copytree(ROOT / "data" / "wilms", folder / "data" / "wilms")
    texts = {Path(path): Path(path).read_text() for path in documents}
    named = sorted({each for text in texts.values() for each in ADDRESS.findall(text)})
    free = dict(zip(named, free_addresses(len(named)), strict=True))
    for path, text in texts.items():
        path.write_text(ADDRESS.sub(lambda match: free[match[0]], text))
    return folder


@dataclass
class Runs:
    """What the commands of the README printed, each under its first words, and how the services ended."""

    printed: dict[str, list[str]]
    ended: dict[str, int]
    errors: dict[str, str]


@pytest.fixture(scope="module")
def runs(clone: Path) -> Runs:
    """Run the commands, the services as processes of their own, which are stopped at the end."""
    printed: dict[str, list[str]] = {}
    services: dict[str, Command] = {}
    with tempfile.TemporaryDirectory() as sockets, loaded(f"{sockets}/s") as wait:
        write_shim(clone / "mpc-engine", f"{sockets}/s")
        wait()
        try:
            for arguments in commands():
                if arguments[:2] == ["party", "serve"]:
                    name = Path(arguments[-1]).stem
                    services[name] = start(clone, *arguments, name=name)
                    continue
                if arguments[:2] == ["query", "submit"]:
                    _wait_until_ready(clone, services)
                said = _run(clone, [*arguments, *_told(clone, arguments)])
                printed.setdefault(" ".join(arguments[:2]), []).append(said)
        finally:
            for service in services.values():
                service.process.send_signal(signal.SIGTERM)
            ended = {name: service.end() for name, service in services.items()}
    return Runs(printed, ended, {name: service.err for name, service in services.items()})


def _run(clone: Path, arguments: list[str], fails: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [clone / "mpc-engine", *arguments],
        cwd=clone,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert done.returncode in fails, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def _told(clone: Path, arguments: list[str]) -> list[str]:
    """Return the option for what the operator is told by telephone, where a card is added."""
    if arguments[1:3] not in (["trust", "add"], ["analyst", "add"]):
        return []
    return [f"--fingerprint={load_card(clone / arguments[3]).fingerprint[-8:]}"]


def _wait_until_ready(clone: Path, services: dict[str, Command]) -> None:
    status = ["party", "status", "--config"]
    end = time.monotonic() + 60
    for name, service in services.items():
        while "It is ready." not in _run(clone, [*status, f"parties/{name}.toml"], fails=(0, 6)):
            assert service.process.poll() is None and time.monotonic() < end, service.err
            time.sleep(0.05)


@pytest.mark.parametrize("name", PARTIES)
def test_a_configuration_loads_and_is_prudent(name: str) -> None:
    config, roster = load_config(ROOT / f"parties/{name}.toml")
    assert [entry.name for entry in roster.party] == list(PARTIES)
    policy = config.accepted()
    assert (policy.greatest_epsilon, policy.least_threshold) == ("1", 5)
    assert "exact" not in policy.rules
    assert (config.data is None) == (name == "helper")


def test_the_commands_do_what_the_page_says(clone: Path, runs: Runs) -> None:
    digests = {said.partition("Digest")[2] for said in runs.printed["party roster"]}
    assert len(runs.printed["party roster"]) == len(PARTIES) and len(digests) == 1
    assert runs.ended == dict.fromkeys(PARTIES, 0), runs.errors
    names = {"release.json", "receipt.json", "table.csv", "result.json", "plot.png", "explanation.txt"}
    assert {path.name for path in (clone / "out").iterdir()} == names
    (verified,) = runs.printed["receipt verify"]
    for name in PARTIES:
        assert f"✓ {name} signed it" in verified
        assert f"✓ its key for {name} is that of the card you trust" in verified
    assert "spent" in runs.printed["budget show"][0] and "entries verify" in runs.printed["audit verify"][0]


def test_the_release_is_the_truth_but_for_noise(clone: Path, runs: Runs) -> None:
    cells = values_of(json.loads((clone / "out/release.json").read_text()))
    assert list(cells) == [
        (stage, histology) for stage in ("I", "II", "III", "IV") for histology in ("FH", "UH")
    ]
    errors = [abs((value or 0) - TRUTH[labels]) for labels, value in cells.items()]  # type: ignore[index]
    assert max(errors) <= LARGEST_NOISE and sum(errors) < 60
    rows = list(csv.DictReader((clone / "out/table.csv").open()))
    assert [float(row["value"]) for row in rows] == [max(value or 0, 0) for value in cells.values()]


def test_all_parties_hold_the_same_release(clone: Path, runs: Runs) -> None:
    held = set()
    for name in PARTIES:
        ledger = Ledger.open(clone / f"parties/{name}/state", party=name, read_only=True)
        (session,) = ledger.sessions()
        assert session.state == "RELEASED"
        held.add((ledger.release(session.ticket), ledger.receipt(session.ticket)))
        ledger.close()
    assert len(held) == 1


def test_keys_and_records_stay_private(clone: Path, runs: Runs) -> None:
    keys = [*clone.glob("parties/*/identity/key.pem"), *clone.glob("parties/*/identity/signing.pem")]
    assert len(keys) == 8
    ledgers = list(clone.glob("parties/*/state/ledger.sqlite"))
    assert len(ledgers) == len(PARTIES)
    for path in [*keys, *ledgers, *clone.glob("parties/*/data/*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert len(list(clone.glob("parties/*/data/registration.json"))) == 2


def test_a_second_identity_is_refused(clone: Path, runs: Runs) -> None:
    key = clone / "parties/uk/identity/key.pem"
    before = key.read_bytes()
    engine(clone, "party", "init", "--config", "parties/uk.toml").failed_with(2, "holds an identity already")
    assert key.read_bytes() == before
