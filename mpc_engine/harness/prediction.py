"""How long a release takes over a network, from what its plan declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mpc_engine.harness.timeline import CONTROL_TRIPS, PHASES, trips_of, waves
from mpc_engine.release.plan import Plan
from mpc_engine.scenario.document import Network, Weather

WIRE_BYTES: Final = 1500 / 1448
"""Bytes on the link for each of a message: headers of IPv4 and TCP with timestamps, MTU 1500."""


@dataclass(frozen=True)
class Prediction:
    """A session's time from AGREE to the last value, in seconds, and what it is made of."""

    trips: int
    delay_s: float
    transfer_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        """The whole of it."""
        return self.trips * self.delay_s + self.transfer_s + self.compute_s


@dataclass(frozen=True)
class Compute:
    """What a session takes without delay: a part that is always there, and one that grows with the cells."""

    fixed_s: float
    per_cell_s: float

    @classmethod
    def measured(cls, phases: dict[str, float], cells: int) -> Compute:
        """Return it from one session's phases without delay; see `Timeline.phases`."""
        growing = {phase.name for phase in PHASES if phase.grows}
        fixed = sum(seconds for name, seconds in phases.items() if name not in growing)
        return cls(fixed, (sum(phases.values()) - fixed) / max(1, cells))

    def seconds(self, cells: int) -> float:
        """Return the time for so many cells."""
        return self.fixed_s + self.per_cell_s * cells


def predict(plan: Plan, weather: Weather, compute_s: float) -> Prediction:
    """Return the time of a plan's session where the weather is the same between all computing parties.

    `compute_s` is what it takes without delay. Each direction between two parties has the rate of its own;
    as much passes over it as one party sends on average, for nearly all of that goes to one peer. Congestion
    windows are taken to be open: connections are warm, and slow start after idleness is off.
    """
    return Prediction(
        trips_of(plan),
        weather.delay_ms / 1e3,
        transfer_s(plan.sent_bytes / plan.computing, weather),
        compute_s,
    )


def transfer_s(size: float, weather: Weather, *, headers: bool = True) -> float:
    """Return for how long bytes occupy a link, in seconds; `headers` are to be added to bytes of messages."""
    if weather.rate_mbit is None:
        return 0.0
    return size * (WIRE_BYTES if headers else 1.0) / (weather.rate_mbit * 125_000)


def predict_cells(plan: Plan, cells: int, weather: Weather, compute: Compute) -> float:
    """Return the seconds of a session like this plan's with another number of cells; see `predict`."""
    trips = CONTROL_TRIPS + plan.rounds * waves(cells)
    payload = plan.sent_bytes / plan.computing * cells / max(1, plan.cells)
    return trips * weather.delay_ms / 1e3 + transfer_s(payload, weather) + compute.seconds(cells)


def slowest(network: Network, parties: list[str]) -> Weather:
    """Return the weather that each round waits for: the longest delay and the lowest rate of any pair."""
    pairs = [
        network.between(one, two) for index, one in enumerate(parties) for two in parties[index + 1 :]
    ] or [network]
    rates = [pair.rate_mbit for pair in pairs if pair.rate_mbit is not None]
    return Weather(
        delay_ms=max(pair.delay_ms + pair.jitter_ms / 2 for pair in pairs),
        jitter_ms=max(pair.jitter_ms for pair in pairs),
        loss=max(pair.loss for pair in pairs),
        rate_mbit=min(rates) if rates else None,
    )
