"""The programme: which scenarios there are, where each can be played here, and playing one for the report."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.harness.blocks import Block, Chapter
from mpc_engine.harness.fitting import check_documents
from mpc_engine.harness.record import Run
from mpc_engine.harness.report.document import Blocks, Entry, blank, entry_of, write_entry
from mpc_engine.harness.report.minutes import write_minutes
from mpc_engine.harness.report.words import HEADLINES, INTRODUCTIONS
from mpc_engine.harness.stage import Show
from mpc_engine.party.process import unexpected
from mpc_engine.scenario.document import Scenario, Stage, load_scenario

FOLDER: Final = Path("scenarios")
"""Where scenarios are looked for if no other place is named."""


def find(paths: Iterable[Path], only: Sequence[str] = ()) -> list[Scenario]:
    """Return the scenarios in files and folders, in order of their names within each folder.

    A folder's scenarios are the documents right in it; those below belong to scenarios. `only` keeps those of
    these names. Raises DocumentError for a document that breaks a rule, or names one that does, a place
    without any, a name that none has, and two of one name.
    """
    found: dict[str, Scenario] = {}
    for path in paths:
        files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not files:
            raise DocumentError(f"{path}: holds no scenario, which is a document NAME.toml")
        for file in files:
            if only and file.stem not in only:
                continue
            scenario = load_scenario(file)
            check_documents(scenario)
            other = found.setdefault(scenario.name, scenario)
            if Path(other.origin).resolve() != file.resolve():
                raise DocumentError(f"{file}: {other.origin} has the same name")
    for name in only:
        if name not in found:
            raise DocumentError(f"there is no scenario {name!r}; see `mpc-engine scenario list`")
    return list(found.values())


def place(scenario: Scenario, wanted: Stage | None = None) -> tuple[Stage, str]:
    """Return the stage in which to play a scenario, and what keeps it from being played there, "" if nothing.

    Without a stage `wanted` that is the first of its own that can be had on this machine.
    """
    if wanted is not None:
        if wanted not in scenario.runs_in:
            return wanted, f"it is not made for {wanted}: its runs_in says {', '.join(scenario.runs_in)}"
        return wanted, obstacle(wanted)
    obstacles = [(stage, obstacle(stage)) for stage in scenario.runs_in]
    return next((each for each in obstacles if not each[1]), obstacles[0])


def obstacle(stage: Stage) -> str:
    """Return why nothing can be played in a stage on this machine, "" if something can."""
    if stage != "network":
        return ""
    # Imported here, for namespaces are asked about only where somebody wants them.
    from mpc_engine.harness.namespaces import relay_obstacle

    return relay_obstacle()


def command(scenario: Scenario, stage: Stage, seed: int) -> str:
    """Return the command that plays a scenario again as it was."""
    path = shlex.quote(scenario.origin)
    return f"mpc-engine scenario run {path} --in {stage} --seed {seed}"


def skipped(scenario: Scenario, stage: Stage, seed: int, why: str) -> Entry:
    """Return the entry of a scenario that is not played."""
    repeat = command(scenario, stage, seed)
    return replace(blank(scenario.name, scenario.title, scenario.about, stage, seed, repeat), skipped=why)


def perform(scenario: Scenario, stage: Stage, seed: int, folder: Path, show: Show) -> Entry:
    """Play a scenario, judge it, and write its entry and minutes below `folder`; return the entry.

    A failure, foreseen or not, is an entry that did not come to its end; only KeyboardInterrupt goes on.
    Raises DocumentError if `folder` cannot be written.
    """
    # Imported here, for listing scenarios and reading reports need no parties.
    from mpc_engine.harness.checks import judge
    from mpc_engine.harness.play import play

    repeat = command(scenario, stage, seed)
    entry = blank(scenario.name, scenario.title, scenario.about, stage, seed, repeat)
    home = write_entry(folder, replace(entry, failed="it was interrupted"))
    try:
        with play(scenario, stage, seed=seed, show=show) as run:
            write_minutes(home, run)
            show("judging")
            verdicts = judge(run)
            show("writing chapters")
            entry = entry_of(run, verdicts, chapters(run), repeat)
    except EngineError as error:
        entry = replace(entry, failed=f"{error} ({error.reason})")
    except Exception as error:
        (home / "traceback.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        entry = replace(entry, failed=f"{unexpected(error)}; see traceback.txt in its folder")
    write_entry(folder, entry)
    return entry


def chapters(run: Run) -> Blocks:
    """Return what each chapter says of a run: those that it expects something of, all if nothing at all."""
    from mpc_engine.harness.chapters.cost import cost
    from mpc_engine.harness.chapters.privacy import privacy
    from mpc_engine.harness.chapters.robustness import robustness
    from mpc_engine.harness.chapters.utility import utility

    # A study about one thing, such as a fault, would otherwise repeat what others say of the rest.
    kinds = {expect.kind for expect in run.scenario.expect}
    spoken_of = {name for name, words in INTRODUCTIONS.items() if kinds & (words.about & set(HEADLINES))}
    if kinds & (INTRODUCTIONS["utility"].about - {"noise"}):
        spoken_of.add("utility")
    if run.stage != "memory":
        spoken_of.add("cost")
    # What was never released has no utility, privacy or cost to speak of.
    released = any(asked.release is not None for asked in run.asked)
    found: dict[Chapter, Sequence[Block]] = {"robustness": robustness(run)}
    writers: dict[Chapter, Callable[[Run], Sequence[Block]]] = {
        "utility": utility,
        "privacy": privacy,
        "cost": cost,
    }
    for name, write in writers.items():
        if released and (name in spoken_of or not run.scenario.expect):
            found[name] = write(run)
    return found
