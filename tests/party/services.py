"""The parties of a trial as real processes on loopback, and what a test asks of them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc_engine.errors import EngineError
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.control import SOCKET_NAME, ask
from mpc_engine.scenario.trial import NAMES, Trial
from tests.party.nursery import Child, nursery

PATIENCE_S = 75.0
"""So long anything may take here, on a busy machine too; more than twice the time after which a party tries
again what a full disk kept it from."""
ENGINE = [sys.executable, "-m", "mpc_engine"]


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what `condition` returns once that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)
    return found


@dataclass
class Services:
    """The parties' processes; `errors` holds what they wrote to standard error."""

    trial: Trial
    processes: dict[str, Child] = field(default_factory=dict)
    configs: dict[str, PartyConfig] = field(default_factory=dict)

    def start(self, *names: str, program: str | None = None, **env: str) -> None:
        """Start parties, by default all; `program` is Python to run before the engine."""
        for name in names or NAMES:
            arguments = ["party", "serve", "--config", str(self.trial.config(name))]
            call = ("tests.party.nursery:command",)
            if program is not None:
                call = ("tests.party.nursery:program", program)
            self.processes[name] = nursery().fork(
                *call, *arguments, folder=self.trial.folder, errors=self.errors(name), env=env
            )

    def stop(self, *names: str, how: signal.Signals = signal.SIGTERM) -> list[int]:
        """Signal parties, by default all, the last first, and return their exit statuses."""
        ending = [self.processes.pop(name) for name in (names or tuple(self.processes))[::-1]]
        for process in ending:
            process.send_signal(how)
        return [process.wait(PATIENCE_S) for process in ending]

    def kill(self) -> None:
        """End what still runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()

    def wait_ready(self, *names: str) -> None:
        """Wait until parties, by default all, say that they are ready."""
        for name in names or NAMES:
            until(lambda name=name: self.status(name).get("ready"), f"{name} to be ready")  # type: ignore[misc]

    def config(self, name: str) -> PartyConfig:
        """Return a party's configuration as it was at first."""
        if name not in self.configs:
            self.configs[name] = load_config(self.trial.config(name))[0]
        return self.configs[name]

    def ask(self, name: str, command: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to an operator's command."""
        config = self.config(name)
        return asyncio.run(ask(config.path(config.state) / SOCKET_NAME, command, fields))

    def status(self, name: str) -> dict[str, Any]:
        """Return how a party stands, {} if it does not run; one that ended on its own fails the test."""
        process = self.processes.get(name)
        assert process is None or process.poll() is None, self.errors(name).read_text()
        try:
            return self.ask(name, "status")
        except EngineError:
            return {}

    def serves(self, name: str, service: str) -> bool:
        """Ask a party's health port."""
        with grpc.insecure_channel(self.config(name).service.health or "") as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=10
            )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def metrics(self, name: str) -> str:
        """Return a party's metrics."""
        with urllib.request.urlopen(f"http://{self.config(name).service.metrics}/metrics", timeout=10) as got:
            assert got.headers["Content-Type"].startswith("text/plain")
            return str(got.read().decode())

    def errors(self, name: str) -> Path:
        """Return the file of what a party wrote to standard error."""
        return self.trial.folder / f"{name}.err"

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return a party's log."""
        return [json.loads(line) for line in self.trial.log(name).read_text().splitlines()]

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        """Return the lines of a party's log with an event."""
        return [line for line in self.log(name) if line["event"] == event]

    def ledger(self, name: str) -> Ledger:
        """Return a party's ledger, opened for reading."""
        config = self.config(name)
        return Ledger.open(config.path(config.state), party=name, read_only=True)
