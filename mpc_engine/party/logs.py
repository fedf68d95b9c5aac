"""The service's log: lines of JSON that hold nothing but what a list allows; structlog's only door.

What is not on the list, or not of the form that its key has there, is left out and counted. The texts of
failures are never written, for they may quote records, files or labels: only their kinds and places in the
engine, and what the transport says of a connection. The operator reads the rest with
`mpc-engine party doctor`, on a terminal.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from mpc_engine.errors import DocumentError
from mpc_engine.identity import utc_now
from mpc_engine.party.process import place_of

Level = Literal["debug", "info", "warning", "error"]

STDERR: Final = "stderr"
"""The name of the log that goes to standard error."""
_SESSION: Final = ("ticket",)
_FAILURE: Final = ("reason", "kind", "where")
EVENTS: Final[Mapping[str, tuple[Level, tuple[str, ...]]]] = {
    "party.starting": ("info", ("party", "version", "source", "dev")),
    "party.started": ("info", ("party",)),
    "party.serving": ("info", ("party", "peers_port", "analysts_port", "health_port", "metrics_port")),
    "party.ready": ("info", ()),
    "party.not_ready": ("warning", ("missing",)),
    "party.not_started": ("error", ("document", *_FAILURE)),
    "party.reloaded": ("info", ("restart_needed",)),
    "party.not_reloaded": ("error", ("document", *_FAILURE)),
    "party.stopping": ("info", ("signal",)),
    "party.stopped": ("info", ("party",)),
    "party.ended": ("error", _FAILURE),
    "party.refused": ("warning", _FAILURE),
    "party.failed": ("error", _FAILURE),
    "records.older": ("warning", ("document",)),
    "certificate.expires": ("warning", ("party", "within", "days")),
    "line.up": ("info", ("peer",)),
    "line.down": ("info", ("peer",)),
    "line.refused": ("warning", ("peer", *_FAILURE)),
    "ledger.write_failed": ("error", ("peer", *_FAILURE)),
    "ledger.behind": ("error", ()),
    "ledger.recovered": ("warning", ("count",)),
    "ledger.debit_not_proved": ("warning", _SESSION),
    "peer.recovered": ("warning", ("peer",)),
    "request.stuck": ("error", ("request", "reason")),
    "session.taken_over": ("info", (*_SESSION, "peer")),
    "session.not_fetched": ("warning", (*_SESSION, "peer")),
    "session.begun": ("info", (*_SESSION, "request")),
    "session.reserved": ("info", (*_SESSION, "request")),
    "session.retried": ("info", (*_SESSION, "request", "reason")),
    "session.declined": ("warning", (*_SESSION, "reason")),
    "session.phase": ("debug", (*_SESSION, "phase")),
    "session.section": ("debug", (*_SESSION, "section")),
    "session.count_failed": ("error", (*_SESSION, *_FAILURE)),
    "session.committed": ("info", _SESSION),
    "session.publish_failed": ("warning", (*_SESSION, *_FAILURE)),
    "session.not_published": ("warning", (*_SESSION, "reason")),
    "session.released": ("info", _SESSION),
    "session.aborted": ("warning", (*_SESSION, "reason")),
    "session.lost": ("error", (*_SESSION, "reason")),
    "session.failed": ("error", (*_SESSION, *_FAILURE)),
    "log.reopened": ("info", ()),
    "library": ("info", ("logger", "message", "kind", "where")),
}
"""Every event that may be written, its level and its keys."""
DEBUG_EVENTS: Final = frozenset(event for event, (level, _) in EVENTS.items() if level == "debug")
"""Those that the service leaves out of its log, for there are many: they are for metrics and measurements."""

_HEX32: Final = r"[0-9a-f]{32}"
_NAME: Final = r"[a-z0-9][a-z0-9.-]{0,62}"
_WORDS: Final = r"[A-Z][A-Z_]{0,40}"
_FORMS: Final[Mapping[str, str]] = {
    "ticket": _HEX32,
    "request": _HEX32,
    "party": _NAME,
    "peer": _NAME,
    "reason": _WORDS,
    "missing": rf"{_WORDS}(, {_WORDS})*",
    "signal": _WORDS,
    "kind": r"[A-Za-z_][A-Za-z0-9_]{0,63}",
    "where": r"[A-Za-z0-9_/.-]{1,120}, line [0-9]{1,6}",
    "phase": r"[a-z]{1,16}",
    "section": r"[a-z]{1,16}",
    "document": r"[a-z]{1,16}",
    "version": r"[0-9A-Za-z.+!-]{1,40}",
    "source": r"[0-9a-f]{64}",
    "logger": r"[A-Za-z0-9_.]{1,80}",
    "message": r"[^\x00-\x1f\x7f]{1,500}",
}
_NUMBERS: Final = frozenset(
    ("count", "within", "days", "dev", "restart_needed", "peers_port", "analysts_port", "health_port")
) | {"metrics_port"}
_ALLOWED: Final = {key: re.compile(form) for key, form in _FORMS.items()}
_PUBLIC: Final = ("mpc_engine.transport.", "mpc_engine.party.")
"""Loggers whose texts are written: they name parties, fingerprints and what gRPC said of a connection."""


class Logs:
    """Where a party's log goes: standard error or a file (mode 0600), which `reopen` opens anew.

    Raises DocumentError if the file cannot be written. Nothing else here raises: a log that fails must not
    stop a session.
    """

    def __init__(self, target: str | Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._path = None if target == STDERR else Path(target)
        self._clock = clock
        self._lock = threading.Lock()
        self._handle = self._open()
        self.dropped = 0
        """How many events and values were left out, or could not be written."""
        self._log: Any = structlog.wrap_logger(
            _Sink(self._write),
            processors=[self._allowed, structlog.processors.JSONRenderer(ensure_ascii=False)],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def note(self, event: str, /, **fields: str | int) -> None:
        """Write one event of `EVENTS`; see `mpc_engine.party.journal.Journal`."""
        self.write(EVENTS[event][0] if event in EVENTS else "warning", event, fields)

    def write(self, level: Level, event: str, fields: Mapping[str, object]) -> None:
        """Write one event of `EVENTS` with a level of its own."""
        with suppress(structlog.DropEvent):
            getattr(self._log, level)(event, **fields)

    def reopen(self) -> None:
        """Open the file anew, after somebody moved it away. Raises DocumentError, keeping the old one."""
        fresh = self._open()
        with self._lock:
            old, self._handle = self._handle, fresh
        if self._path is not None:
            os.close(old)
        self.note("log.reopened")

    def close(self) -> None:
        """Close the file; what comes later goes nowhere."""
        with self._lock:
            if self._path is not None and self._handle >= 0:
                os.close(self._handle)
            self._handle = -1

    def take_over(self) -> None:
        """Send the standard library's log, and failures that nobody caught, this way from now on."""
        root = logging.getLogger()
        for handler in (*root.handlers, *logging.getLogger("mpc_engine").handlers):
            root.removeHandler(handler)
            logging.getLogger("mpc_engine").removeHandler(handler)
        root.addHandler(_Routed(self))
        root.setLevel(logging.WARNING)
        logging.getLogger("mpc_engine").setLevel(logging.INFO)
        logging.captureWarnings(True)
        logging.raiseExceptions = False
        sys.excepthook = lambda kind, error, trace: self._uncaught(error)
        sys.unraisablehook = lambda found: self._uncaught(found.exc_value)
        threading.excepthook = lambda found: self._uncaught(found.exc_value)

    # --- within -------------------------------------------------------------------------------------

    def _uncaught(self, error: BaseException | None) -> None:
        if error is not None:
            self.note("party.failed", kind=type(error).__name__, **place_of(error))

    def _allowed(self, _: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep what the lists allow, count the rest."""
        name = event.pop("event")
        if name not in EVENTS:
            self.dropped += 1
            raise structlog.DropEvent
        kept: dict[str, Any] = {"time": _stamp(self._clock()), "level": level, "event": name}
        left_out = 0
        for key, value in event.items():
            if key in EVENTS[name][1] and is_allowed(key, value):
                kept[key] = value
            else:
                left_out += 1
        if left_out:
            self.dropped += left_out
            kept["left_out"] = left_out
        return kept

    def _open(self) -> int:
        if self._path is None:
            return sys.stderr.fileno() if sys.stderr is not None else 2
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(handle, 0o600)
        except OSError as error:
            raise DocumentError(f"{self._path}: the log cannot be written ({error.strerror})") from None
        return handle

    def _write(self, line: str) -> None:
        content = line.encode("utf-8", "replace") + b"\n"
        with self._lock:
            try:
                if self._handle >= 0:
                    os.write(self._handle, content)
            except OSError:
                self.dropped += 1


def is_allowed(key: str, value: object) -> bool:
    """Return whether a value may be written under a key."""
    if key in _NUMBERS:
        return isinstance(value, int) and abs(value) < 1 << 53
    form = _ALLOWED.get(key)
    return form is not None and isinstance(value, str) and form.fullmatch(value) is not None


class _Sink:
    """What structlog writes to: every level does the same."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = write


class _Routed(logging.Handler):
    """Takes what the standard library's loggers are told; the text only of those in `_PUBLIC`."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as the event ``library``."""
        fields: dict[str, str] = {"logger": record.name}
        if record.name.startswith(_PUBLIC):
            try:
                fields["message"] = _one_line(record.getMessage())
            except (TypeError, ValueError):  # the call does not fit its own words
                self._logs.dropped += 1
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= {"kind": type(error).__name__, **place_of(error)}
        self._logs.write(_level(record.levelno), "library", fields)


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    return "warning" if number >= logging.WARNING else "info"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
