"""Running a scenario: one process per party on loopback, with throw-away identities.

Parties talk exactly as they would across organisations: gRPC with mutual TLS and pinned certificates.
The process that starts them sees no records, counts or shares, only their events and their releases.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from mpc_engine.documents import read
from mpc_engine.errors import DocumentError, EngineError, IntegrityError, catalogue
from mpc_engine.identity import TrustStore, create_identity
from mpc_engine.scenario.document import Scenario, changed
from mpc_engine.scenario.questions import check_mappings, read_query

Event = dict[str, Any]
OnEvent = Callable[[str, Event], None]
"""Called with a party's name and each of its events."""

_CONSEQUENCES = (
    ("ROUND_TIMEOUT", "PEER_UNAVAILABLE", "PUBLICATION_ABORT"),
    ("PEER_ABORTED", "SHUTTING_DOWN"),
)
"""Reasons that follow from another party's failure: likely ones, and certain ones."""
_LAST_WORDS_S = 3.0
"""How long the other parties may go on after one has failed, to say what they saw."""
_GRACE_S = 10.0
"""How long a party may take to end when it is told to."""
_LONGEST_LINE = 1 << 24
_FIRST_PORT, _PORTS = 12_000, 20_000
_TRIES: Final = 100
"""So many ports are tried for each one that is needed."""


class PartyDiedError(EngineError):
    """The process of a scenario's party ended without a word."""

    reason = "PARTY_DIED"
    next_step = "Look for what ended it, such as a lack of memory, and run the scenario again."


@dataclass
class Simulated:
    """The outcome of a scenario: release and receipt, the files' contents by name, usage per party."""

    release: dict[str, Any]
    receipt: dict[str, Any]
    files: dict[str, str]
    usage: dict[str, Event] = field(default_factory=dict)


async def simulate(scenario: Scenario, on_event: OnEvent = lambda party, event: None) -> Simulated:
    """Run a scenario's first question once; return what its parties published, the same at all of them.

    Faults and expectations are for the harness. Raises DocumentError, or the error that a party failed with,
    named after the party; of several the one that the others follow from. Whatever happens, no process and
    no file is left behind.
    """
    with TemporaryDirectory(prefix="mpc-engine-") as folder:
        work = Path(folder)
        query = _question(scenario, work)
        names = lay_out(scenario, work)
        runs = {name: asyncio.create_task(_run_party(name, query, work, on_event)) for name in names}
        try:
            outcomes = await _outcomes(runs)
        finally:
            for run in runs.values():
                run.cancel()
            await asyncio.gather(*runs.values(), return_exceptions=True)
        _raise_failure(outcomes)
        return _collect(names, work, outcomes)


def _question(scenario: Scenario, work: Path) -> Path:
    """Return the document of the first question; one that is changed is written into a folder.

    Raises DocumentError for a document that no party could use, and for what takes the harness.
    """
    for index, party in enumerate(scenario.party):
        for key in ("records", "codebook"):
            if getattr(party, key) is not None:
                raise DocumentError(
                    f"{scenario.origin}: party[{index}].{key}: records or a codebook of a party's own "
                    "are for `mpc-engine scenario run`, which plays this scenario"
                )
    ask = scenario.asks[0]
    read_query(scenario, ask)
    check_mappings(scenario)
    path = scenario.path(ask.query)
    if not ask.change:
        return path
    _write(work / "query.json", changed(read(path), ask.change))
    return work / "query.json"


async def _outcomes(runs: dict[str, asyncio.Task[Event]]) -> dict[str, Event]:
    """Wait for the parties and return their last events, in the order in which they ended.

    Once a party has failed, those that do not end soon by themselves are left out.
    """
    names = {run: name for name, run in runs.items()}
    waiting = set(names)
    outcomes: dict[str, Event] = {}
    patience: float | None = None
    while waiting:
        ended, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            break
        outcomes |= {names[run]: run.result() for run in ended}
        if any(event["event"] == "error" for event in outcomes.values()):
            patience = _LAST_WORDS_S
    return outcomes


def lay_out(scenario: Scenario, work: Path) -> list[str]:
    """Write roster, configurations and identities of a scenario into a folder; return the parties' names."""
    parties = scenario.ordered
    addresses = free_addresses(len(parties))
    trust = TrustStore(work / "trust", dev=True)
    roster = []
    for party, address in zip(parties, addresses, strict=True):
        card = create_identity(party.name, work / party.name / "identity", address=address, dev=True).card
        trust.add(card, typed=card.fingerprint)
        roster.append({"name": party.name, "computing": party.computing, "silo": party.mapping is not None})
    _write(work / "roster.json", {"party": roster})
    for party in parties:
        config: dict[str, Any] = {
            "name": party.name,
            "roster": "../roster.json",
            "codebook": str(scenario.path(scenario.codebook)),
            "identity": "identity",
            "trust": "../trust",
            "dev": True,
            "policy": (party.policy or scenario.policy).model_dump(),
            "deadlines": scenario.deadlines.model_dump(),
        }
        if party.mapping is not None:
            config |= {"mapping": str(scenario.path(party.mapping)), "data": "data"}
        _write(work / party.name / "party.json", config)
    return [party.name for party in parties]


def free_addresses(count: int) -> list[str]:
    """Return loopback addresses with ports that are free now.

    They lie below those that the system gives to outgoing connections, so that a party which is down for a
    while finds its port free when it comes back. Raises EngineError if there are not enough.
    """
    held: list[socket.socket] = []
    for _ in range(_TRIES * count):
        if len(held) == count:
            break
        with suppress(OSError):
            held.append(socket.create_server(("127.0.0.1", _FIRST_PORT + secrets.randbelow(_PORTS))))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()
    if len(addresses) < count:
        raise EngineError(
            f"{count} free ports of 127.0.0.1 are needed and {len(addresses)} were found, from {_FIRST_PORT} "
            f"to {_FIRST_PORT + _PORTS - 1}: end what listens there, or allow this process more open files"
        )
    return addresses


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


async def _run_party(name: str, query: Path, work: Path, on_event: OnEvent) -> Event:
    """Run one party's process and return its last event."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mpc_engine.scenario.child",
        str(work / name / "party.json"),
        str(query),
        str(work / name / "out"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        env={**os.environ, "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE")},
    )
    last: Event = {}
    try:
        if process.stdout is None or process.stderr is None:
            raise EngineError("a party's process has no output")
        noise = asyncio.create_task(process.stderr.read())
        async for line in process.stdout:
            last = json.loads(line)
            on_event(name, last)
        errors = await noise
        status = await process.wait()
        if last.get("event") not in ("done", "error"):
            detail = errors.decode(errors="replace").strip().splitlines()
            how = (
                f"was ended by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
            last = {
                "event": "error",
                "reason": PartyDiedError.reason,
                "message": f"its process {how}" + (f": {detail[-1]}" if detail else ""),
            }
            on_event(name, last)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _GRACE_S)
            except TimeoutError:
                process.kill()
                await process.wait()
    return last


def _raise_failure(outcomes: dict[str, Event]) -> None:
    """Raise the failure that the others follow from, if any party failed."""
    failed = {name: event for name, event in outcomes.items() if event["event"] == "error"}
    if not failed:
        return
    name = min(failed, key=lambda each: _distance(failed[each]["reason"]))
    event = failed[name]
    classes = {cls.reason: cls for cls in catalogue()}
    raise classes.get(event["reason"], EngineError)(f"party {name}: {event['message']}")


def _distance(reason: str) -> int:
    """Return how far a failure is from the root of the trouble: 0 for what follows from nothing else."""
    return next((far for far, reasons in enumerate(_CONSEQUENCES, start=1) if reason in reasons), 0)


def _collect(names: list[str], work: Path, outcomes: dict[str, Event]) -> Simulated:
    folders = [work / name / "out" for name in names]
    releases = [json.loads((folder / "release.json").read_text()) for folder in folders]
    receipts = [json.loads((folder / "receipt.json").read_text()) for folder in folders]
    for name, release, receipt in zip(names, releases, receipts, strict=True):
        if release != releases[0] or receipt != receipts[0]:
            raise IntegrityError(f"{name} published another release than {names[0]}")
    files = {path.name: path.read_text() for path in sorted(folders[0].iterdir())}
    return Simulated(releases[0], receipts[0], files, {name: outcomes[name]["usage"] for name in names})
