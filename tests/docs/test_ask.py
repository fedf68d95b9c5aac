"""docs/ask.md, followed to the letter: its commands and its Python run, and it names every key there is."""

from __future__ import annotations

import code
import contextlib
import io
import re
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from doctest import DocTestParser
from pathlib import Path
from typing import Any

import pytest
import typer

from mpc_engine.cli import main, query
from mpc_engine.client.profile import Profile
from mpc_engine.result.explanation import FLAGS
from mpc_engine.scenario.trial import make_trial
from mpc_engine.statistics.followup import Event
from mpc_engine.statistics.presets import presets
from mpc_engine.statistics.query import Privacy
from mpc_engine.statistics.timegrid import TimeGrid
from mpc_engine.statistics.where import Where
from tests.party.services import Services

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ask.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(toml|console|pycon)\n(.*?)^```$", re.M | re.S)
REST = "…"
EXACT = ("validate", "cost", "preview")
"""Commands that print the same each time; what others print has noise, times and ports in it."""
VARIES = re.compile(r"\d[\d.,]*\d|\d|\[c\]")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the page speaks of, with the parties of `dev up` running."""
    with tempfile.TemporaryDirectory() as name:
        services = Services(make_trial(Path(name) / "trial"))
        try:
            services.start()
            services.wait_ready()
            monkeypatch.chdir(name)
            for variable, value in (("COLUMNS", "80"), ("NO_COLOR", "1")):
                monkeypatch.setenv(variable, value)
            monkeypatch.setenv("MPC_ENGINE_PROFILE", "trial/analyst.toml")
            monkeypatch.setattr(main, "stop_on_signals", lambda: None)
            yield Path(name)
            assert services.stop() == [0, 0, 0]
        finally:
            services.kill()


def test_whoever_follows_the_page_sees_what_it_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = re.findall(r"^Submitted: request (\w+)$", PAGE, re.M)
    made, subcommands, console = name, [], code.InteractiveConsole({})
    for kind, text in BLOCK.findall(PAGE):
        if kind == "toml":
            (folder / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        elif kind == "pycon":
            for example in DocTestParser().get_examples(text):
                printed = python(console, example.source)
                assert shown(example.want, printed, exact=False), f"{example.source}{printed}"
        elif "dev up" not in text:
            for part in filter(None, text.split("$ mpc-engine ")):
                line, _, said = part.replace(name, made).replace(name[:8], made[:8]).partition("\n")
                monkeypatch.setattr(sys, "argv", ["mpc-engine", *shlex.split(line)])
                with contextlib.suppress(SystemExit):
                    main.app()
                caught = capsys.readouterr()
                printed = caught.err + caught.out
                subcommands.append(line.split()[1])
                if subcommands[-1] == "submit":
                    (new,) = re.findall(r"^Submitted: request (\w+)$", printed, re.M)
                    said, made = said.replace(made, new), new
                assert shown(said, printed, exact=subcommands[-1] in EXACT), f"$ mpc-engine {line}\n{printed}"
    commands = typer.main.get_command(query.commands).commands  # type: ignore[attr-defined]
    assert set(subcommands) == set(commands)
    assert {path.name for path in (folder / "result").iterdir()} >= {"release.json", "table.csv", "plot.png"}


def python(console: code.InteractiveConsole, source: str) -> str:
    """Return what Python prints for some lines at its prompt."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert not console.runsource(source.rstrip("\n") + "\n", symbol="single")
    return printed.getvalue()


def shown(page: str, printed: str, *, exact: bool) -> bool:
    """Whether the page's lines are what was printed, `…` being any lines; if not exact, but for numbers."""
    wanted, got = ([plain(line, exact) for line in text.strip("\n").split("\n")] for text in (page, printed))
    if wanted == [""]:
        return got == [""]
    pattern = "".join("(.*\n)*?" if line == REST else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in got)) is not None


def plain(line: str, exact: bool) -> str:
    return " ".join(line.split() if exact else VARIES.sub("0", line).split())


def test_a_page_that_shows_something_else_is_found() -> None:
    assert shown("a  12\n…\nz\n", "a 7.5\nb\nz\n", exact=False)
    assert not shown("a 12", "a 7", exact=True)
    assert not shown("a 12\n…", "b 12\nc", exact=False)
    assert not shown("a 12\n", "a 12\nb", exact=False)


def test_every_key_is_on_the_page() -> None:
    documents: set[Any] = {Profile, Privacy, Where, Event, TimeGrid, *presets().values()}
    keys = {info.alias or name for model in documents for name, info in model.model_fields.items()} - {
        "privacy"
    }
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert sorted(keys - named) == []
    assert sorted({*presets(), *FLAGS} - named) == []
    assert all(f"query {name} " in PAGE or f"query {name}\n" in PAGE for name in ("list", "withdraw"))


def test_every_example_of_a_key_is_of_that_key() -> None:
    rows = re.findall(r"^\| .*?\| `([^|]*? = [^|]*)` \|$", PAGE, re.M)
    assert len(rows) > 55
    for row in rows:
        (key,) = tomllib.loads(row)
        (line,) = [line for line in PAGE.splitlines() if line.endswith(f"| `{row}` |")]
        assert f"`{key}`" in line, line
