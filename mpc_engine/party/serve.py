"""The composition root of a party as a service: its files, ports, signals and clocks around the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from mpc_engine import __version__
from mpc_engine.errors import EngineError, LedgerBrokenError, LedgerWriteError, StoppedError
from mpc_engine.identity import Clock, utc_now
from mpc_engine.ledger.rows import OPEN_REQUEST
from mpc_engine.ledger.sealing import SealedKeys
from mpc_engine.party.control import SOCKET_NAME, ControlServer
from mpc_engine.party.counting import RegisteredCounter
from mpc_engine.party.daemon import Party
from mpc_engine.party.dossier import read_dossier
from mpc_engine.party.logs import DEBUG_EVENTS, STDERR, Logs
from mpc_engine.party.metrics import Metrics, MetricsServer, ObservedLedger, Reading
from mpc_engine.party.process import harden, keep_memory, place_of
from mpc_engine.party.readiness import ALONE, Condition, ExpiryWatch, Missing, free_bytes
from mpc_engine.party.situated import Ports, status_fields
from mpc_engine.party.source import source_digest
from mpc_engine.party.supervisor import tell_supervisor
from mpc_engine.transport.analyst_port import AnalystServer
from mpc_engine.transport.grpc_switchboard import GrpcSwitchboard
from mpc_engine.transport.health import ANALYST, PEER, HealthServer

GRACE_S: Final = 30.0
"""How long committed sessions are given when the party is stopped."""
ANALYST_GRACE_S: Final = 1.0
"""How long analysts' calls are given then; they are repeated elsewhere or later."""
LOOK_S: Final = 5.0
"""How often a party looks whether it is ready."""
KEYS = "keys"
"""The folder of the keys to stored shares, in the state folder; it belongs into no backup."""


class Service:
    """One party's process. `run` it once."""

    def __init__(self, config_path: str | Path, *, clock: Clock = utc_now) -> None:
        self._path, self._clock = Path(config_path), clock
        self._stack = AsyncExitStack()
        self._logs: Logs | None = None
        self._metrics = Metrics()
        self._watch = ExpiryWatch(self._journal)
        self._look_now = asyncio.Event()
        self._stopping = asyncio.Event()
        self._signal = ""
        self._missing: tuple[Missing, ...] | None = None
        self._newer: set[str] = set()
        self._at = ""
        self._ended = False
        self.ports = Ports()

    async def run(self) -> int:
        """Serve until a signal, and return the exit status: 0.

        A ledger that fails ends the process at once, with the failure's exit status. Raises EngineError for
        what keeps the party from starting; `document` names the document at fault, if it is one.
        """
        self._listen_to_signals()
        async with self._stack:
            await self._start()
            failing = asyncio.ensure_future(self._party.failed())
            looking = asyncio.create_task(self._look_on())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({failing, looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                self._die(failing.exception())
            self._stopping.set()
            looking.cancel()
            stopping.cancel()
            self._journal("party.stopping", signal=self._signal or "SIGTERM")
            tell_supervisor("STOPPING=1")
            self._tell_health()
            await self._stop(failing)
            failures = await asyncio.gather(looking, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, Exception):
                raise failure
        if self._counter.busy:
            os._exit(0)  # counts and looks that nobody waits for any more; everything is closed
        return 0

    @property
    def document(self) -> str:
        """The document that was being read when starting ended, "" if it was none."""
        return self._at

    # --- starting -----------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._dossier = dossier = read_dossier(
            self._path, clock=self._clock, reached=self._reached, timely=False
        )
        self._at = ""
        here, service = dossier.situation, dossier.config.service
        self._state = dossier.state
        target = STDERR if service.log == STDERR else dossier.config.path(service.log)
        self._logs = Logs(target, clock=self._clock)
        self._stack.callback(self._logs.close)
        self._logs.take_over()
        self._journal(
            "party.starting", party=here.name, version=__version__, source=source_digest().hex(), dev=here.dev
        )
        self._ledger = ObservedLedger.open(dossier.state, party=here.name, clock=self._clock)
        self._ledger.observe = self._metrics.committed
        self._stack.callback(self._close_ledger)
        keys = SealedKeys(dossier.state / KEYS)
        self._counter = RegisteredCounter(dossier.data, dossier.count_bound)
        await self._counter.look(here.codebook)
        endpoints = here.directory.endpoints
        self._switchboard = GrpcSwitchboard(
            here.number,
            here.identity,
            endpoints,
            computing=here.computing,
            listen=dossier.config.listen or endpoints[here.number - 1].address or None,
            clock=self._clock,
        )
        self._party = Party(
            here,
            self._ledger,
            keys,
            self._switchboard,
            self._counter,
            journal=self._journal,
            clock=self._clock,
        )
        self._metrics.watch(self._reading)
        await self._open_ports()
        self._journal(
            "party.serving",
            party=here.name,
            peers_port=self.ports.peers,
            analysts_port=self.ports.analysts,
            health_port=self.ports.health,
            metrics_port=self.ports.metrics,
        )
        tell_supervisor("READY=1")

    async def _open_ports(self) -> None:
        dossier, service = self._dossier, self._dossier.config.service
        self._health = HealthServer(service.health) if service.health else None
        if self._health is not None:
            await self._health.start()
            self._stack.push_async_callback(self._health.stop)
        metrics = MetricsServer(service.metrics, self._metrics) if service.metrics else None
        if metrics is not None:
            await metrics.start()
            self._stack.push_async_callback(metrics.stop)
        self._stack.push_async_callback(self._end_party)
        await self._party.start()
        self._analysts: AnalystServer | None = None
        analysts_port = 0
        if service.analysts is not None:
            self._analysts = AnalystServer(
                service.analysts,
                dossier.situation.identity,
                trusted=self._trusted,
                handle=self._party.answers.answer,
            )
            analysts_port = await self._analysts.start()
            self._stack.push_async_callback(self._analysts.stop, ANALYST_GRACE_S)
        await self._stack.enter_async_context(ControlServer(dossier.state / SOCKET_NAME, self._command))
        self.ports = Ports(
            self._switchboard.port or 0,
            analysts_port,
            (self._health.port or 0) if self._health is not None else 0,
            (metrics.port or 0) if metrics is not None else 0,
        )

    def _reached(self, document: str) -> None:
        self._at = document

    def _trusted(self) -> Mapping[str, bytes]:
        analysts = self._party.situation().analysts.values()
        return {
            card.certificate_fingerprint: card.pinned.pem for analyst in analysts for card in analyst.cards
        }

    # --- stopping -----------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop_by, signal.SIGTERM)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGINT, self._stop_by, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _stop_by(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            # All that must last is in the ledger: what was cut off goes on at the next start.
            os._exit(StoppedError.exit_status)
        self._signal = number.name
        self._stopping.set()

    async def _stop(self, failing: asyncio.Future[None]) -> None:
        """Take nothing more, give what has committed its time; a ledger that fails meanwhile is fatal."""
        ends = [asyncio.create_task(self._end_party())]
        if self._analysts is not None:
            ends.append(asyncio.create_task(self._analysts.stop(ANALYST_GRACE_S)))
        await asyncio.wait(ends)
        if failing.done() and not failing.cancelled():
            self._die(failing.exception())
        failing.cancel()

    async def _end_party(self) -> None:
        if not self._ended:
            self._ended = True
            await self._party.stop(GRACE_S)

    def _close_ledger(self) -> None:
        try:
            self._ledger.close()
        except LedgerWriteError as error:
            self._die(error)

    def _die(self, error: BaseException | None) -> NoReturn:
        """End the process without closing anything: after a failed disk that could lose what is durable."""
        failure = error if isinstance(error, EngineError) else LedgerBrokenError("the ledger failed")
        self._journal("party.ended", reason=failure.reason, kind=type(failure).__name__, **place_of(failure))
        os._exit(failure.exit_status)

    # --- reloading ----------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Take on changed documents; one that cannot be read leaves everything as it was."""
        if self._logs is None or self._stopping.is_set():
            return
        old = self._dossier
        try:
            self._reached("log")
            self._logs.reopen()
            new = read_dossier(
                self._path,
                clock=self._clock,
                reached=self._reached,
                identity=old.situation.identity,
                timely=False,
            )
            self._reached("roster")
            self._switchboard.replace(new.situation.directory.endpoints)
            restart = new.needs_restart_after(old)
            if new.situation.directory.members != old.situation.directory.members:
                # Who takes part is settled until the next start; keys and addresses are not.
                members = old.situation.directory.members
                directory = replace(new.situation.directory, members=members)
                new = replace(new, situation=replace(new.situation, directory=directory))
            self._dossier = new
            self._counter.count_bound = new.count_bound
            self._party.reload(new.situation)
            if self._analysts is not None:
                self._analysts.reload()
        except Exception as error:
            reason = error.reason if isinstance(error, EngineError) else EngineError.reason
            kind = type(error).__name__
            self._journal(
                "party.not_reloaded", document=self._at, reason=reason, kind=kind, **place_of(error)
            )
            return
        finally:
            self._at = ""
        self._journal("party.reloaded", restart_needed=restart)
        self._look_now.set()

    # --- how it stands ------------------------------------------------------------------------------

    def _journal(self, event: str, /, **fields: str | int) -> None:
        if event not in DEBUG_EVENTS and self._logs is not None:
            self._logs.note(event, **fields)
        self._metrics.note(event, **fields)
        if event.startswith(("line.", "ledger.")):
            self._look_now.set()

    async def _look_on(self) -> None:
        while True:
            await self._counter.look(self._party.situation().codebook)
            self._look()
            self._look_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look_now.wait()

    def _look(self) -> None:
        """See whether the party is ready; tell probes, and the journal when that changes."""
        now, here = self._clock(), self._party.situation()
        self._watch.look(tuple(cards[0] for cards in here.directory.cards), now)
        for document in sorted({each.document for each in self._counter.standing.newer} - self._newer):
            self._journal("records.older", document=document)
        self._newer = {each.document for each in self._counter.standing.newer}
        missing = self._condition().missing(now)
        if missing != self._missing:
            self._missing = missing
            if missing:
                self._journal("party.not_ready", missing=", ".join(missing))
            else:
                self._journal("party.ready")
        self._tell_health()

    def _condition(self) -> Condition:
        here = self._party.situation()
        return Condition(
            stopping=self._stopping.is_set(),
            ledger_broken=self._ledger.broken,
            behind=self._party.recovery.behind,
            free_bytes=free_bytes(self._state),
            not_after=here.identity.certificate.not_after,
            silo=here.silo,
            snapshot=self._counter.usable,
            peers_up=all(self._switchboard.connected(peer) for peer in here.peers),
        )

    def _tell_health(self) -> None:
        if self._health is not None:
            missing = self._condition().missing(self._clock())
            self._health.set(PEER, not missing)
            self._health.set(ANALYST, self._analysts is not None and not set(missing) - ALONE)

    def _reading(self) -> Reading:
        here = self._party.situation()
        refused = {"peer": dict(self._switchboard.refusals)}
        if self._analysts is not None:
            refused["analyst"] = dict(self._analysts.refused)
        return Reading(
            ready=not self._condition().missing(self._clock()),
            peers={here.names[peer]: stats for peer, stats in self._switchboard.stats().items()},
            refused=refused,
            not_after={cards[0].name: cards[0].pinned.not_after for cards in here.directory.cards},
            audit_entries=self._ledger.head().seq,
            requests_open=len(self._ledger.requests(states=OPEN_REQUEST)),
            log_left_out=0 if self._logs is None else self._logs.dropped,
        )

    async def _command(self, command: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the operator; what the process alone knows is added to the party's own status."""
        answer = await self._party.operator.handle(command, fields)
        if command != "status":
            return answer
        here = self._party.situation()
        await self._counter.look(here.codebook)
        answer["records"] = self._counter.standing.as_fields() if here.silo else None
        stats = {here.names[peer]: found for peer, found in self._switchboard.stats().items()}
        missing = self._condition().missing(self._clock())
        return answer | status_fields(answer["peers"], stats, missing, here.identity.certificate, self.ports)


def serve(config_path: str | Path, *, clock: Clock = utc_now) -> int:
    """Run a party's service in an event loop of its own until it is stopped; return the exit status.

    SIGTERM and SIGINT stop it in good order, a second one at once; SIGHUP reads its documents again. Raises
    EngineError for what keeps it from starting; the log names the reason only, and nothing at all if
    standard error is a terminal, where somebody reads the failure itself.
    """
    harden()
    keep_memory()

    async def within() -> int:
        service = Service(config_path, clock=clock)
        try:
            return await service.run()
        except Exception as error:
            if not sys.stderr.isatty():
                _note_not_started(service, error, clock)
            raise

    return asyncio.run(within())


def _note_not_started(service: Service, error: Exception, clock: Clock) -> None:
    logs = Logs(STDERR, clock=clock)
    reason = error.reason if isinstance(error, EngineError) else EngineError.reason
    place = {} if isinstance(error, EngineError) else place_of(error)
    document = {"document": service.document} if service.document else {}
    logs.note("party.not_started", reason=reason, kind=type(error).__name__, **document, **place)
