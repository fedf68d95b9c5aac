"""`mpc-engine scenario`: play studies with faults and networks, and report what was measured."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import err, out
from mpc_engine.errors import DocumentError, StoppedError
from mpc_engine.scenario.document import STAGES, Scenario, Stage

if TYPE_CHECKING:
    from mpc_engine.harness.report.document import Entry

commands = typer.Typer(
    help="Play studies with faults; measure and report.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Folder = Annotated[Path | None, typer.Argument(metavar="[FOLDER]", help="Where the scenarios are.")]
FAILED: Final = 1
"""Exit status if a scenario did not come out as expected."""
OUT: Final = Path("out/scenarios")


@commands.command("list", short_help="List scenarios.")
def list_scenarios(folder: Folder = None) -> None:
    """List the scenarios of a folder (default: scenarios) with what each is and where it can be played."""
    from mpc_engine.harness import programme

    found = programme.find([folder or programme.FOLDER])
    for each in found:
        facts = [
            _many(len(each.party), "party", "parties"),
            _many(sum(ask.times * ask.together for ask in each.asks), "question"),
            *([_many(len(each.fault), "fault")] if each.fault else []),
            _many(len(each.expect), "expectation"),
            " or ".join(each.runs_in),
            *(["ci"] if each.ci else []),
        ]
        out.print(Text(each.name, style="bold"))
        for told in (each.title, ", ".join(facts)):
            for line in Text(told).wrap(out, out.width - 4):
                line.rstrip()
                out.print(Text("    ") + line)
    out.print()
    say("`mpc-engine scenario run` plays them all; --ci plays those marked so, --only NAME one of them.")


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one}" if count == 1 else f"{count} {more or one + 's'}"


@commands.command("run", short_help="Play scenarios and write the report.")
def run_scenarios(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATHS]...", help="Scenarios, or folders.")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option("--in", metavar="|".join(STAGES), help="Where to play.  [default: each one's first]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of schedules and coins.  [default: each one's own]")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the report and all records.")] = OUT,
    ci: Annotated[bool, typer.Option("--ci", help="Only the quick ones.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
) -> None:
    """Play scenarios, by default all in the folder scenarios, judge them, and write report.html and .json.

    Exits with 1 if one does not come out as expected, after playing the others, or if none could be played.
    """
    from mpc_engine.harness import programme

    chosen = _stage(stage)
    found = programme.find(paths or [programme.FOLDER], only or ())
    playing = [each for each in found if each.ci or not ci]
    if not playing:
        raise DocumentError("none of these scenarios has `ci = true`")
    began = time.monotonic()
    entries: list[Entry] = []
    try:
        for number, scenario in enumerate(playing, start=1):
            entries.append(_play(scenario, chosen, seed, folder, f"{number}/{len(playing)}"))
    except StoppedError:
        err.print("stopped; what was played before is in the report")
        raise typer.Exit(StoppedError.exit_status) from None
    finally:
        if entries:
            _write_report(folder)
    _conclude(entries, time.monotonic() - began)
    played = [entry for entry in entries if entry.played]
    if not played or not all(entry.holds for entry in played):
        raise typer.Exit(FAILED)


@commands.command("report", short_help="Write the report of scenarios played before.")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of `scenario run`.")],
) -> None:
    """Write report.html and report.json anew from the records of a folder."""
    _write_report(folder)


def _stage(name: str | None) -> Stage | None:
    for stage in STAGES:
        if name == stage:
            return stage
    if name is not None:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(STAGES)}", param_hint="'--in'")
    return None


def _play(scenario: Scenario, wanted: Stage | None, seed: int | None, folder: Path, number: str) -> Entry:
    from mpc_engine.harness import programme
    from mpc_engine.harness.report.document import write_entry

    seed = scenario.seed if seed is None else seed
    stage, why = programme.place(scenario, wanted)
    if why:
        entry = programme.skipped(scenario, stage, seed, why)
        write_entry(folder, entry)
        _line(number, "–", scenario.name, f"not played: {why}", "yellow")
        return entry
    with _Progress(number, scenario.name, stage) as shown, interruptible():
        entry = programme.perform(scenario, stage, seed, folder, shown.line)
    held = sum(verdict.holds for verdict in entry.verdicts)
    told = f"{stage}, {entry.took_s:.1f} s, {held} of {len(entry.verdicts)} expectations"
    _line(
        number, *(("✓", scenario.name, told, "green") if entry.holds else ("✗", scenario.name, told, "red"))
    )
    if not entry.holds:
        _explain(entry, folder)
    return entry


def _explain(entry: Entry, folder: Path) -> None:
    """Print what failed, and how to see it again."""
    if entry.failed:
        err.print(Text(f"    it could not be played to the end: {entry.failed}"))
    for verdict in entry.verdicts:
        if not verdict.holds:
            err.print(Text(f"    expected: {verdict.claim}"))
            err.print(Text(f"    found:    {verdict.found}", style="bold"))
    err.print(Text(f"    records:  {folder / entry.key}"), soft_wrap=True)
    err.print(Text(f"    again:    {entry.repeat}"), soft_wrap=True)


def _write_report(folder: Path) -> None:
    from mpc_engine.harness.report.document import read_entries, write_report
    from mpc_engine.harness.report.html import render

    entries = read_entries(folder)
    for path in write_report(folder, entries, render(entries))[::-1]:
        out.print(Text(f"written: {path}"), soft_wrap=True)


def _conclude(entries: Sequence[Entry], took_s: float) -> None:
    rows = []
    for entry in entries:
        held = sum(verdict.holds for verdict in entry.verdicts)
        came = "not played" if entry.skipped else "holds" if entry.holds else "FAILS"
        counted = f"{held} of {len(entry.verdicts)}" if entry.played else ""
        rows.append((entry.name, entry.stage, counted, f"{entry.took_s:.1f} s", came))
    out.print()
    show(
        "Verdicts",
        ("scenario", "stage", "expectations", "playing took", ""),
        rows,
        left=("scenario", "stage", ""),
    )
    played = [entry for entry in entries if entry.played]
    failed = [entry.name for entry in played if not entry.holds]
    if not played:
        say("Nothing was played.", style="bold red")
    elif failed:
        say(f"{len(failed)} of {len(played)} failed: {', '.join(failed)}.", style="bold red")
    else:
        say(f"{len(played)} of {len(played)} hold: everything came that was expected.", style="bold green")
    if played:
        playing = sum(entry.took_s for entry in played)
        say(f"It took {took_s:.0f} s: {playing:.0f} s of playing, the rest judging and writing the report.")
    left = len(entries) - len(played)
    if left:
        say(f"{left} could not be played here; see above for why.")


def _line(number: str, mark: str, name: str, told: str, colour: str) -> None:
    err.print(
        Text(f"{number} ") + Text(mark, style=f"bold {colour}") + Text(f" {name}: {told}"), soft_wrap=True
    )


class _Progress:
    """Shows what a scenario is at: one line that changes on a terminal, a line for each step elsewhere."""

    def __init__(self, number: str, name: str, stage: Stage) -> None:
        self._head = f"{number} {name} ({stage})"
        self._began = time.monotonic()
        self._now = "starting"
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._shown, console=err, transient=True, refresh_per_second=4)

    def __enter__(self) -> _Progress:
        if err.is_terminal:
            self._live.start()
        else:
            err.print(Text(self._head), soft_wrap=True)
        return self

    def __exit__(self, *_: object) -> None:
        if err.is_terminal:
            self._live.stop()

    def line(self, text: str) -> None:
        """Show what is going on."""
        self._now = text
        if not err.is_terminal:
            err.print(Text(f"… {self._took():6.1f} s  {text}"), soft_wrap=True)

    def _took(self) -> float:
        return time.monotonic() - self._began

    def _shown(self) -> Table:
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_row(
            Spinner("dots"), Text(self._head, style="bold"), Text(f"{self._took():.0f} s"), Text(self._now)
        )
        return grid


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT and SIGTERM end what runs in an event loop in good order, and raise StoppedError."""

    def terminated(number: int, frame: FrameType | None) -> None:
        # An event loop that runs has its own way to take an interrupt: it cancels what it runs.
        handler: Any = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(number, frame)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("stopped by a signal") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
