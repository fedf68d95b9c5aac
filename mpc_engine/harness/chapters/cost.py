"""The chapter on cost: rounds, bytes, computing, memory and time, as declared and as measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mpc_engine.harness.audit import plan_of
from mpc_engine.harness.blocks import Block, Cell, Table, Text
from mpc_engine.harness.checks.timing import Measured, measured
from mpc_engine.harness.prediction import Compute, predict_cells, slowest
from mpc_engine.harness.record import Asked, Run
from mpc_engine.harness.report.charts import lines
from mpc_engine.harness.timeline import PHASES, Timeline, timelines_of, trips_of
from mpc_engine.release.plan import Plan
from mpc_engine.scenario.document import Weather
from mpc_engine.scenario.expectations import Trips

CELLS: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
"""Tables for which times are extrapolated."""
LEAST_CELLS: Final = 5_000
"""Of smaller tables the time is not the cells', so that nothing follows from it for others."""
LINKS: Final = {
    "one site, 0.2 ms, 1 Gbit/s": Weather(delay_ms=0.1, rate_mbit=1000),
    "one country, 10 ms, 1 Gbit/s": Weather(delay_ms=5, rate_mbit=1000),
    "UK–US, 80 ms, 100 Mbit/s": Weather(delay_ms=40, rate_mbit=100),
    "UK–Australia, 280 ms, 100 Mbit/s": Weather(delay_ms=140, rate_mbit=100),
    "UK–US, 80 ms, 10 Mbit/s": Weather(delay_ms=40, rate_mbit=10),
}
"""Links for which times are extrapolated, by name with the round trip."""


def cost(run: Run) -> list[Block]:
    """Return the chapter; nothing for a scenario in which nothing was released."""
    asked = _sessions(run)
    if not asked:
        return []
    plans = {each.ticket: plan_of(run, each) for each in asked}
    blocks: list[Block] = [_sizes(run, asked, plans), _parties(run)]
    sessions = {ticket: line for ticket, line in timelines_of(run).items() if line.complete}
    timed = [each for each in asked if each.ticket in sessions]
    if timed:
        blocks.append(_phases(run, timed[0], plans[timed[0].ticket], sessions[timed[0].ticket]))
    found = _measured(run)
    for name, each in found.items():
        blocks += [_trips(name, each), _over_network(name, each)]
    compute = _compute(run, timed, plans, sessions, found)
    if compute is not None and timed and plans[timed[0].ticket].cells >= LEAST_CELLS:
        blocks += _extrapolation(plans[timed[0].ticket], compute)
    return blocks


def _sessions(run: Run) -> list[Asked]:
    """Return the first answered request of each session, for one may answer several."""
    first: dict[str, Asked] = {}
    for asked in run.asked:
        if asked.release is not None and asked.ticket:
            first.setdefault(asked.ticket, asked)
    return list(first.values())


def _sizes(run: Run, asked: list[Asked], plans: Mapping[str, Plan]) -> Table:
    meters: Mapping[str, Mapping[str, Any]] = run.further.get("meters", {})
    rows: list[list[Cell]] = []
    for each in asked:
        plan, found = plans[each.ticket], meters.get(each.ticket, {})
        computing = [
            found[member.name] for member in run.members if member.computing and member.name in found
        ]
        whole = len(computing) == plan.computing
        sent = sum(int(meter["sent_bytes"]) for meter in found.values()) if whole else None
        cpu = sum(float(meter["cpu_s"]) for meter in computing) / len(computing) if computing else None
        rows.append(
            [
                each.name,
                plan.cells,
                plan.rounds,
                max((int(meter["rounds"]) for meter in computing), default=None),
                max((int(meter["control_rounds"]) for meter in computing), default=None),
                plan.sent_bytes,
                sent,
                sum(int(meter["sent_bytes"]) for meter in computing) / plan.computing / plan.cells
                if whole
                else None,
                None if cpu is None else cpu * 1e3,
            ]
        )
    columns = (
        "question",
        "cells",
        "rounds declared",
        "rounds measured",
        "control rounds",
        "bytes declared",
        "bytes sent",
        "bytes per cell and computing party",
        "CPU ms per computing party",
    )
    return Table(
        "What each session took: rounds of the protocols as the plan declares them and as they were; bytes "
        "of all parties together, declared as if every cell were shown, and as sent, with control messages",
        columns,
        rows,
        {"cells": ",d", "bytes declared": ",d", "bytes sent": ",d", "CPU ms per computing party": ".1f"},
    )


def _parties(run: Run) -> Table:
    rows: list[list[Cell]] = [
        [
            party.name,
            party.usage.cpu_s or None,
            party.usage.rss_mib or None,
            party.usage.sent_bytes,
            party.usage.received_bytes,
        ]
        for party in run.parties.values()
    ]
    return Table(
        f"What each party used over the whole scenario, which took {run.took_s:.1f} s on this machine with "
        "setting up" + ("" if run.stage == "memory" else "; bytes are those of its last process"),
        ("party", "CPU s", "memory MiB", "bytes sent", "bytes received"),
        rows,
        {"CPU s": ".2f", "memory MiB": ".0f", "bytes sent": ",d", "bytes received": ",d"},
    )


def _phases(run: Run, asked: Asked, plan: Plan, session: Timeline) -> Table:
    parties = [member.name for member in run.members if member.computing]
    delay_ms = slowest(run.scenario.network, parties).delay_ms if run.stage != "processes" else 0.0
    found = session.phases()
    rows: list[list[Cell]] = []
    for phase in PHASES:
        if phase.name in found:
            trips = phase.trips(plan)
            rows.append([phase.name, trips, trips * delay_ms, found[phase.name] * 1e3])
    total: list[Cell] = ["together", trips_of(plan), trips_of(plan) * delay_ms, session.seconds * 1e3]
    clock = "in virtual time" if run.stage == "memory" else "on this machine's clock"
    return Table(
        f"Time of the session of {asked.name} by phase, {clock}: one-way trips declared, what they take, and "
        "what was measured, from the last AGREE sent to the last value opened",
        ("phase", "trips", "trips take ms", "measured ms"),
        [*rows, total],
        {"trips take ms": ".1f", "measured ms": ".1f"},
    )


def _measured(run: Run) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for expected in run.scenario.expect:
        if isinstance(expected, Trips):
            try:
                found[expected.ask or run.scenario.asks[0].name] = measured(run, expected.ask)
            except LookupError:
                continue  # the check says so
    return found


def _trips(name: str, found: Measured) -> Text:
    predicted = found.prediction
    return Text(
        f"{name} over links of {found.weather.delay_ms:g} ms each way: {found.seconds * 1e3:.0f} ms from "
        f"agreement to the last value, the median of {len(found.delayed)} sessions on warm connections "
        f"({min(found.delayed) * 1e3:.0f} to {max(found.delayed) * 1e3:.0f} ms). Predicted were "
        f"{predicted.seconds * 1e3:.0f} ms: {predicted.trips} trips declared by the plan, "
        f"{predicted.trips * predicted.delay_s * 1e3:.0f} ms; {predicted.transfer_s * 1e3:.0f} ms for the "
        f"bytes that it declares; and {predicted.compute_s * 1e3:.0f} ms that the same session takes without "
        "delay. Ordering the session before and signing the receipt after it are not in these figures."
    )


def _over_network(name: str, found: Measured) -> Table:
    rows: list[list[Cell]] = []
    for phase in PHASES:
        if phase.name in found.phases:
            trips_ms = phase.trips(found.plan) * found.weather.delay_ms
            calm_ms = found.calm_phases.get(phase.name, 0.0) * 1e3
            rows.append([phase.name, trips_ms, calm_ms, found.phases[phase.name] * 1e3])
    return Table(
        f"{name} by phase, medians: what its trips take, what the phase takes without delay, and what it "
        "takes with it; the transfer of bytes is the rest",
        ("phase", "trips take ms", "without delay ms", "with delay ms"),
        rows,
        {"trips take ms": ".1f", "without delay ms": ".1f", "with delay ms": ".1f"},
    )


def _compute(
    run: Run,
    timed: list[Asked],
    plans: Mapping[str, Plan],
    sessions: Mapping[str, Timeline],
    found: Mapping[str, Measured],
) -> Compute | None:
    """Return what computing takes, from what was measured without delay; None if nothing was."""
    for each in found.values():
        return Compute.measured(dict(each.calm_phases), each.plan.cells)
    if run.stage == "memory" or (not run.scenario.network.calm and run.stage == "network"):
        return None
    for asked in timed:
        return Compute.measured(sessions[asked.ticket].phases(), plans[asked.ticket].cells)
    return None


def _extrapolation(plan: Plan, compute: Compute) -> list[Block]:
    seconds = {
        link: [predict_cells(plan, cells, weather, compute) for cells in CELLS]
        for link, weather in LINKS.items()
    }
    caption = (
        f"Seconds from agreement to the last value for tables like this one, {plan.computing} computing "
        "parties: trips, transfer, and computing as measured on this machine, which all parties share"
    )
    rows: list[list[Cell]] = [[link, *values] for link, values in seconds.items()]
    names = [f"{cells:,} cells" for cells in CELLS]
    speeds = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
    by_speed = {
        f"{cells:,} cells": (
            speeds,
            [predict_cells(plan, cells, Weather(delay_ms=40, rate_mbit=speed), compute) for speed in speeds],
        )
        for cells in CELLS[2:]
    }
    return [
        Table(caption, ("link", *names), rows, dict.fromkeys(names, ".3g")),
        lines(
            "The same by number of cells",
            {link.partition(", ")[2]: (CELLS, values) for link, values in seconds.items()},
            across="cells",
            up="seconds",
            log_x=True,
            log_y=True,
            marks=True,
        ),
        lines(
            "And by the speed of each link, with 80 ms there and back",
            by_speed,
            across="Mbit/s",
            up="seconds",
            log_x=True,
            log_y=True,
            marks=True,
        ),
    ]
