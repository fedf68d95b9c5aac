"""The samples of how a party is run for years: systemd's unit, the container file, the sample ports."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.serve import GRACE_S
from tests.party.nursery import ROOT

UNIT = ROOT / "parties" / "systemd" / "mpc-engine@.service"
CONTAINER = ROOT / "parties" / "container"
SECTIONS = ("Unit", "Service", "Install")
INSTRUCTIONS = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE"} | {
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD")
}


def unit() -> dict[str, dict[str, list[str]]]:
    """Return the unit's keys by section; a key may be there several times."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if heading := re.fullmatch(r"\[([A-Z][a-z]+)\]", line):
            section = found.setdefault(heading[1], {})
            continue
        key, equals, value = line.partition("=")
        assert equals and re.fullmatch(r"[A-Z][A-Za-z]+", key), line
        section.setdefault(key, []).append(value)
    return found


def test_the_unit_says_what_a_party_needs() -> None:
    found = unit()
    assert tuple(found) == SECTIONS
    service = found["Service"]
    assert service["Type"] == ["notify"] and service["ProtectSystem"] == ["strict"]
    assert service["LimitCORE"] == ["0"] and "MemoryMax" in service and service["NoNewPrivileges"] == ["true"]
    assert service["StateDirectoryMode"] == ["0700"] and service["UMask"] == ["0077"]
    assert float(service["TimeoutStopSec"][0]) > GRACE_S
    (command,) = service["ExecStart"]
    assert command.endswith("party serve --config /etc/mpc-engine/%i/party.toml")
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text()
    # Whether the engine is installed where the sample says is not the question.
    text = text.replace("/opt/mpc-engine/bin/mpc-engine", sys.executable)
    (tmp_path / "mpc-engine@uk.service").write_text(text)

    def verify(name: str) -> subprocess.CompletedProcess[str]:
        command = [analyze, "verify", "--man=no", str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    verified = verify("mpc-engine@uk.service")
    assert verified.returncode == 0 and verified.stdout + verified.stderr == ""
    # A key that systemd does not know is only warned of; so is one that stands in the wrong section.
    (tmp_path / "wrong@uk.service").write_text(text.replace("ProtectSystem=", "ProtectSystems="))
    assert "ProtectSystems" in verify("wrong@uk.service").stderr


def test_the_container_runs_without_rights_from_pinned_packages() -> None:
    lines = re.sub(r"\\\n", " ", (CONTAINER / "Containerfile").read_text()).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {step[0] for step in steps} <= INSTRUCTIONS
    final = steps[[index for index, step in enumerate(steps) if step[0] == "FROM"][-1] :]
    said = {step[0]: step[1] for step in final}
    assert said["USER"] == "10001:10001" and said["STOPSIGNAL"] == "SIGTERM"
    assert said["CMD"] == '["party", "serve", "--config", "/etc/mpc-engine/party.toml"]'
    installs = [step[1] for step in steps if "pip" in step[1] and step[0] == "RUN"]
    assert "--require-hashes" in installs[0] and all("--no-index" in each for each in installs[1:])
    for step in steps:
        if step[0] == "COPY" and "--from" not in step[1]:
            for source in step[1].split()[:-1]:
                assert (ROOT / source).exists(), source
    readme = (CONTAINER / "README.md").read_text()
    for option in ("--read-only", "--cap-drop=all", "no-new-privileges", "core=0", "--memory-swap"):
        assert option in readme


@pytest.mark.parametrize("name", ["uk", "us", "helper"])
def test_the_sample_parties_could_serve(name: str) -> None:
    config: PartyConfig = load_config(ROOT / "parties" / f"{name}.toml")[0]
    config.check_service()
    assert config.service.health and config.service.metrics
    assert (config.service.analysts is None) == (name == "helper")
    ports = [config.service.analysts, config.service.health, config.service.metrics]
    assert len(set(ports)) == 3
    if name != "helper":
        assert config.dataset and config.accepted().budget.epsilon
