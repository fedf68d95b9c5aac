"""Starting the relay and giving it orders."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from mpc_engine.errors import EngineError
from mpc_engine.harness.namespaces import path_of
from mpc_engine.scenario.document import Weather

PATIENCE_S = 30.0
"""So long an answer of the relay may take."""
Traffic = Mapping[tuple[str, str], Mapping[str, int]]
"""What each wire has carried and dropped, in packets and bytes, by sender and receiver."""
Happening = Callable[[Mapping[str, Any]], None]
"""Told what the relay did later than it was ordered; called in a thread of its own."""


class Wires:
    """A relay that joins namespaces, each with every other; `ends` maps names to (namespace, IPv4 address).

    A context manager: entering starts the process, leaving ends it, and packets go nowhere from then on. With
    `whole` segments of up to 64 KiB pass as one packet: cheaper, and right where nothing is lost or queued.
    Methods raise EngineError if the relay fails or does not answer.
    """

    def __init__(
        self,
        ends: Mapping[str, tuple[str, str]],
        *,
        seed: int,
        whole: bool = True,
        happening: Happening = lambda event: None,
    ) -> None:
        self._names = tuple(ends)
        self._setup = {
            "ends": [[name, str(path_of(network)), address] for name, (network, address) in ends.items()],
            "seed": seed,
            "whole": whole,
        }
        self._happening = happening
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mpc_engine.harness.relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the harness, which ends the relay when nothing needs it
        )
        self._reader = threading.Thread(target=self._read, name="relay", daemon=True)
        self._reader.start()
        try:
            self._ask(self._setup)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the relay."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(5)

    # --- orders -------------------------------------------------------------------------------------

    def weather(self, one: str, two: str, weather: Weather) -> None:
        """Set the weather between two ends, both ways."""
        fields = weather.model_dump(include={"delay_ms", "jitter_ms", "loss", "rate_mbit"})
        self._ask({"order": "weather", "between": [one, two], "weather": fields})

    def cut(self, party: str, against: Sequence[str], for_s: float) -> None:
        """Let an end and others hear nothing of each other for a while."""
        self._ask({"order": "cut", "party": party, "against": list(against), "for_s": for_s})

    def heal(self) -> None:
        """Undo cuts, and let no reset come that has not come yet."""
        self._ask({"order": "heal"})

    def reset(self, party: str, against: Sequence[str], count: int) -> int:
        """Reset the connection of each other end with `party`, once `count` more bytes have come from it.

        `happening` is told of each, with this order's number, which is returned, as `order`.
        """
        answer = self._ask({"order": "reset", "party": party, "against": list(against), "bytes": count})
        return int(answer["number"])

    def traffic(self) -> Traffic:
        """Return what each wire has carried and dropped, in packets and bytes, by sender and receiver."""
        wires = self._ask({"order": "traffic"})["wires"]
        return {(wire.pop("from"), wire.pop("to")): wire for wire in wires}

    # --- within -------------------------------------------------------------------------------------

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None:
            raise EngineError("the relay has not been started")
        with self._turn:
            number = next(self._numbers)
            try:
                process.stdin.write(json.dumps({"number": number, **order}) + "\n")
                process.stdin.flush()
                answer = self._answer(number)
            except (OSError, ValueError):
                raise EngineError("the relay has ended") from None
            except queue.Empty:
                raise EngineError(f"the relay did not answer within {PATIENCE_S:g} s") from None
        if "error" in answer:
            raise EngineError(f"the relay failed: {answer['error']}")
        return answer

    def _answer(self, number: int) -> dict[str, Any]:
        """Return the answer to an order; those to orders that were given up before may still come."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            answer = self._answers.get(timeout=max(0.0, ends - time.monotonic()))
            if answer.get("number", number) == number:
                return answer

    def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            said = json.loads(line)
            if "event" in said:
                self._happening(said)
            else:
                self._answers.put(said)
        self._answers.put({"error": "it has ended"})
