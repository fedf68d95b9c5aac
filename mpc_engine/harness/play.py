"""Playing a scenario on a stage: its questions in order, its faults at their time, and what came of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mpc_engine.errors import (
    BudgetError,
    DocumentError,
    IdempotencyError,
    MismatchError,
    PeerError,
    PolicyError,
    RateLimitError,
    RequestStateError,
    StoppedError,
    TooLargeError,
    UnknownCertificateError,
)
from mpc_engine.harness.notice import first_notice
from mpc_engine.harness.record import Asked, Happened, Run
from mpc_engine.harness.stage import Ended, Show, Stage
from mpc_engine.release.blocks import first_error
from mpc_engine.scenario import document
from mpc_engine.scenario.document import Ask, Scenario
from mpc_engine.scenario.faults import Fault
from mpc_engine.scenario.questions import check_mappings, read_query
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

_BEFORE: Final = ("partition", "reset", "slow", "tamper")
"""Faults after which a party still takes questions: at no seconds they come before the question, so that no
session can outrun them."""
_REFUSALS: Final = (
    BudgetError,
    DocumentError,
    IdempotencyError,
    MismatchError,
    PolicyError,
    RequestStateError,
    TooLargeError,
    UnknownCertificateError,
)
"""What a party answers to a question that it does not take."""
_UNREACHED: Final = (PeerError, RateLimitError, StoppedError)
"""What an analyst's program meets when a party does not answer, or has no time. All else is a failure of
the harness, of which no party may be said to have refused anything."""


def silent(line: str) -> None:
    """Show nothing."""


def play(
    scenario: Scenario, stage: document.Stage | None = None, *, seed: int | None = None, show: Show = silent
) -> Run:
    """Play a scenario and return what came of it; close the run when it has been judged.

    Args:
        scenario: what to play.
        stage: where, by default the first in which it runs.
        seed: of its schedule and of attackers' coins, by default the scenario's.
        show: told in a line what is going on.

    Raises DocumentError for a document that no party could use, and EngineError if the parties cannot be made
    ready. Whatever happens, KeyboardInterrupt included, no process is left, and no file unless it returns.
    """
    began = time.monotonic()
    queries = {ask.name: read_query(scenario, ask) for ask in scenario.asks}
    check_mappings(scenario)
    where = stage or scenario.runs_in[0]
    kept = TemporaryDirectory(prefix="mpc-scenario-", ignore_cleanup_errors=True)
    try:
        made = _stage(where, scenario, scenario.seed if seed is None else seed, Path(kept.name), show)
        with asyncio.Runner(loop_factory=made.new_loop) as runner:
            run = runner.run(play_on(made, scenario, queries, seed=seed, show=show))
    except BaseException:
        kept.cleanup()
        raise
    run.kept = kept
    run.took_s = time.monotonic() - began
    return run


def _stage(name: document.Stage, scenario: Scenario, seed: int, folder: Path, show: Show) -> Stage:
    # Imported here, for each needs libraries that the others do not.
    if name == "memory":
        from mpc_engine.harness.memory import MemoryStage

        return MemoryStage(scenario, seed, folder, show)
    if name == "network":
        from mpc_engine.harness.network import NetworkStage

        return NetworkStage(scenario, seed, folder, show)
    from mpc_engine.harness.processes import ProcessStage

    return ProcessStage(scenario, seed, folder, show)


def titled(query: Query, number: int) -> Query:
    """Return the question under a title of its own, which makes it another one."""
    title = f"{query.title[:190]} ({number + 1})".strip()
    return parse_query(query.digest_fields() | {"title": title}, query.origin)


async def play_on(
    stage: Stage,
    scenario: Scenario,
    queries: dict[str, Query],
    *,
    seed: int | None = None,
    show: Show = silent,
) -> Run:
    """Play a scenario on a stage that has not been entered yet; `queries` are by the asks' names."""
    show(f"starting {len(scenario.party)} parties")
    async with stage:
        run = Run(
            scenario,
            stage.name,
            scenario.seed if seed is None else seed,
            stage.codebook,
            stage.members,
            stage.registered,
            faults=[Happened(fault) for fault in scenario.fault],
        )
        playing = _Playing(stage, run, queries, show)
        await playing.all()
        show("waiting until all parties serve")
        await stage.mend()
        run.parties = await stage.records()
        run.further |= stage.further()
        run.measuring = frozenset(stage.measuring)
    for happened in run.faults:
        _complete(run, happened)
    return run


@dataclass
class _Playing:
    """A scenario while it is played."""

    stage: Stage
    run: Run
    queries: dict[str, Query]
    show: Show
    timers: list[asyncio.Task[None]] = field(default_factory=list)

    async def all(self) -> None:
        """Ask everything; faults whose time has not come by then never come."""
        try:
            for happened in self.run.faults:
                if happened.fault.kind == "expire":
                    self.stage.arm(happened.fault, happened)
            for ask in self.run.scenario.asks:
                await self.stage.sleep(ask.after_s)
                await self._ask(ask)
        finally:
            for timer in self.timers:
                timer.cancel()
            ends = await asyncio.gather(*self.timers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _ask(self, ask: Ask) -> None:
        now, later = self._faults(ask)
        for happened in now:
            if happened.fault.at is not None:
                self.stage.arm(happened.fault, happened)
            else:
                await self._strike(happened)
        self.show(f"asking {ask.name}")
        query = self.queries[ask.name]
        handed_in = partial(self._set_timers, later)
        if ask.together == 1:
            for number in range(ask.times):
                self.run.asked.append(await self._one(ask, number, query, handed_in if number == 0 else None))
            return
        asked = [
            self._one(ask, number, titled(query, number), handed_in if number == 0 else None)
            for number in range(ask.together)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in asked]
        except BaseExceptionGroup as failures:
            raise first_error(failures) from None
        self.run.asked.extend(task.result() for task in tasks)

    def _faults(self, ask: Ask) -> tuple[list[Happened], list[Happened]]:
        """Return the faults to prepare before a question is handed in, and those that come after it."""
        first = self.run.scenario.asks[0].name
        own = [
            happened
            for happened in self.run.faults
            if (happened.fault.ask or first) == ask.name and happened.fault.kind != "expire"
        ]
        now = [each for each in own if each.fault.at is not None or _comes_before(each.fault)]
        return now, [each for each in own if each not in now]

    def _set_timers(self, later: Sequence[Happened]) -> None:
        for happened in later:
            self.timers.append(asyncio.get_running_loop().create_task(self._after(happened)))

    async def _after(self, happened: Happened) -> None:
        await self.stage.sleep(happened.fault.after_s)
        await self._strike(happened)

    async def _strike(self, happened: Happened) -> None:
        fault = happened.fault
        self.show(f"{fault.kind} {fault.party}")
        await self.stage.strike(fault, happened)

    async def _one(self, ask: Ask, number: int, query: Query, handed_in: Callable[[], None] | None) -> Asked:
        stage, request, began = self.stage, "", self.stage.now()
        try:
            request = await stage.submit(ask, number, query)
        except _REFUSALS as error:
            ended = Ended("REJECTED", error.reason, str(error))
        except _UNREACHED as error:
            ended = Ended("UNKNOWN", error.reason, str(error))
        else:
            if handed_in is not None:
                handed_in()
            ended = await stage.wait(ask, request, max(0.0, began + ask.wait_s - stage.now()))
        asked = Asked(
            ask,
            number,
            query,
            request,
            ended.state,
            ended.reason,
            ended.detail,
            ended.ticket,
            began,
            stage.now(),
            ended.release,
            ended.receipt,
        )
        reason = f" {ended.reason}" * bool(ended.reason)
        self.show(f"{asked.name}: {ended.state}{reason} after {asked.ended_s - began:.1f} s")
        return asked


def _comes_before(fault: Fault) -> bool:
    return fault.kind in _BEFORE and fault.after_s == 0


def _complete(run: Run, happened: Happened) -> None:
    """Fill in who noticed a fault first, and what all parties have spent in the end."""
    if happened.began_s is None:
        return
    happened.spent_after = {name: run.spent(name) for name in run.parties}
    notice = first_notice(run, happened)
    if notice is not None:
        happened.noticed_s, happened.by, happened.reason = notice.at_s, notice.by, notice.reason
