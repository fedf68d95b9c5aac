"""`mpc-engine dev up`: three throw-away parties on this machine, to try everything out."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mpc_engine.cli.tables import say
from mpc_engine.cli.terminal import err, out
from mpc_engine.errors import EngineError, PeerError, StoppedError
from mpc_engine.party.config import load_config
from mpc_engine.party.control import SOCKET_NAME, ask
from mpc_engine.party.process import run_until_stopped
from mpc_engine.scenario.trial import HELPER, NAMES, ROWS, SILOS, Trial, make_trial

commands = typer.Typer(
    help="Try the engine out on this machine.", no_args_is_help=True, rich_markup_mode=None
)

READY_S = 60.0
"""How long the parties may take to be ready."""
STOP_S = 40.0
"""How long a party may take to stop; committed sessions are given 30 seconds."""
_LOOK_S = 0.1


@commands.callback()
def _group() -> None:
    """Try the engine out on this machine."""


@commands.command("up", short_help="Run three throw-away parties with made-up records.")
def up(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="A new folder for their documents.  [default: a temporary one]"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder behind.")] = False,
) -> None:
    """Run two silos with made-up records and a helper until Ctrl-C; then remove all of it.

    Keys and cards are marked DEV: no real configuration accepts them.
    """
    folder = Path(tempfile.mkdtemp(prefix="mpc-engine-")) if folder is None else folder
    ours = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    made = False
    try:
        with err.status("making three parties and their records"):
            trial = make_trial(folder)
        made = True
        _run(trial)
    finally:
        if keep and made:
            say("All of it is kept. To start a party again:")
            _command(f"mpc-engine party serve --config {trial.config(SILOS[0])}")
        elif ours:
            shutil.rmtree(folder, ignore_errors=True)


def _run(trial: Trial) -> None:
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in NAMES:
            running[name] = _started(trial, name)
        run_until_stopped(_serve(trial, running))
    except StoppedError:
        err.print()
    finally:
        _stop(running)


def _started(trial: Trial, name: str) -> subprocess.Popen[bytes]:
    with trial.log(name).open("ab") as log:
        # A session of its own: Ctrl-C at this terminal is for this command, which stops them in order.
        return subprocess.Popen(
            [sys.executable, "-m", "mpc_engine", "party", "serve", "--config", str(trial.config(name))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


async def _serve(trial: Trial, running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    with err.status("waiting until they are connected"):
        await _ready(trial, running)
    _explain(trial)
    while True:
        _check(running)
        await asyncio.sleep(_LOOK_S)


async def _ready(trial: Trial, running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until every party is ready. Raises PeerError if one ends or it takes too long."""
    try:
        async with asyncio.timeout(READY_S):
            for name in running:
                config, _ = load_config(trial.config(name))
                while not await _is_ready(config.path(config.state) / SOCKET_NAME):
                    _check(running)
                    await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise PeerError(f"the parties are not ready after {READY_S:g} s; see {trial.log(SILOS[0])}") from None


async def _is_ready(path: Path) -> bool:
    try:
        return bool((await ask(path, "status")).get("ready"))
    except EngineError:
        return False


def _check(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in running.items():
        if process.poll() is not None:
            raise PeerError(f"the party {name} ended with exit status {process.returncode}")


def _stop(running: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Stop the parties, the last first, and wait for each."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave them behind
    last_first = list(running.items())[::-1]
    with err.status("stopping the parties"):
        for name, process in last_first:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                err.print(f"note: the party {name} did not stop in time and was killed", markup=False)


def _explain(trial: Trial) -> None:
    say(
        f"Three parties run on this machine: {SILOS[0]} and {SILOS[1]} with {ROWS} made-up records each, and "
        f"{HELPER}, which has none. All of it is marked DEV.",
        style="bold",
    )
    out.print()
    say("As the analyst Alice, see what a question costs, ask it, and ask another of your own:")
    asked = f"{trial.query} --profile {trial.profile}"
    _command(f"mpc-engine query cost {asked}")
    _command(f"mpc-engine query submit {asked} --wait")
    out.print()
    say("As a registry's operator, see how it stands, what it was asked, and what that spent:")
    for words in ("party status", "party list --all", "budget show"):
        _command(f"mpc-engine {words} --config {trial.config(SILOS[0])}")
    out.print()
    say("Ctrl-C stops the parties.", style="bold")


def _command(words: str) -> None:
    """Print a command on one line, however long, so that it can be copied."""
    out.print(Text("  " + words), soft_wrap=True)
