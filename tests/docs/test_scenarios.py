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
from mpc_engine.harness.checks import judge
from mpc_engine.harness.play import play
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
from mpc_engine.scenario.faults import KINDS, OF_THE_NETWORK, Fault
from tests.party.nursery import environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(toml|console)\n(.*?)^```$", re.M | re.S)
NAMED = re.compile(r"# ([\w.]+)(, continued)?\n")
EXPECTATIONS: tuple[type[Document], ...] = get_args(get_args(Expectation)[0])
OWN: dict[str, dict[str, object]] = {
    "against": {"against": ("b",)},
    "bytes": {"bytes": 1},
    "factor": {"factor": 2.0},
    "section": {"section": "TEST"},
}
MODELS: list[type[Document]] = [Scenario, Ask, ScenarioParty, Generated, LinkWeather, Fault, *EXPECTATIONS]
KEYS = {key for model in MODELS for key in model.model_fields}


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


def test_the_partition_of_the_page_is_noticed(tmp_path: Path) -> None:
    """As the page says: these tables in place of the fault and of what `detected` expects."""
    files: dict[str, str] = {}
    for kind, text in FENCED.findall(PAGE):
        if kind == "toml":
            name = NAMED.match(text)[1]  # type: ignore[index]
            files[name] = files.get(name, "") + text
    whole = files.pop("sarcoma.toml").replace('["memory", "processes", "network"]', '["memory", "network"]')
    tables = re.split(r"^(?=\[)", whole, flags=re.M)
    kept = [x for x in tables if not x.startswith("[[fault]]") and 'kind = "detected"' not in x]
    assert len(tables) - len(kept) == 2
    files["sarcoma.toml"] = "".join([*kept, "\n", files["parted.toml"]])
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with play(load_scenario(tmp_path / "sarcoma.toml")) as run:
        assert run.stage == "memory" and run.faults[0].fault.kind == "partition"
        assert [(each.claim, each.found) for each in judge(run) if not each.holds] == []
    # Without the deadlines it is not noticed, for nobody waits so short a time.
    text = (tmp_path / "sarcoma.toml").read_text(encoding="utf-8")
    (tmp_path / "sarcoma.toml").write_text(re.sub(r"\[deadlines\]\n.*\n.*\n", "", text), encoding="utf-8")
    with play(load_scenario(tmp_path / "sarcoma.toml")) as run:
        assert [each.found for each in judge(run) if not each.holds] == ["Nobody noted it."]


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_every_fault_in_its_table(kind: str) -> None:
    (row,) = re.findall(rf"^\| `{kind}` \|(.*)\|$", PAGE, re.M)
    assert ("`processes`" in row.split("|")[-1]) == (kind in OF_THE_NETWORK)
    for key in ("against", "bytes", "factor", "section"):
        try:
            Fault.model_validate(
                {"kind": kind, "party": "a", "for_s": 1.0 if kind != "reset" else None} | OWN[key]
            )
        except ValueError:
            continue
        assert f"`{key}`" in row, key


@pytest.mark.parametrize("word", sorted({*KEYS, *KINDS, *STAGES, *FAILPOINTS}))
def test_the_page_names_every_key(word: str) -> None:
    assert re.search(rf"`[^`]*\b{word}\b[^`]*`", PAGE), word


def test_the_page_names_every_expectation() -> None:
    kinds = {get_args(model.model_fields["kind"].annotation)[0] for model in EXPECTATIONS}
    rows = "\n".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.M))
    assert kinds - set(re.findall(r"`(\w+)`", rows)) == set()
