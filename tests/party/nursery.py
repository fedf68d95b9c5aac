"""Processes forked from one that has the engine loaded, as `mpc_engine.harness.nursery` does.

Loading takes over a second of each command, and the tests run hundreds of them. The network's tests, and some
of each area, start theirs from nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mpc_engine.harness.nursery import poll_order, start_order

ROOT = Path(__file__).parent.parent.parent
_PATIENCE_S = 60.0
_LOADED = (
    "mpc_engine.cli.main",
    "mpc_engine.cli.query",
    "mpc_engine.party.serve",
    "mpc_engine.result",
    "mpc_engine.scenario.child",
    "mpc_engine.silo.register",
    "mpc_engine.silo.tabulate",
    "tests.faults.traps",
)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command whose output is piped: no colours, 80 columns."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    return kept | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | more


class Child:
    """A forked process; it can what is needed of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self.returncode is None:
            status = self._nursery.ask(poll_order(self.pid))["status"]
            self.returncode = None if status is None else int(status)
        return self.returncode

    def wait(self, timeout: float = _PATIENCE_S) -> int:
        """Wait for the end and return the exit status."""
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            assert time.monotonic() < end, "the process does not end"
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks. It ends with this one, and all that it forked with it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mpc_engine.harness.nursery", *_LOADED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
            start_new_session=True,
        )
        assert self._answer() == {"ready": True}

    def fork(self, call: str, *arguments: str, folder: Path, errors: Path, **more: Any) -> Child:
        """Start a process; see `start_order`."""
        order = start_order(call, *arguments, folder=str(folder), errors=str(errors), **more)
        return Child(self, self.ask(order)["pid"])

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Give an order and return the answer."""
        with self._turn:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery has ended"
        return dict(json.loads(line))


@cache
def nursery() -> Nursery:
    """Return the nursery of this process, made when it is first needed."""
    return Nursery()


def command(*arguments: str) -> None:
    """Be `mpc-engine` with these arguments."""
    from mpc_engine.cli.main import app

    sys.argv = ["mpc-engine", *arguments]
    app()


def program(text: str, *arguments: str) -> None:
    """Be a Python program."""
    sys.argv = ["mpc-engine", *arguments]
    exec(compile(text, "<program>", "exec"), {"__name__": "__main__"})
