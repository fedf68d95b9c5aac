"""What a party's process has written down: its log, and its last words."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime

from mpc_engine.harness.layout import Home
from mpc_engine.harness.record import Noted


def read_journal(home: Home, since: datetime) -> tuple[Noted, ...]:
    """Return a party's log from a moment on, by seconds after it; a line that was cut off is left out."""
    found = []
    lines = home.log.read_text(encoding="utf-8").splitlines() if home.log.exists() else ()
    for line in lines:
        with suppress(ValueError, KeyError):
            fields = json.loads(line)
            event, at = str(fields.pop("event")), datetime.fromisoformat(fields.pop("time"))
            at_s = (at - since).total_seconds()
            if at_s >= 0:
                found.append(Noted(at_s, event, fields))
    return tuple(found)


def last_words(home: Home) -> str:
    """Return what a party's process said last."""
    for path in (home.errors, home.log):
        lines = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
        if lines:
            return lines.splitlines()[-1][:500]
    return "it said nothing"
