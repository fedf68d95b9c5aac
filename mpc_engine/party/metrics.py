"""A party's metrics, for Prometheus on this machine; prometheus-client's only door.

Labels are names of parties, reasons, phases and directions: nothing that an analyst wrote, and no budget,
which would tell what was asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from mpc_engine.errors import DocumentError, catalogue
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.messages import Phase
from mpc_engine.transport.standing import PeerStats

PREFIX: Final = "mpc_engine"
OUTCOMES: Final[Mapping[str, str]] = {
    "session.released": "released",
    "session.aborted": "aborted",
    "session.lost": "lost",
    "session.failed": "failed",
    "session.declined": "declined",
}
"""What becomes of sessions, by the event that says so."""
PHASES: Final[tuple[str, ...]] = get_args(Phase)
REASONS: Final = frozenset({"HANDSHAKE", *(cls.reason for cls in catalogue())})
_COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_PHASE_BUCKETS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 900.0)
_READ_S: Final = 5.0
_MOST_CALLERS: Final = 8
_LONGEST_HEAD: Final = 8192


@dataclass(frozen=True)
class Reading:
    """What is read when somebody asks; mappings are by a party's name or by reason."""

    ready: bool
    peers: Mapping[str, PeerStats]
    refused: Mapping[str, Mapping[str, int]]
    """By port, ``peer`` or ``analyst``, then by reason."""
    not_after: Mapping[str, datetime]
    audit_entries: int
    requests_open: int
    log_left_out: int


class Metrics:
    """Counts what the journal is told, and reads the rest when asked. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._clock = clock
        self._phases: dict[str, tuple[str, float]] = {}
        self._sessions = Counter(
            "sessions", "Sessions that ended.", ["outcome"], namespace=PREFIX, registry=self.registry
        )
        self._seconds = Histogram(
            "session_seconds",
            "Time that sessions spent in a phase.",
            ["phase"],
            namespace=PREFIX,
            registry=self.registry,
            buckets=_PHASE_BUCKETS,
        )
        self._commits = Histogram(
            "ledger_commit_seconds",
            "Time that a change of the ledger took until it was durable.",
            namespace=PREFIX,
            registry=self.registry,
            buckets=_COMMIT_BUCKETS,
        )
        for outcome in OUTCOMES.values():
            self._sessions.labels(outcome)

    def note(self, event: str, /, **fields: str | int) -> None:
        """Take note of an event; see `mpc_engine.party.journal.Journal`."""
        ticket = str(fields.get("ticket", ""))
        if event == "session.phase":
            self._leave(ticket)
            self._phases[ticket] = (str(fields.get("phase", "")), self._clock())
        elif event in OUTCOMES:
            self._leave(ticket)
            self._sessions.labels(OUTCOMES[event]).inc()

    def committed(self, seconds: float) -> None:
        """Take note of a change of the ledger."""
        self._commits.observe(seconds)

    def watch(self, read: Callable[[], Reading]) -> None:
        """Read the rest so whenever somebody asks."""
        self.registry.register(_Present(read))

    def _leave(self, ticket: str) -> None:
        phase, began = self._phases.pop(ticket, ("", 0.0))
        if phase in PHASES:
            self._seconds.labels(phase).observe(self._clock() - began)


class ObservedLedger(Ledger):
    """A ledger that tells how long each change took."""

    observe: Callable[[float], None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change the ledger; see `Ledger.transaction`."""
        began = time.perf_counter()
        with super().transaction() as tx:
            yield tx
        if self.observe is not None:
            self.observe(time.perf_counter() - began)


class _Present(Collector):
    """Gauges and running totals that are kept elsewhere."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Return nothing: what there is becomes known when it is read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield everything as it is now."""
        now = self._read()
        yield _gauge("ready", "Whether the party could make a release.", int(now.ready))
        yield _gauge("audit_entries", "Entries of the ledger's chain.", now.audit_entries)
        yield _gauge("requests_open", "Requests that have not ended.", now.requests_open)
        yield _total("log_left_out", "Events and values kept out of the log.", [], {(): now.log_left_out})
        up = _family("peer_up", "Whether the line with a peer stands.")
        rtt = _family("peer_rtt_seconds", "Round trip of the last heartbeat.")
        skew = _family("clock_skew_seconds", "The peer's clock less this party's.")
        sent: dict[tuple[str, ...], int] = {}
        for peer, stats in now.peers.items():
            up.add_metric([peer], int(stats.connected))
            if stats.rtt_s is not None:
                rtt.add_metric([peer], stats.rtt_s)
            if stats.clock_skew_s is not None:
                skew.add_metric([peer], stats.clock_skew_s)
            sent[(peer, "in")] = stats.line_bytes_in + stats.link_bytes_in
            sent[(peer, "out")] = stats.line_bytes_out + stats.link_bytes_out
        yield from (up, rtt, skew)
        yield _total("bytes", "Bytes exchanged with a peer.", ["peer", "direction"], sent)
        refused: dict[tuple[str, ...], int] = {
            (port, reason): count
            for port, counts in now.refused.items()
            for reason, count in _known(counts).items()
        }
        yield _total("rejected", "Connections and calls that were refused.", ["port", "reason"], refused)
        ends = _family("cert_not_after_seconds", "When a certificate ends, in seconds since 1970.", "party")
        for party, moment in now.not_after.items():
            ends.add_metric([party], moment.timestamp())
        yield ends


def _known(counts: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason, count in counts.items():
        label = reason if reason in REASONS else "OTHER"
        found[label] = found.get(label, 0) + count
    return found


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", words, value=value)


def _family(name: str, words: str, label: str = "peer") -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=[label])


def _total(
    name: str, words: str, labels: list[str], values: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{PREFIX}_{name}", words, labels=labels)
    for label, value in values.items():
        family.add_metric(list(label), value)
    return family


class MetricsServer:
    """Serves ``GET /metrics`` at a loopback ``host:port``, within the event loop: nothing need be locked."""

    def __init__(self, address: str, metrics: Metrics) -> None:
        self._address, self._metrics = address, metrics
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()
        self.port: int | None = None
        """The port it listens on, once started."""

    async def start(self) -> None:
        """Begin to serve. Raises DocumentError if the address is in use."""
        host, _, port = self._address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._called, host.strip("[]"), int(port), limit=_LONGEST_HEAD
            )
        except (OSError, OverflowError):
            raise DocumentError(
                f"cannot listen on {self._address}: it is in use, or no address of this machine"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop serving and free the address."""
        if self._server is not None:
            self._server.close()
            for task in self._callers:
                task.cancel()
            await asyncio.gather(*self._callers, return_exceptions=True)
            self._server = None

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._callers) >= _MOST_CALLERS:
            writer.close()
            return
        self._callers.add(task)
        try:
            async with asyncio.timeout(_READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, content = self._answer(head.partition(b"\r\n")[0])
                lines = (
                    f"HTTP/1.1 {status}",
                    f"Content-Type: {CONTENT_TYPE_LATEST}",
                    f"Content-Length: {len(content)}",
                    "Connection: close",
                )
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who asked is gone, or sent what is no request
        except asyncio.CancelledError:
            pass  # the party stops
        finally:
            self._callers.discard(task)
            writer.close()

    def _answer(self, line: bytes) -> tuple[str, bytes]:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return "405 Method Not Allowed", b"only GET\n"
        if path != b"/metrics":
            return "404 Not Found", b"the metrics are at /metrics\n"
        with suppress(Exception):
            return "200 OK", generate_latest(self._metrics.registry)
        return "500 Internal Server Error", b"the metrics cannot be read\n"
