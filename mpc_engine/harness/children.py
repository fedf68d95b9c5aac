"""The processes that a stage starts: the nursery with the parties that it forks, and the analysts'."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mpc_engine
from mpc_engine.errors import EngineError
from mpc_engine.harness.layout import Home
from mpc_engine.harness.nursery import poll_order, start_order
from mpc_engine.harness.stage import Ended
from mpc_engine.party.control import known_failures

_START_S: Final = 120.0
"""Far more than importing all libraries takes on a busy machine."""
_ANSWER_S: Final = 30.0
_END_S: Final = 20.0
_BEYOND_S: Final = 60.0
"""What an analyst's process may take beyond the time that a call is given."""
_RESULT_S: Final = 600.0
_LONGEST_LINE: Final = 1 << 22
_PARTY: Final = "mpc_engine.harness.actor:serve"
_LOADED: Final = (
    "mpc_engine.harness.actor",
    "mpc_engine.party.serve",
    "mpc_engine.silo.register",
    "mpc_engine.silo.tabulate",
)
"""What every party's process finds imported."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class LostError(EngineError):
    """A process that a scenario needs has ended by itself."""

    reason = "PROCESS_LOST"
    next_step = "Look for what ended it, such as a lack of memory, and play the scenario again."


class _Child:
    """A program of the harness that is spoken with in lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def _begin(self) -> asyncio.subprocess.Process:
        root = str(Path(mpc_engine.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": path, "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE")}
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            env=env,
            start_new_session=True,  # Ctrl-C is for the harness, which then ends all others itself
        )
        await self._line(_START_S)
        return process

    async def _line(self, wait_s: float | None = None) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            raise LostError(f"{self._command[2]} does not run")
        try:
            async with asyncio.timeout(wait_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise LostError(f"{self._command[2]} gives no answer") from None
        if not line:
            raise LostError(f"{self._command[2]} has ended by itself")
        return dict(json.loads(line))

    async def _say(self, order: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise LostError(f"{self._command[2]} does not run")
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError:
            raise LostError(f"{self._command[2]} has ended by itself") from None

    async def close(self) -> None:
        """End the process, and what it has forked."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@dataclass
class Ends:
    """How a party's process has ended: its exit status, negative for a signal, and what it used."""

    status: int
    cpu_s: float
    peak_mib: float


class Nursery(_Child):
    """The process that forks parties. Its methods wait for one another."""

    def __init__(self) -> None:
        super().__init__("mpc_engine.harness.nursery", *_LOADED)
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def begin(self) -> None:
        """Start it and wait until it can fork. Raises LostError."""
        await self._begin()

    async def fork(self, home: Home, namespace: str = "") -> int:
        """Start a party and return its process."""
        folder = str(home.folder)
        order = start_order(_PARTY, folder, folder=folder, errors=str(home.errors), namespace=namespace)
        return int((await self._ask(order))["pid"])

    async def poll(self, pid: int) -> Ends | None:
        """Return how a process has ended, once; None while it runs."""
        answer = await self._ask(poll_order(pid))
        if answer["status"] is None:
            return None
        return Ends(int(answer["status"]), float(answer["cpu_s"]), float(answer["peak_mib"]))

    async def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        # Not to be interrupted: what was forked, or has ended, is told once.
        return await asyncio.shield(asyncio.ensure_future(self._exchange(order)))

    async def _exchange(self, order: Mapping[str, Any]) -> dict[str, Any]:
        async with self._lock:
            number = next(self._numbers)
            await self._say({"number": number, **order})
            # Answers to orders that were given up before may still come.
            while (answer := await self._line(_ANSWER_S))["number"] != number:
                pass
            return answer


class Analysts(_Child):
    """The analysts' process; `namespace` is the file of its network namespace, "" for this one's."""

    def __init__(self, folder: Path, namespace: str = "") -> None:
        super().__init__("mpc_engine.harness.asker", namespace)
        self._folder = folder
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start it and wait until it takes orders. Raises LostError."""
        await self._begin()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def submit(self, profile: Path, query: Mapping[str, Any], key: str, wait_s: float) -> str:
        """Hand a question in and return the request. Raises EngineError as the party does."""
        order = {"do": "submit", "profile": str(profile), "query": query, "key": key, "wait_s": wait_s}
        return str((await self._ask(order, wait_s))["request"])

    async def wait(self, profile: Path, request: str, wait_s: float) -> Ended:
        """Return how a request stands when it has ended or time is up."""
        out = self._folder / request
        order: dict[str, Any] = {"do": "wait", "profile": str(profile), "request": request, "out": str(out)}
        found = await self._ask({**order, "wait_s": wait_s, "result_s": _RESULT_S}, wait_s + _RESULT_S)
        release = receipt = None
        if found["released"]:
            release = json.loads((out / "release.json").read_text(encoding="utf-8"))
            with suppress(FileNotFoundError):
                receipt = json.loads((out / "receipt.json").read_text(encoding="utf-8"))
        return Ended(found["state"], found["reason"], found["detail"], found["ticket"], release, receipt)

    async def close(self) -> None:
        """End it."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await super().close()

    async def _ask(self, order: Mapping[str, Any], wait_s: float) -> dict[str, Any]:
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            if self._reading is None or self._reading.done():
                raise LostError("the analysts' process has ended by itself")
            await self._say({"id": number, **order})
            async with asyncio.timeout(wait_s + _BEYOND_S):
                answer: dict[str, Any] = await future
        except TimeoutError:
            raise LostError("the analysts' process gives no answer") from None
        finally:
            self._answers.pop(number, None)
        if "failed" in answer:
            reason, words = answer["failed"]
            raise known_failures().get(reason, EngineError)(words)
        return answer

    async def _read(self) -> None:
        try:
            while True:
                answer = await self._line()
                future = self._answers.get(answer["id"])
                if future is not None and not future.done():
                    future.set_result(answer)
        except LostError as error:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(error)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used so far, 0 if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_of(pid: int) -> float:
    """Return the most memory that a process has held, in MiB, 0 if there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    words = status.partition("VmHWM:")[2].split()
    return int(words[0]) / 1024 if words else 0.0


def forget_peak(pid: int) -> None:
    """Measure the most memory that a process has held from now on, where the kernel lets us."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
