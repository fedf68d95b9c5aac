"""The minutes of a run: everything that was asked, answered, noted and injected, as JSON, for whoever looks
into a scenario that did not come out as expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from mpc_engine.errors import DocumentError
from mpc_engine.harness.record import Asked, Happened, PartyRecord, Run


def minutes_of(run: Run) -> dict[str, Any]:
    """Return what came of a run as plain tables and lists; what parties saw on the wire is left out."""
    return {
        "scenario": run.scenario.name,
        "stage": run.stage,
        "seed": run.seed,
        "took_s": run.took_s,
        "asked": [_asked(asked) for asked in run.asked],
        "faults": [_happened(happened) for happened in run.faults],
        "parties": [_party(party) for party in run.parties.values()],
        "further": _plain(run.further),
    }


def write_minutes(folder: Path, run: Run) -> Path:
    """Write ``minutes.json`` into a scenario's folder and return where it is. Raises DocumentError."""
    path = folder / "minutes.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(minutes_of(run), indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def _asked(asked: Asked) -> dict[str, Any]:
    return {
        "name": asked.name,
        "analyst": asked.ask.analyst,
        "query": _plain(asked.query.digest_fields()),
        **{
            name: getattr(asked, name)
            for name in ("request", "state", "reason", "detail", "ticket", "began_s", "ended_s")
        },
        "release": _plain(asked.release),
        "receipt": _plain(asked.receipt),
    }


def _happened(happened: Happened) -> dict[str, Any]:
    return {"fault": happened.fault.model_dump(mode="json")} | {
        name: _plain(value) for name, value in vars(happened).items() if name != "fault"
    }


def _party(party: PartyRecord) -> dict[str, Any]:
    return {
        **{
            name: getattr(party, name)
            for name in ("name", "number", "computing", "silo", "spent", "verified", "serves")
        },
        "usage": vars(party.usage),
        "sessions": [_plain(vars(session)) for session in party.sessions],
        "journal": [
            {"at_s": noted.at_s, "event": noted.event, **_plain(noted.fields)} for noted in party.journal
        ],
    }


def _plain(value: object) -> Any:
    """Return something measured as JSON has it; what has no form there as text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    if isinstance(value, Set):
        return sorted(_plain(item) for item in value)
    return value.hex() if isinstance(value, bytes) else str(value)
