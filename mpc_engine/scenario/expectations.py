"""What is to come of a scenario, as documents; `mpc_engine.harness.checks` looks whether it did.

Beside what a scenario lists, four things are always expected: that every question without an `outcome` of its
own is answered, that every fault comes, that the parties serve in the end, and the universal outcome of
docs/faults.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mpc_engine.documents import Document, Field, broken, model_validator

Chance = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
P_LEAST = 1e-6
"""Least p-value by default: a right engine fails one check in a million."""


class _Expectation(Document):
    """One expectation. `ask` names the question that it is about, by default the first."""

    ask: str | None = None

    @property
    def asks(self) -> tuple[str, ...]:
        """Every question that it names."""
        return () if self.ask is None else (self.ask,)

    @property
    def parties(self) -> tuple[str, ...]:
        """Every party that it names."""
        return ()


class Outcome(_Expectation):
    """How requests for the question end: the state, with the reason where there is one."""

    kind: Literal["outcome"]
    state: Literal["RELEASED", "RETURNED", "REJECTED", "WITHDRAWN"] = "RELEASED"
    reason: str = ""
    count: Annotated[int, Field(ge=0)] | None = None
    """So many of them; the others end in another way. None: all."""


class Same(_Expectation):
    """The release of `ask`, asked again or as another question `other`, is the same and cost nothing more."""

    kind: Literal["same"]
    other: str | None = None

    @property
    def asks(self) -> tuple[str, ...]:
        return (*super().asks, *(() if self.other is None else (self.other,)))


class Budget(_Expectation):
    """What the whole scenario has cost `party` (default: every silo, each) in ε, as a decimal; exactly."""

    kind: Literal["budget"]
    spent: Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")]
    party: str | None = None

    @property
    def parties(self) -> tuple[str, ...]:
        return () if self.party is None else (self.party,)


class Detected(_Expectation):
    """The fault number `fault` (from 0) is noticed by another party, within so many seconds, as `reason`."""

    kind: Literal["detected"]
    fault: Annotated[int, Field(ge=0)] = 0
    within_s: Positive
    reason: str = ""


class Cost(_Expectation):
    """Bounds on what the question's session costs; those left out are not looked at."""

    kind: Literal["cost"]
    rounds: Annotated[int, Field(ge=1)] | None = None
    control_rounds: Annotated[int, Field(ge=1)] | None = None
    bytes_per_cell: Positive | None = None
    """Payload that a computing party sends, on average."""
    cpu_us_per_cell: Positive | None = None
    rss_mib: Positive | None = None


class Trips(_Expectation):
    """From agreement on a warm connection to the last value opened at most so many one-way trips.

    Beyond the link's transfer time and the same job's time without delay; and the time that the report
    predicts is within `predicted_within` of the one measured, medians of `runs`.
    """

    kind: Literal["trips"]
    most: Annotated[int, Field(ge=1)] = 21
    predicted_within: Chance = 0.2
    runs: Annotated[int, Field(ge=1, le=25)] = 5


class Truth(_Expectation):
    """A statistic of the release is as the truth says, within `tolerance` or within `errors` stated errors.

    `where` picks one row of the table of statistics by its columns. The truth is `value`, from a source of
    its own, or else the statistic of the parties' pooled records. `errors` counts the release's own stated
    standard errors of the noise, of sampling too with a `value` that is no count of the same records.
    """

    kind: Literal["truth"]
    where: dict[str, Any]
    value: float | None = None
    tolerance: Positive | None = None
    errors: Positive | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> Truth:
        if (self.tolerance is None) == (self.errors is None):
            raise broken("tolerance", "is required, or `errors` in its place; not both")
        return self


class Pooled(_Expectation):
    """The statistics of the parties' pooled records, without noise, are those of a reference `file` (CSV).

    Its columns are the table's; `value` holds the truth, within `tolerance`.
    """

    kind: Literal["pooled"]
    file: str
    tolerance: Positive = 1e-9


class Noise(_Expectation):
    """Published values err as the noise table says, and cells are shown as often as it says.

    Of too few values to tell noise from none at all it does not hold.
    """

    kind: Literal["noise"]
    p_least: Chance = P_LEAST


class Published(_Expectation):
    """How many cells (of guards) are shown, and how many of them hold fewer patients than the threshold."""

    kind: Literal["published"]
    least: Annotated[int, Field(ge=0)] | None = None
    most: Annotated[int, Field(ge=0)] | None = None
    most_below_threshold: Annotated[int, Field(ge=0)] | None = None


class Coverage(_Expectation):
    """Intervals of `statistic` hold the pooled truth at least as often as stated.

    And the stated errors of the noise alone are right to within a factor of 2.
    """

    kind: Literal["coverage"]
    statistic: str
    stated: Chance = 0.95
    p_least: Chance = P_LEAST


class Curator(_Expectation):
    """The error is a trusted curator's with OpenDP at the same ε; local noise is worse, as theory says."""

    kind: Literal["curator"]
    p_least: Chance = 1e-4


class Audit(_Expectation):
    """The privacy that the releases show: no more than the stated ε, and power enough to have seen more.

    For a question with many cells of c and c + 1 patients. Source: [Steinke23] and event sets.
    """

    kind: Literal["audit"]
    power: Chance = 0.9
    """The audit must establish at least this share of ε, or it could not have seen a fault."""


class Attack(_Expectation):
    """What an attacker makes of all releases, or of all that parties saw, is no more than theory allows."""

    kind: Literal["attack"]
    by: Literal["averaging", "differencing", "subtraction", "membership", "coalition"]
    party: str | None = None
    """Who subtracts its own data, or listens; default: the first silo, or every party in turn."""
    other: str | None = None
    """The question from which `ask` differs by few patients."""
    p_least: Chance = P_LEAST

    @property
    def asks(self) -> tuple[str, ...]:
        return (*super().asks, *(() if self.other is None else (self.other,)))

    @property
    def parties(self) -> tuple[str, ...]:
        return () if self.party is None else (self.party,)

    @property
    def views(self) -> bool:
        """Whether everything that parties saw must be kept."""
        return self.by == "coalition"


class Keeps(_Expectation):
    """Pooling under MPC keeps at least so many more cells, or so much more precision, than masking at sites.

    `cells`: the factor of cells shown; `precision`: the factor by which the absolute error of the whole
    table is smaller, hidden cells counted as 0. Both with the noise included, expected over it exactly.
    """

    kind: Literal["keeps"]
    cells: Positive | None = None
    precision: Positive | None = None


Expectation = Annotated[
    Outcome
    | Same
    | Budget
    | Detected
    | Cost
    | Trips
    | Truth
    | Pooled
    | Noise
    | Published
    | Coverage
    | Curator
    | Audit
    | Attack
    | Keeps,
    Field(discriminator="kind"),
]
