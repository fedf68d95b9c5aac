"""What a report is made from: one entry per scenario that was played, kept as JSON.

An entry lies in a folder of its own, so that a scenario played again replaces its own entry only:
``DIR/NAME.STAGE/entry.json``. ``DIR/report.json`` holds all entries of the folder.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast, get_args

from mpc_engine import __version__
from mpc_engine.errors import DocumentError
from mpc_engine.harness.blocks import Block, Chapter, Figure, Table, Text
from mpc_engine.harness.record import Asked, Run, Verdict
from mpc_engine.harness.report.blocks import plain
from mpc_engine.harness.report.words import NOTICE
from mpc_engine.scenario.expectations import Detected, Outcome

FORMAT: Final = "mpc-engine validation report 1"
CHAPTERS: Final[tuple[Chapter, ...]] = get_args(Chapter)
Blocks = Mapping[Chapter, Sequence[Block]]


@dataclass(frozen=True)
class Entry:
    """One scenario, as it was played or why it was not.

    Attributes:
        repeat: the command that plays it again as it was.
        engine, made, machine: version of the engine, when it was played (UTC) and on what.
        facts: sizes that the summary adds up, see `facts_of`.
        skipped: why it was not played; empty if it was.
        failed: why it could not be played to its end; empty if it was.
    """

    name: str
    title: str
    about: str
    stage: str
    seed: int
    repeat: str = ""
    took_s: float = 0.0
    engine: str = __version__
    made: str = ""
    machine: str = ""
    verdicts: tuple[Verdict, ...] = ()
    chapters: Blocks = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    skipped: str = ""
    failed: str = ""

    @property
    def played(self) -> bool:
        """Whether it was played, be it in vain."""
        return not self.skipped

    @property
    def holds(self) -> bool:
        """Whether it was played to its end and everything that was expected came."""
        return self.played and not self.failed and all(verdict.holds for verdict in self.verdicts)

    @property
    def key(self) -> str:
        """The name of its folder."""
        return f"{self.name}.{self.stage}"


def entry_of(run: Run, verdicts: Iterable[Verdict], chapters: Blocks, repeat: str = "") -> Entry:
    """Return the entry of a scenario that was played."""
    return replace(
        blank(run.scenario.name, run.scenario.title, run.scenario.about, run.stage, run.seed, repeat),
        took_s=round(run.took_s, 3),
        verdicts=tuple(verdicts),
        chapters={name: tuple(blocks) for name, blocks in chapters.items() if blocks},
        facts=facts_of(run),
    )


def blank(name: str, title: str, about: str, stage: str, seed: int, repeat: str = "") -> Entry:
    """Return an entry that says nothing yet of what came of it."""
    return Entry(
        name=name,
        title=title,
        about=about,
        stage=stage,
        seed=seed,
        repeat=repeat,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}",
    )


def facts_of(run: Run) -> dict[str, int]:
    """Return the sizes of a run.

    ``parties``, ``computing`` and ``silos``; ``questions`` asked and ``released``; ``values`` of all
    releases, how many of them are ``shown``, and those of the ``largest`` release; ``faults`` that came about
    and those ``noticed`` by another party. ``refused`` are questions without a release of which that was
    expected, ``awaited`` the faults of which it was expected that others notice them, and ``detected`` those
    that they did.
    """
    expected = run.scenario.expect
    awaited = [
        run.faults[number]
        for number in sorted(
            {x.fault for x in expected if isinstance(x, Detected) and x.fault < len(run.faults)}
        )
    ]
    values = shown = largest = 0
    for asked in run.asked:
        before = values
        for group in (asked.release or {}).get("groups", ()):
            for tally in group["tallies"]:
                values += len(tally["values"])
                shown += sum(value is not None for value in tally["values"])
        largest = max(largest, values - before)
    return {
        "parties": len(run.members),
        "computing": sum(member.computing for member in run.members),
        "silos": sum(member.silo for member in run.members),
        "questions": len(run.asked),
        "released": sum(asked.release is not None for asked in run.asked),
        "values": values,
        "shown": shown,
        "largest": largest,
        "faults": sum(happened.began_s is not None for happened in run.faults),
        "noticed": sum(happened.noticed_s is not None for happened in run.faults),
        "refused": sum(asked.release is None and _refused_rightly(run, asked) for asked in run.asked),
        "awaited": len(awaited),
        "detected": sum(happened.noticed_s is not None for happened in awaited),
    }


def _refused_rightly(run: Run, asked: Asked) -> bool:
    """Return whether a question was expected to end as it did."""
    first = run.scenario.asks[0].name
    return any(
        isinstance(expect, Outcome)
        and (expect.ask or first) == asked.ask.name
        and (expect.state, expect.reason or asked.reason) == (asked.state, asked.reason)
        for expect in run.scenario.expect
    )


# --- files ------------------------------------------------------------------------------------------


def write_entry(folder: Path, entry: Entry) -> Path:
    """Write an entry below a report's folder, replacing an earlier one; return the folder of its own."""
    home = folder / entry.key
    try:
        home.mkdir(parents=True, exist_ok=True)
        _write(home / "entry.json", as_fields(entry))
    except OSError as error:
        raise DocumentError(f"{home}: cannot be written ({error.strerror})") from None
    return home


def read_entries(folder: Path) -> list[Entry]:
    """Return the entries below a report's folder in order of their names.

    Raises DocumentError if there is none or one is not an entry of this format.
    """
    paths = sorted(folder.glob("*/entry.json"))
    if not paths:
        raise DocumentError(f"{folder}: holds no scenario that was played; see `mpc-engine scenario run`")
    return [_read(path) for path in paths]


def write_report(folder: Path, entries: Sequence[Entry], page: str) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html``; return where they are. Raises DocumentError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fields = {
            "format": FORMAT,
            "notice": NOTICE,
            "engine": __version__,
            "entries": [as_fields(each) for each in entries],
        }
        _write(folder / "report.json", fields)
        _put(folder / "report.html", page)
    except OSError as error:
        raise DocumentError(f"{folder}: cannot be written ({error.strerror})") from None
    return folder / "report.json", folder / "report.html"


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    _put(path, json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False))


def _put(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    new = path.with_suffix(path.suffix + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _read(path: Path) -> Entry:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return from_fields(fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DocumentError(f"{path}: is not an entry of a report of this version; play it again") from None


# --- as JSON ----------------------------------------------------------------------------------------


def as_fields(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain tables, lists, text and numbers."""
    return {
        "format": FORMAT,
        **{name: getattr(entry, name) for name in _PLAIN},
        "holds": entry.holds,
        "verdicts": [vars(verdict) for verdict in entry.verdicts],
        "facts": dict(entry.facts),
        "chapters": {name: [_block(each) for each in blocks] for name, blocks in entry.chapters.items()},
    }


def from_fields(fields: Mapping[str, Any]) -> Entry:
    """Return an entry from `as_fields`. Raises ValueError, KeyError or TypeError if it is none."""
    if fields["format"] != FORMAT:
        raise ValueError("another format")
    chapters = {
        cast(Chapter, name): tuple(_from_block(each) for each in blocks)
        for name, blocks in fields["chapters"].items()
        if name in CHAPTERS
    }
    return Entry(
        **{name: fields[name] for name in _PLAIN},
        verdicts=tuple(Verdict(**each) for each in fields["verdicts"]),
        facts=fields["facts"],
        chapters=chapters,
    )


_PLAIN: Final = (
    *("name", "title", "about", "stage", "seed", "repeat", "took_s", "engine", "made", "machine"),
    *("skipped", "failed"),
)


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"block": "text", "text": block.text, "kind": block.kind}
        case Table():
            rows = [[plain(cell) for cell in row] for row in block.rows]
            return {
                "block": "table",
                "caption": block.caption,
                "columns": list(block.columns),
                "rows": rows,
                "digits": dict(block.digits),
            }
        case Figure():
            return {"block": "figure", "caption": block.caption, "svg": block.svg, "alt": block.alt}


def _from_block(fields: Mapping[str, Any]) -> Block:
    rest = {name: value for name, value in fields.items() if name != "block"}
    return cast(Block, {"text": Text, "table": Table, "figure": Figure}[fields["block"]](**rest))
