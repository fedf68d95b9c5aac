"""Every scenario of this folder is a test: `pytest scenarios/`.

It is played in one process if it can be, else in the first of its stages that can be had here, or where
`--scenario-stage` says. Those that take long (without ``ci``) are left out unless `--all-scenarios`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.harness import programme
from mpc_engine.harness.report.document import Entry
from mpc_engine.scenario.document import STAGES, Stage, load_scenario

HERE = Path(__file__).resolve().parent
MOST_S = 1_200
"""No scenario comes near this many seconds."""


class NotAsExpectedError(Exception):
    """A scenario did not come out as expected."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of scenarios."""
    group = parser.getgroup("scenarios")
    group.addoption("--scenario-stage", choices=STAGES, help="where scenarios are played")
    group.addoption("--all-scenarios", action="store_true", help="those that take long too")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """Collect the documents right in this folder; those below belong to them."""
    if file_path.suffix == ".toml" and file_path.resolve().parent == HERE:
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class ScenarioFile(pytest.File):
    """A document."""

    def collect(self) -> Iterator[ScenarioItem]:
        """Yield its one test."""
        yield ScenarioItem.from_parent(self, name=self.path.stem)


class ScenarioItem(pytest.Item):
    """A scenario as a test."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker(pytest.mark.timeout(MOST_S))

    def runtest(self) -> None:
        """Play it. Raises NotAsExpectedError, with what was expected and found."""
        scenario = load_scenario(self.path)
        if not (scenario.ci or self.config.getoption("--all-scenarios")):
            pytest.skip("takes long: --all-scenarios plays it too")
        wanted: Stage | None = self.config.getoption("--scenario-stage")
        if wanted is None and "memory" in scenario.runs_in:
            wanted = "memory"
        stage, why = programme.place(scenario, wanted)
        if why:
            pytest.skip(why)
        with tempfile.TemporaryDirectory() as folder:
            entry = programme.perform(scenario, stage, scenario.seed, Path(folder), print)
        if not entry.holds:
            raise NotAsExpectedError(_told(entry))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what was expected and found, without the frames of this file."""
        if isinstance(excinfo.value, NotAsExpectedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where it is."""
        return self.path, None, f"scenario {self.name}"


def _told(entry: Entry) -> str:
    lines = [f"not played to the end: {entry.failed}"] if entry.failed else []
    for verdict in entry.verdicts:
        if not verdict.holds:
            lines += [f"expected: {verdict.claim}", f"found:    {verdict.found}"]
    return "\n".join([*lines, f"again:    {entry.repeat}"])
