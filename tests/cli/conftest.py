"""Commands run within the test's own process: faster than a process each, and enough for one party."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpc_engine.cli import main
from tests.client.fakes import Study, running
from tests.party.machines import CODEBOOK, MAPPING, QUERY, ROWS


@dataclass(frozen=True)
class Result:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Its message in one line."""
        return " ".join(self.err.split())

    def failed_with(self, status: int, *words: str) -> None:
        """Check that it failed with one clear message that has these words."""
        assert self.status == status, self.err
        assert "Traceback" not in self.err
        assert self.err.lower().count("error: ") == 1, self.err
        for word in words:
            assert word in self.said


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run `mpc-engine` with arguments and return what came of it."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(main, "stop_on_signals", lambda: None)
    logger = logging.getLogger("mpc_engine")
    before = list(logger.handlers)

    def here(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["mpc-engine", *map(str, arguments)])
        status = 0
        capsys.readouterr()
        try:
            main.app()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        printed = capsys.readouterr()
        return Result(status, printed.out, printed.err)

    yield here
    logger.handlers[:] = before


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with codebook.toml, mapping.toml, rows.csv and query.toml."""
    texts = {"codebook.toml": CODEBOOK, "mapping.toml": MAPPING, "query.toml": QUERY, "rows.csv": ROWS}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A running party; the analyst works in the folder of the profile."""
    monkeypatch.chdir(tmp_path)
    with running(tmp_path) as study:
        yield study
