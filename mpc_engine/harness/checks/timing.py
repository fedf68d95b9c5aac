"""The check of a release's time over a network: trips, and whether it was predicted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpc_engine.harness.audit import plan_of
from mpc_engine.harness.checks import checks
from mpc_engine.harness.prediction import Prediction, predict, slowest, transfer_s
from mpc_engine.harness.record import Run, Verdict, Verdicts
from mpc_engine.release.plan import Plan
from mpc_engine.scenario.document import Weather
from mpc_engine.scenario.expectations import Trips


@dataclass(frozen=True)
class Measured:
    """What was measured of one question over a network: seconds of each run, from AGREE to the last value.

    `calm` are the same interval's without delay; `transfer_s` is how long the busiest link was busy in one
    session.
    """

    plan: Plan
    weather: Weather
    delayed: tuple[float, ...]
    calm: tuple[float, ...]
    phases: Mapping[str, float]
    calm_phases: Mapping[str, float]
    transfer_s: float

    @property
    def seconds(self) -> float:
        """The median with delay."""
        return statistics.median(self.delayed)

    @property
    def calm_s(self) -> float:
        """The median without delay."""
        return statistics.median(self.calm)

    @property
    def prediction(self) -> Prediction:
        """What the plan and the time without delay predict."""
        return predict(self.plan, self.weather, self.calm_s)


def measured(run: Run, ask: str | None) -> Measured:
    """Return what was measured of a question, by default the first. Raises LookupError if nothing was."""
    name = ask or run.scenario.asks[0].name
    found: Mapping[str, Any] = run.further.get("trips", {}).get(name, {})
    if not found.get("delayed", {}).get("seconds") or not found.get("calm", {}).get("seconds"):
        raise LookupError(f"no time of {name} over a network was measured on the stage {run.stage}")
    delayed, calm = found["delayed"], found["calm"]
    parties = [member.name for member in run.members if member.computing]
    weather = slowest(run.scenario.network, parties)
    busiest = float(delayed["busiest_bytes"])
    return Measured(
        plan_of(run, run.released(ask)),
        weather,
        tuple(delayed["seconds"]),
        tuple(calm["seconds"]),
        delayed["phases"],
        calm["phases"],
        transfer_s(busiest, weather, headers=False),
    )


@checks(Trips)
def trips(run: Run, expected: Trips) -> Verdicts:
    """Check that a release over a network takes no more trips than allowed, and the time predicted."""
    found = measured(run, expected.ask)
    name = expected.ask or run.scenario.asks[0].name
    delay_s = found.weather.delay_ms / 1e3
    spare_s = expected.most * delay_s + found.transfer_s
    most_s = spare_s + found.calm_s
    enough = len(found.delayed) >= expected.runs and len(found.calm) >= expected.runs
    short = "" if enough else f" Only {len(found.delayed)} and {len(found.calm)} runs were complete."
    predicted = found.prediction.seconds
    off = predicted / found.seconds - 1
    return [
        Verdict(
            f"From agreement to the last value {name} takes at most {expected.most} one-way trips of "
            f"{found.weather.delay_ms:g} ms, the link's transfer time, and the job's time without delay.",
            enough and found.seconds <= most_s,
            f"It took {found.seconds * 1e3:.0f} ms; allowed were {expected.most * delay_s * 1e3:.0f} + "
            f"{found.transfer_s * 1e3:.0f} + {found.calm_s * 1e3:.0f} = {most_s * 1e3:.0f} ms, the last "
            f"of them the same interval's without delay (medians of {len(found.delayed)})." + short,
        ),
        Verdict(
            f"The predicted time of {name} is within {expected.predicted_within:.0%} of the measured one.",
            enough and abs(off) <= expected.predicted_within,
            f"Predicted were {predicted * 1e3:.0f} ms ({off:+.1%}).{short}",
        ),
    ]
