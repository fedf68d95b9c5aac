"""docs/scenarios.md, followed to the letter: its files are written, its commands run, its scenario passes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from mpc_engine.documents import Document
from mpc_engine.party.failpoints import FAILPOINTS
from mpc_engine.scenario.document import (
    STAGES,
    Ask,
    Generated,
    LinkWeather,
    Scenario,
    ScenarioParty,
    load_scenario,
)
from mpc_engine.scenario.expectations import Expectation
from mpc_engine.scenario.faults import KINDS, Fault
from tests.party.nursery import environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(toml|console)\n(.*?)^```$", re.M | re.S)
NAMED = re.compile(r"# ([\w.]+)(, continued)?\n")
EXPECTATIONS: tuple[type[Document], ...] = get_args(get_args(Expectation)[0])
KEYS = {
    key
    for model in (Scenario, Ask, ScenarioParty, Generated, LinkWeather, Fault, *EXPECTATIONS)
    for key in model.model_fields
}


def test_whoever_follows_the_page_has_a_scenario_that_passes(tmp_path: Path) -> None:
    """Write each file as it comes and run each command as it comes."""
    commands = 0
    for kind, text in FENCED.findall(PAGE):
        if kind == "toml":
            named = NAMED.match(text)
            assert named, f"a block without a file's name:\n{text}"
            path = tmp_path / named[1]
            assert path.exists() == bool(named[2])
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
            continue
        for line in text.strip().splitlines():
            program, *words = shlex.split(line.removeprefix("$ "))
            assert program == "mpc-engine"
            done = subprocess.run(
                [sys.executable, "-m", "mpc_engine", *words],
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            commands += 1
    assert commands == 2
    assert "<html" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    played = load_scenario(tmp_path / "sarcoma.toml")
    assert played.fault and len(played.expect) >= 4 and not played.network.calm


@pytest.mark.parametrize("word", sorted({*KEYS, *KINDS, *STAGES, *FAILPOINTS}))
def test_the_page_names_every_key(word: str) -> None:
    assert re.search(rf"`[^`]*\b{word}\b[^`]*`", PAGE), word


def test_the_page_names_every_expectation() -> None:
    kinds = {get_args(model.model_fields["kind"].annotation)[0] for model in EXPECTATIONS}
    rows = "\n".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.M))
    assert kinds - set(re.findall(r"`(\w+)`", rows)) == set()
