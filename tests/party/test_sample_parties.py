"""The configurations in parties/ load, and the commands of their README make one release at three parties."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from mpc_engine.identity import load_card
from mpc_engine.party.config import load_config
from mpc_engine.scenario.simulate import free_addresses
from tests.party.machines import ROOT, Command, engine, start, values_of

PARTIES = ("uk", "us", "helper")
TRUTH = {
    **dict(zip([(s, "FH") for s in ("I", "II", "III", "IV")], (1446, 931, 802, 390), strict=True)),
    **dict(zip([(s, "UH") for s in ("I", "II", "III", "IV")], (126, 121, 142, 70), strict=True)),
}
LARGEST_NOISE = 64


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
    shutil.copytree(
        ROOT / "parties",
        folder / "parties",
        ignore=shutil.ignore_patterns("identity", "data", "trust", "state"),
    )
    shutil.copytree(ROOT / "scenarios", folder / "scenarios")
    shutil.copytree(ROOT / "data" / "wilms", folder / "data" / "wilms")
    roster = folder / "parties/roster.toml"
    text = roster.read_text()
    for old, new in zip(re.findall(r'"(127\.0\.0\.1:\d+)"', text), free_addresses(3), strict=True):
        text = text.replace(old, new)
    roster.write_text(text)
    return folder


@pytest.fixture(scope="module")
def runs(clone: Path) -> dict[str, Command]:
    """What the three parties did when the README's commands were run, the last three at the same time."""
    *before, uk, us, helper = commands()
    for arguments in before:
        # The fingerprint is what the operator is told by telephone.
        told = [
            f"--fingerprint={load_card(clone / word).fingerprint[-8:]}"
            for word in arguments
            if arguments[1:3] == ["trust", "add"] and word.endswith("card.json")
        ]
        command = engine(clone, *arguments, *told)
        assert command.process.returncode == 0, command.err
    started = {
        name: start(clone, *arguments, name=name)
        for name, arguments in zip(PARTIES, (uk, us, helper), strict=True)
    }
    for command in started.values():
        command.end()
    return started


@pytest.mark.parametrize("name", PARTIES)
def test_a_configuration_loads_and_is_prudent(name: str) -> None:
    config, roster = load_config(ROOT / f"parties/{name}.toml")
    assert [entry.name for entry in roster.party] == list(PARTIES)
    policy = config.accepted()
    assert (policy.greatest_epsilon, policy.least_threshold) == ("1", 5)
    assert "exact" not in policy.rules
    assert (config.data is None) == (name == "helper")


def test_all_parties_publish_the_same_files(clone: Path, runs: dict[str, Command]) -> None:
    for name, command in runs.items():
        assert command.process.returncode == 0, f"{name}: {command.err}"
    released = ("release.json", "cells.csv", "openings.json", "receipt.json")
    presented = ("table.csv", "result.json", "plot.png", "explanation.txt")
    for file in (*released, *presented):
        contents = {(clone / "out" / name / file).read_bytes() for name in PARTIES}
        assert len(contents) == 1
    assert {path.name for path in (clone / "out/uk").iterdir()} == {*released, *presented}
    tables = {command.out.partition("Written to")[0] for command in runs.values()}
    assert len(tables) == 1


def test_the_release_is_the_truth_but_for_noise(clone: Path, runs: dict[str, Command]) -> None:
    cells = values_of(json.loads((clone / "out/us/release.json").read_text()))
    assert list(cells) == [
        (stage, histology) for stage in ("I", "II", "III", "IV") for histology in ("FH", "UH")
    ]
    errors = [abs((value or 0) - TRUTH[labels]) for labels, value in cells.items()]  # type: ignore[index]
    assert max(errors) <= LARGEST_NOISE and sum(errors) < 60
    rows = list(csv.DictReader((clone / "out/us/cells.csv").open()))
    assert [int(row["value"]) for row in rows] == list(cells.values())


def test_keys_and_records_stay_private(clone: Path, runs: dict[str, Command]) -> None:
    keys = [*clone.glob("parties/*/identity/key.pem"), *clone.glob("parties/*/identity/signing.pem")]
    assert len(keys) == 6
    for path in [*keys, *clone.glob("parties/*/data/*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert len(list(clone.glob("parties/*/data/registration.json"))) == 2


def test_a_second_identity_is_refused(clone: Path, runs: dict[str, Command]) -> None:
    key = clone / "parties/uk/identity/key.pem"
    before = key.read_bytes()
    engine(clone, "party", "init", "--config", "parties/uk.toml").failed_with(2, "holds an identity already")
    assert key.read_bytes() == before
