"""Parties as their operators have them: folders with documents, and commands run as processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from mpc_engine.identity import TrustStore, create_identity
from mpc_engine.scenario.simulate import free_addresses
from mpc_engine.silo.register import register
from tests.party.nursery import Child, nursery

ENGINE = [sys.executable, "-m", "mpc_engine.cli.main"]
LONGEST_S = 60.0
"""So long a command may take in these tests; far more than any needs."""

CODEBOOK = """
name = "study"
version = "1"
[variables.stage]
kind = "category"
categories = ["I", "II", "III"]
[variables.sex]
kind = "category"
categories = ["female", "male"]
"""
MAPPING = """
codebook = "codebook.toml"
one_row_per_patient = true
[source]
file = "rows.csv"
[variables.stage]
column = "stage"
codes = { 1 = "I", 2 = "II", 3 = "III" }
[variables.sex]
column = "sex"
codes = { f = "female", m = "male" }
"""
QUERY = """
preset = "crosstab"
by = ["stage", "sex"]
[privacy]
epsilon = "1"
rule = "noisy"
threshold = 5
max_records_per_patient = 1
"""
ROWS = "stage,sex\n" + 40 * "1,f\n" + 30 * "1,m\n" + 6 * "2,f\n" + 20 * "2,m\n" + 50 * "3,m\n"
"""One silo's records: 40, 30, 6, 20, 0 and 50 in the cells of the query."""


@dataclass
class Command:
    """A command that runs or has run; its output is in files, so that no pipe can fill up."""

    process: Child
    log: Path
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def out(self) -> str:
        """What it has printed."""
        return self.log.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        """What it has said: progress and failures."""
        return self.log.with_suffix(".err").read_text()

    @property
    def said(self) -> str:
        """What it has said in one line, as if the terminal had no width, without lines of progress."""
        return " ".join(line.strip() for line in self.err.splitlines() if not line.startswith("…"))

    def end(self) -> int:
        """Wait for the end and return the exit status."""
        try:
            return self.process.wait(LONGEST_S)
        finally:
            self.seconds = time.monotonic() - self.started
            self.process.kill()
            self.process.wait()

    def until(self, text: str) -> None:
        """Wait until it has said something; fails if it ends first."""
        while text not in self.err:
            assert self.process.poll() is None, self.err
            assert time.monotonic() - self.started < LONGEST_S, self.err
            time.sleep(0.002)

    def failed_with(self, status: int, *words: str) -> None:
        """Check that it failed with one clear message that has these words."""
        assert self.end() == status, f"{self.process.returncode}: {self.err}"
        assert "Traceback" not in self.err
        assert self.err.count("error: ") == 1, self.err
        assert self.out == ""
        for word in words:
            assert word in self.said, self.err


def start(folder: Path, *arguments: str, name: str = "command", **env: str) -> Command:
    """Start `mpc-engine` with these arguments in a folder."""
    log = folder / name
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    for each in (out, err):
        each.write_bytes(b"")
    process = nursery().fork(
        "tests.party.nursery:command", *arguments, folder=folder, output=str(out), errors=err, env=env
    )
    return Command(process, log)


def engine(folder: Path, *arguments: str, **env: str) -> Command:
    """Run `mpc-engine` with these arguments in a folder to its end."""
    command = start(folder, *arguments, **env)
    command.end()
    return command


@dataclass
class Study:
    """Parties p1, p2, … with a folder each, which holds all that the party's operator has."""

    folder: Path
    names: list[str]
    addresses: list[str]
    silos: list[bool]

    def home(self, name: str) -> Path:
        """The folder of a party."""
        return self.folder / name

    def rewrite(self, name: str, document: str, old: str, new: str) -> None:
        """Change one party's copy of a document."""
        path = self.home(name) / document
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def register(self, *names: str) -> None:
        """Register the data of silos, by default of all."""
        silos = [name for name, silo in zip(self.names, self.silos, strict=True) if silo]
        for name in names or silos:
            register(self.home(name) / "mapping.toml", self.home(name) / "data")

    def start(self, name: str, *arguments: str) -> Command:
        """Start a party."""
        home = self.home(name)
        run = ("party", "run", "--config", "party.toml", "--query", "query.toml", "--out", "released")
        return start(home, *run, *arguments, name="run")

    def run(self, *names: str) -> dict[str, Command]:
        """Start parties, by default all, and wait for their ends."""
        commands = {name: self.start(name) for name in names or self.names}
        for command in commands.values():
            command.end()
        return commands

    def nothing_released(self) -> None:
        """Check that no party has left a file, not even half of one."""
        for name in self.names:
            released = self.home(name) / "released"
            assert not released.exists() or not list(released.iterdir())


def make_study(
    folder: Path,
    *,
    silos: Sequence[bool] = (True, False, False),
    documents: Mapping[str, str] | None = None,
    connect_s: int = 30,
    round_s: int = 20,
    registered: bool = True,
) -> Study:
    """Write the documents, keys and registered data of a study's parties; the silos' records are the same."""
    texts = {
        "codebook.toml": CODEBOOK,
        "mapping.toml": MAPPING,
        "query.toml": QUERY,
        "rows.csv": ROWS,
    } | dict(documents or {})
    names = [f"p{number}" for number in range(1, len(silos) + 1)]
    addresses = free_addresses(len(silos))
    cards = []
    for name, address in zip(names, addresses, strict=True):
        (folder / name).mkdir(parents=True)
        cards.append(create_identity(name, folder / name / "identity", address=address, dev=True).card)
    entries = [
        f'[[party]]\nname = "{name}"\nsilo = {str(silo).lower()}\n'
        for name, silo in zip(names, silos, strict=True)
    ]
    for name, silo in zip(names, silos, strict=True):
        home = folder / name
        trust = TrustStore(home / "trust", dev=True)
        for card in cards:
            if card.name != name:
                trust.add(card, typed=card.fingerprint)
        (home / "roster.toml").write_text("\n".join(entries))
        for document in ("codebook.toml", "query.toml", *(("mapping.toml", "rows.csv") if silo else ())):
            (home / document).write_text(texts[document])
        own = 'mapping = "mapping.toml"\ndata = "data"\n' if silo else ""
        (home / "party.toml").write_text(
            f'name = "{name}"\nroster = "roster.toml"\ncodebook = "codebook.toml"\n'
            f'identity = "identity"\ndev = true\n{own}'
            '[policy]\ngreatest_epsilon = "1"\nleast_threshold = 5\n'
            f"[deadlines]\nconnect_s = {connect_s}\nround_s = {round_s}\n"
        )
    study = Study(folder, names, addresses, list(silos))
    if registered:
        study.register()
    return study


def large_documents(side: int = 500) -> dict[str, str]:
    """Return the documents of a study whose table has side² cells, so that computing takes a while."""
    labels = [f"c{number}" for number in range(side)]
    quoted = ", ".join(f'"{label}"' for label in labels)
    codes = ", ".join(f'{label} = "{label}"' for label in labels)
    variable = f'kind = "category"\ncategories = [{quoted}]\n'
    return {
        "codebook.toml": f'name = "large"\nversion = "1"\n[variables.a]\n{variable}[variables.b]\n{variable}',
        "mapping.toml": (
            'codebook = "codebook.toml"\none_row_per_patient = true\n[source]\nfile = "rows.csv"\n'
            f'[variables.a]\ncolumn = "a"\ncodes = {{ {codes} }}\n'
            f'[variables.b]\ncolumn = "b"\ncodes = {{ {codes} }}\n'
        ),
        "query.toml": QUERY.replace('"stage", "sex"', '"a", "b"'),
        "rows.csv": "a,b\n" + "c1,c2\n" * 50,
    }


def values_of(release: Mapping[str, Any]) -> dict[tuple[str, ...], int | None]:
    """Return the values of a release of one tally by the categories of its cells, None if suppressed."""
    (groups,) = release["groups"]
    (tally,) = groups["tallies"]
    labels = product(*(axis["categories"] for axis in tally["grid"]))
    return dict(zip(labels, tally["values"], strict=True))
