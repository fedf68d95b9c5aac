"""Three parties as processes that faults befall, and the universal outcome looked for in them."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mpc_engine.client import Client, connect
from mpc_engine.client.request import Request
from mpc_engine.errors import RateLimitError
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from mpc_engine.party.messages import Status
from mpc_engine.scenario.trial import NAMES, SILOS, make_trial
from tests.faults.universal import CANARIES, check_universal
from tests.party.nursery import nursery
from tests.party.services import PATIENCE_S, Services, until

R = TypeVar("R")
EPSILON, LEAST = "0.1", 60
CHARGE = 100_000
"""Micro-ε of a question asked here."""
_ENOUGH = {
    "connect_s = 30": "connect_s = 2",
    "round_s = 30": "round_s = 6",
    'epsilon = "20"': 'epsilon = "100"',
    'other_projects = "20"': 'other_projects = "100"',
}
"""What a trial's parties have otherwise: they wait less, and answer any number of tests."""


def patiently(call: Callable[[], R]) -> R:
    """Return what an analyst's call returns, made again whenever the party asks for a pause."""
    for _ in range(20):
        try:
            return call()
        except RateLimitError:
            time.sleep(0.5)
    return call()


@cache
def untraceable() -> str:
    """Return why no process can be traced here, "" if one can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-q", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "no right to trace a process" if probe.returncode else ""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _tracer(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return int(status.partition("TracerPid:")[2].split()[0])


class Parties(Services):
    """The three parties of a trial: `north` sequences, `south` is another silo, `helper` only computes."""

    def __init__(self, folder: Path, **changes: str) -> None:
        super().__init__(make_trial(folder / CANARIES[0], rows=150))
        self._usual: dict[str, tuple[int, Counter[str], dict[str, int]]] = {}
        self._asked = 0
        for name in NAMES:
            path = self.trial.config(name)
            text = path.read_text()
            for old, new in _ENOUGH.items():
                text = text.replace(old, new)
            for old, new in changes.items():
                text = text.replace(f"\n{old} = ", f"\n{old} = {new} # ")
            path.write_text(text)
            if name in SILOS:
                enrolled = path.parent / "trust" / "analysts" / "alice.json"
                enrolled.write_text(enrolled.read_text().replace('"20"', '"100"'))

    def start(self, *names: str, program: str | None = None, **env: str) -> None:
        """Fork parties; `program` is Python to run in each before it serves."""
        for name in names or NAMES:
            self.processes[name] = nursery().fork(
                "tests.faults.traps:serve",
                str(self.home(name)),
                str(self.trial.config(name)),
                program or "",
                folder=self.trial.folder,
                errors=self.errors(name),
                env=env,
            )

    def home(self, name: str) -> Path:
        """Return a party's folder."""
        return self.trial.config(name).parent

    def pid(self, name: str) -> int:
        """Return a party's process."""
        return self.processes[name].pid

    # --- faults -------------------------------------------------------------------------------------

    def trap(self, name: str, place: str, how: str = "kill", nth: int = 1) -> None:
        """Set a party's trap."""
        (self.home(name) / "sprung.json").unlink(missing_ok=True)
        (self.home(name) / "trap.new").write_text(json.dumps({"place": place, "how": how, "nth": nth}))
        (self.home(name) / "trap.new").rename(self.home(name) / "trap.json")

    def disarm(self, name: str) -> bool:
        """Take a trap away; return whether it had not caught."""
        try:
            (self.home(name) / "trap.json").unlink()
        except FileNotFoundError:
            return False
        return True

    def caught(self, name: str) -> bool:
        """Return whether a party's trap has caught."""
        return (self.home(name) / "sprung.json").exists()

    def stopped(self, name: str) -> None:
        """Wait until a party's trap has caught and its process stands still."""
        until(lambda: self.caught(name) and _state(self.pid(name)) in "Tt", f"{name} to stand still")

    def go_on(self, name: str) -> None:
        """Let a process that stands still go on."""
        os.kill(self.pid(name), signal.SIGCONT)

    @contextmanager
    def traced(self, name: str, calls: str, inject: str) -> Iterator[Callable[[], bool]]:
        """Have system calls of a party go wrong, and give what tells whether one has.

        Skips the test where processes may not be traced.
        """
        if why := untraceable():
            pytest.skip(why)
        pid = self.pid(name)
        seen = self.trial.folder / "strace.out"
        command = ["strace", "-q", "-o", str(seen), "-e", f"trace={calls}", "-e", f"inject={calls}:{inject}"]
        with subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.DEVNULL) as tracer:
            until(lambda: _tracer(pid) == tracer.pid or tracer.poll() is not None, "strace to attach")
            assert tracer.poll() is None, "strace could not attach"
            try:
                yield lambda: "INJECTED" in seen.read_text()
            finally:
                tracer.terminate()
                tracer.wait(PATIENCE_S)

    def ended(self, name: str) -> int:
        """Wait until a party's process has ended by itself, and return its exit status."""
        return self.processes.pop(name).wait(PATIENCE_S)

    def mend(self) -> None:
        """Take all traps away, start what does not run, and wait until all are ready."""
        for name in NAMES:
            self.disarm(name)
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                self.start(name)
        self.wait_ready()

    # --- questions ----------------------------------------------------------------------------------

    @contextmanager
    def client(self, name: str = "north") -> Iterator[Client]:
        """Connect the analyst with a party."""
        profile = self.trial.profile
        if name != "north":
            text = profile.read_text().replace("north/identity", f"{name}/identity")
            address = self.config("north").service.analysts or ""
            text = text.replace(address, self.config(name).service.analysts or "")
            profile = profile.with_name(f"{name}.toml")
            profile.write_text(text)
        with connect(profile) as client:
            yield client

    def ask_new(self, client: Client, **more: Any) -> Request:
        """Hand in a question that nobody has asked."""
        self._asked += 1
        title = f"{CANARIES[1]} {self._asked}"
        asked = {
            "by": ["sex"],
            "epsilon": EPSILON,
            "threshold": LEAST,
            "rule": "noisy",
            "title": title,
        } | more
        question, key = client.crosstab(**asked), f"{CANARIES[1]}-{self._asked}"
        return patiently(lambda: question.submit(key))

    def finished(self, request: Request) -> Status:
        """Wait until a request has ended, in whatever way."""
        return patiently(lambda: request.wait(PATIENCE_S))

    def end_of(self, request: Request, state: str = "RELEASED", reason: str = "") -> Status:
        """Wait until a request has ended, in this state and for this reason."""
        status = self.finished(request)
        assert (status.state, status.reason) == (state, reason), (
            f"{status.state} {status.reason}: {status.detail}"
        )
        return status

    def states(self, request: str) -> dict[str, list[str]]:
        """Return the states of a request's sessions at each party, in the order of their beginning."""
        found = {}
        for name in NAMES:
            ledger = self.ledger(name)
            found[name] = [str(row.state) for row in ledger.sessions_of(request)]
            ledger.close()
        return found

    def sessions(self, request: str) -> list[SessionRow]:
        """Return a request's sessions at all parties."""
        found: list[SessionRow] = []
        for name in NAMES:
            ledger = self.ledger(name)
            found += ledger.sessions_of(request)
            ledger.close()
        return found

    def spent(self, request: str) -> dict[str, int]:
        """Return what a request has cost each party in micro-ε."""
        found = {}
        for name in NAMES:
            ledger = self.ledger(name)
            states = ("ABORTED", *HOLDING)
            rows = [row for row in ledger.sessions_of(request) if row.state not in states]
            found[name] = sum(row.charge.micro_epsilon for row in rows)
            ledger.close()
        return found

    # --- the universal outcome ----------------------------------------------------------------------

    def quiet(self) -> None:
        """Wait until all parties are ready and nothing runs at any of them."""
        self.wait_ready()

        def nothing() -> bool:
            for name in NAMES:
                ledger = self.ledger(name)
                busy = ledger.sessions(*HOLDING, *PUBLISHING)
                ledger.close()
                if busy or self.status(name).get("sessions") != 0:
                    return False
            return True

        until(nothing, "all sessions to end")

    def holds(self) -> None:
        """Check the universal outcome; the parties must all run."""
        for name in NAMES:
            self.disarm(name)
        self.wait_ready()
        with self.client() as client:
            fresh = self.ask_new(client)
            self.end_of(fresh)
        self.quiet()
        for name in NAMES:
            assert self.serves(name, "mpc.Peer")
        ledgers = {name: self.ledger(name) for name in NAMES}
        texts = [self.trial.log(name).read_text() + self.errors(name).read_text() for name in NAMES]
        try:
            check_universal(ledgers, texts, len(NAMES))
        finally:
            for ledger in ledgers.values():
                ledger.close()
        for name in NAMES:
            self._nothing_left(name)

    def _nothing_left(self, name: str) -> None:
        """Check that a process holds no more than after its first query."""
        keys = self.home(name) / "state" / "keys"
        assert not list(keys.iterdir())
        pid, fresh = self.pid(name), self._usual.get(name, (0,))[0] != self.pid(name)
        if fresh and name in SILOS:
            # The first call to a port leaves something behind once.
            with self.client(name) as client:
                patiently(client.requests)
        inside = self.inside(name)
        assert not inside["alive"], (name, inside)
        if fresh:
            self._usual[name] = (pid, self.descriptors(name), inside["tasks"])
            return
        _, usual, tasks = self._usual[name]
        gc.collect()  # a call of ours that failed may still be held by its traceback, and hold its connection
        end = time.monotonic() + PATIENCE_S
        while (
            more := (self.descriptors(name) - usual) | (Counter(self.inside(name)["tasks"]) - Counter(tasks))
        ) and time.monotonic() < end:
            time.sleep(0.1)
        assert not more, f"{name} holds more than before: {dict(more)}"

    def descriptors(self, name: str) -> Counter[str]:
        """Return what a party's process has open: files by name, connections by port, the rest by kind."""
        folder = Path(f"/proc/{self.pid(name)}/fd")
        ports, found = self._connections(name), Counter[str]()
        for each in folder.iterdir():
            with suppress(FileNotFoundError):
                kind, _, inode = os.readlink(each).partition(":[")
                found[ports.get(inode.rstrip("]"), kind)] += 1
        return found

    def _connections(self, name: str) -> dict[str, str]:
        """Return what each TCP socket on this machine is to a party, by inode."""
        service = self.config(name).service
        own = {"analysts": service.analysts, "health": service.health, "metrics": service.metrics}
        named = {int(address.rpartition(":")[2]): port for port, address in own.items() if address}
        found = {}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.pid(name)}/net/{table}").read_text().splitlines()[1:]:
                _, here, _, state, *_, inode = line.split()[:10]
                port = named.get(int(here.rpartition(":")[2], 16), "peers")
                found[inode] = f"{port}, {'listening' if state == '0A' else 'connected'}"
        return found

    def inside(self, name: str) -> dict[str, Any]:
        """Return what a party's process tells of what it holds."""
        path = self.home(name) / "inside.json"
        path.unlink(missing_ok=True)
        os.kill(self.pid(name), signal.SIGUSR2)
        until(path.exists, f"{name} to tell what it holds")
        return dict(json.loads(path.read_text()))
