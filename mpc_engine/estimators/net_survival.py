"""Net survival from a released histogram: Ederer II and Pohar Perme with public expected hazards.

The histogram counts deaths and censorings by interval of follow-up and by *cell* g of patients who are alike
to the population table: an age group, a sex and a period of diagnosis. What is expected of a cell is that of
one representative person, of its middle age and diagnosed in the middle of its period; so it is a public
function of the cell and of time, and both estimators follow from the opened counts without further noise.

Notation, for interval j = (t_{j−1}, t_j] and cell g: d deaths, n at risk at its start, n' the risk set of the
method (Kaplan–Meier n; actuarial n − c/2), H_g(t) the expected cumulative hazard, ΔH_gj its increase over
the interval, p*_gj = exp(−ΔH_gj), w_g(t) = exp(H_g(t)).

``product`` form, r_j = Σ_g a_gj (n'_gj − d_gj) / Σ_g a_gj p*_gj n'_gj and S = Π r_j:

- Ederer II has a = 1: r_j is the observed interval survival over the mean of p* among those at risk, as in
  SEER*Stat [EH59];
- Pohar Perme has a_gj = w_g(t_j). Where n' is n and hazards are constant within interval and cell this is
  exactly exp(−∫ Σ w Y (λ − λ*) / Σ w Y dt), the estimator of [PSE12], since w_g Y_g then changes at the rate
  w_g Y_g (λ*_g − λ_g); the width of the intervals matters for censorings only.

Sampling variance of ln S: Σ_j Σ_g a² d (1 − D_j/N_j) / (Σ_g a (n' − d))², where D_j = Σ a d and N_j = Σ a n'.
With a = 1 it is Greenwood's.

``hazard`` form, S = exp(−Σ_j u_j) with u_j = Σ_g a_gj (d_gj − ΔH_gj m_gj) / Σ_g a_gj m_gj, a_gj = 1 or w_g at
mid-interval, and person-time by the mid-interval convention, m = n − (d + c)/2 intervals. Sampling variance
Σ_j Σ_g a² d / (Σ_g a m)². It is what popEpi and stnet compute from grouped data; on wide intervals it is far
off where many die, which `product` is not.

Noise. Sums over cells are taken of the signed counts, so noise of mean zero stays without bias in numerator
and denominator; no cell is clipped. Only where no survivors would be left is their sum set to 0: from there
on S is 0. Where the sum at risk is not positive S is nan. Its variance follows by the delta method from the
noise of every member cell, late entry cell and guard; with no noise the textbook estimator is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.lifetable import IntervalCounts, Method, Reconciled, reconcile
from mpc_engine.estimators.population_tables import FloatArray, PopulationTable

Estimator = Literal["pohar-perme", "ederer-2"]
Form = Literal["product", "hazard"]
IntervalKind = Literal["log", "log-log", "plain"]


@dataclass(frozen=True)
class NetSurvival:
    """Net survival at the end of every interval; arrays (…, J), the axis of cells summed away.

    ``at_risk``, ``events`` and ``censored`` are sums over the cells that are shown; ``hidden`` (…,) is the
    number of cells that are not (nan in the counts), whose patients the curve leaves out. ``observed`` and
    ``expected`` are interval survivals with ``observed`` / ``expected`` = ``relative``; ``net`` is the
    running product of ``relative``. It may exceed 1 or rise: it is a ratio, and nothing is clipped.
    ``log_variance`` and ``log_noise_variance`` are the sampling and the noise variance of ln(net).
    """

    at_risk: FloatArray
    events: FloatArray
    censored: FloatArray
    hidden: npt.NDArray[np.int64]
    observed: FloatArray
    expected: FloatArray
    relative: FloatArray
    net: FloatArray
    log_variance: FloatArray
    log_noise_variance: FloatArray

    @property
    def se_sampling(self) -> FloatArray:
        """Standard error of ``net`` from sampling alone; nan where ``net`` is 0."""
        return np.asarray(self.net * np.sqrt(self.log_variance), dtype=np.float64)

    @property
    def se_noise(self) -> FloatArray:
        """Standard error of ``net`` from noise alone; nan where ``net`` is 0."""
        return np.asarray(self.net * np.sqrt(self.log_noise_variance), dtype=np.float64)

    @property
    def se(self) -> FloatArray:
        """Standard error of ``net`` from both."""
        return np.asarray(self.net * np.sqrt(self.log_variance + self.log_noise_variance), dtype=np.float64)

    def limits(self, kind: IntervalKind = "log", level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper confidence limits with sampling and noise; errors as `net_limits`."""
        return net_limits(self.net, self.log_variance + self.log_noise_variance, kind, level)


def net_limits(
    net: FloatArray, log_variance: FloatArray, kind: IntervalKind = "log", level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return confidence limits of ``net`` from the variance σ² of its logarithm, unclipped.

    ``log`` S·exp(±zσ), relsurv's default; ``plain`` S ± zSσ; ``log-log`` S^exp(±zσ/ln S), which exists for
    0 < S < 1 and is nan elsewhere. Raises DocumentError for another kind or a level not between 0 and 1.
    """
    if kind not in get_args(IntervalKind):
        raise DocumentError("an interval of net survival is `log`, `log-log` or `plain`")
    if not 0 < level < 1:
        raise DocumentError("a confidence level lies between 0 and 1")
    reach = float(ndtri(0.5 + level / 2)) * np.sqrt(log_variance)
    if kind == "plain":
        return net - reach * net, net + reach * net
    if kind == "log":
        with np.errstate(over="ignore", invalid="ignore"):  # a reach without end, or net survival of 0
            return net * np.exp(-reach), net * np.exp(reach)
    inner = np.where((net > 0) & (net < 1), net, np.nan)
    scale = reach / np.log(inner)  # negative: the lower limit has the larger exponent
    return np.power(inner, np.exp(-scale)), np.power(inner, np.exp(scale))


def mid_age_days(
    lower: float, upper: float | None, last: float = 90.0, *, year_days: float = 365.241
) -> float:
    """Return the age in days that represents ages from ``lower`` to below ``upper`` years: the middle.

    An open-ended group (``upper`` None) is taken to end at ``last`` years, so 75+ is represented by 82.5.
    Raises DocumentError if the group is empty or begins below 0.
    """
    end = last if upper is None else upper
    if not 0 <= lower < end:
        raise DocumentError("an age group needs a lower limit below its upper one, both 0 or more")
    return (lower + end) / 2 * year_days


def mid_period(first_year: int, last_year: int) -> np.datetime64:
    """Return the day in the middle of the calendar years ``first_year`` … ``last_year``, both included.

    Raises DocumentError if the years descend.
    """
    if last_year < first_year:
        raise DocumentError("a period needs a first year that is not after its last")
    start, end = (np.datetime64(f"{year:04d}-01-01", "D") for year in (first_year, last_year + 1))
    return np.datetime64(start + (end - start) // 2)


def expected_paths(
    table: PopulationTable,
    sex: npt.ArrayLike,
    age_days: npt.ArrayLike,
    diagnosis: npt.ArrayLike,
    edges: npt.ArrayLike,
) -> FloatArray:
    """Return H_g(t_j), shape (G, J + 1): the expected cumulative hazard of each cell's representative.

    ``sex`` (index in the table), ``age_days`` and ``diagnosis`` have one value per cell; ``edges`` are
    t_0 = 0 to t_J in days. The representative grows older and the calendar moves on during follow-up. Raises
    DocumentError if the edges do not rise from 0, else as `PopulationTable.cumulative_hazard`.
    """
    marks = np.asarray(edges, dtype=np.float64)
    if marks.ndim != 1 or len(marks) < 2 or marks[0] != 0:
        raise DocumentError("the edges of a grid start at 0 and rise")
    return table.cumulative_hazard(sex, age_days, diagnosis, marks)


def net_survival(
    counts: IntervalCounts,
    paths: FloatArray,
    *,
    estimator: Estimator = "pohar-perme",
    form: Form = "product",
    method: Method = "actuarial",
) -> NetSurvival:
    """Return the net survival of the patients in ``counts``, whose last two axes are (G, J).

    ``paths`` (G, J + 1) are `expected_paths` of the same cells. A cell of which any count is nan was not
    published and is left out. Guards, if given, are reconciled with the members as in `lifetable.reconcile`.
    ``method`` says where in an interval censorings lie, for the ``product`` form; the ``hazard`` form takes
    its person-time from mid-interval. Where nobody is left after all have died net survival stays 0; where
    nobody was ever at risk it is nan. Raises DocumentError if shapes or names do not fit. [PSE12], [EH59]
    """
    if estimator not in get_args(Estimator) or form not in get_args(Form) or method not in get_args(Method):
        raise DocumentError("net survival: the estimator, its form or its method is not known")
    if counts.events.ndim < 2:
        raise DocumentError("net survival: counts are needed by cell and interval")
    if paths.shape != (counts.events.shape[-2], counts.intervals + 1):
        raise DocumentError("net survival: every cell needs an expected path over the edges of the grid")
    if not np.isfinite(paths).all():
        raise DocumentError("net survival: an expected path is not finite")
    cells, shown = _shown(counts)
    at_risk = _at_risk(cells)
    gradient_parts = _product if form == "product" else _hazard
    half = 0.5 if form == "hazard" or method == "actuarial" else 0.0
    steps = gradient_parts(cells, at_risk, paths, estimator, half)
    known = np.isfinite(steps.relative)
    net = np.cumprod(np.where(known, steps.relative, 1.0), axis=-1, dtype=np.float64)
    lost = np.maximum.accumulate(~known, axis=-1)
    dead = np.maximum.accumulate(np.where(lost, np.nan, steps.relative) == 0, axis=-1)
    net = np.asarray(np.where(dead, 0.0, np.where(lost, np.nan, net)), dtype=np.float64)
    alive = net > 0
    sampling = np.where(alive, np.maximum(np.cumsum(steps.variance, axis=-1), 0.0), np.nan)
    noise = np.where(alive, _noise_variance(cells, steps, shown), np.nan)
    return NetSurvival(
        at_risk=at_risk.sum(axis=-2),
        events=cells.events.sum(axis=-2),
        censored=cells.censored.sum(axis=-2),
        hidden=np.asarray((~shown).sum(axis=-1), dtype=np.int64),
        observed=steps.observed,
        expected=steps.expected,
        relative=steps.relative,
        net=net,
        log_variance=sampling,
        log_noise_variance=noise,
    )


@dataclass(frozen=True)
class _Steps:
    """One factor per interval (…, J) and the gradient of its logarithm by cell (…, G, J), n and d apart.

    ``half`` is by how much a censoring or a late entry lowers the risk set of its own interval.
    """

    observed: FloatArray
    expected: FloatArray
    relative: FloatArray
    variance: FloatArray
    by_risk: FloatArray
    by_event: FloatArray
    half: float


def _shown(counts: IntervalCounts) -> tuple[Reconciled, npt.NDArray[np.bool_]]:
    """Return the reconciled cells with zeros for those not published, and which are published (…, G)."""
    shown = np.isfinite(counts.events).all(axis=-1) & np.isfinite(counts.censored).all(axis=-1)
    shown &= np.isfinite(counts.beyond)
    if counts.entered is not None:
        shown &= np.isfinite(counts.entered).all(axis=-1)
    if counts.guard is not None:
        shown &= np.isfinite(counts.guard)
    wide = shown[..., None]
    return reconcile(
        IntervalCounts(
            np.where(wide, counts.events, 0.0),
            np.where(wide, counts.censored, 0.0),
            np.where(shown, counts.beyond, 0.0),
            None if counts.entered is None else np.where(wide, counts.entered, 0.0),
            None if counts.guard is None else np.where(shown, counts.guard, 0.0),
            noise=counts.noise,
        )
    ), shown


def _at_risk(cells: Reconciled) -> FloatArray:
    leaving = cells.events + cells.censored
    at_risk = np.cumsum(leaving[..., ::-1], axis=-1)[..., ::-1] + cells.beyond[..., None]
    if cells.entered is not None:
        later = np.cumsum(cells.entered[..., ::-1], axis=-1)[..., ::-1] - cells.entered
        at_risk = at_risk - later
    return np.asarray(at_risk, dtype=np.float64)


def _risk_set(cells: Reconciled, at_risk: FloatArray, half: float) -> FloatArray:
    out = cells.censored if cells.entered is None else cells.censored + cells.entered
    return np.asarray(at_risk - half * out, dtype=np.float64)


def _product(
    cells: Reconciled, at_risk: FloatArray, paths: FloatArray, estimator: Estimator, half: float
) -> _Steps:
    weight = np.exp(paths[:, 1:]) if estimator == "pohar-perme" else np.ones_like(paths[:, 1:])
    surviving = np.exp(-np.diff(paths, axis=-1))
    risk = _risk_set(cells, at_risk, half)
    whole = (weight * risk).sum(axis=-2)
    died = (weight * cells.events).sum(axis=-2)
    left = np.maximum(whole - died, 0.0)
    below = (weight * surviving * risk).sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        possible = (whole > 0) & (below > 0)
        observed = np.where(possible, left / whole, np.nan)
        relative = np.where(possible, left / below, np.nan)
        spread = (weight**2 * cells.events).sum(axis=-2) * (1 - died / whole) / left**2
        inverse = np.where(possible & (left > 0), 1.0 / left, 0.0)[..., None, :]
        by_risk = weight * inverse - np.where(possible, 1.0 / below, 0.0)[..., None, :] * weight * surviving
        expected = np.where(possible, below / whole, np.nan)
    variance = np.where(possible & (left > 0), spread, 0.0)
    return _Steps(observed, expected, relative, variance, by_risk, -weight * inverse, half)


def _hazard(
    cells: Reconciled, at_risk: FloatArray, paths: FloatArray, estimator: Estimator, half: float
) -> _Steps:
    middle = np.exp((paths[:, 1:] + paths[:, :-1]) / 2)
    weight = middle if estimator == "pohar-perme" else np.ones_like(middle)
    rise = np.diff(paths, axis=-1)
    time = _risk_set(cells, at_risk, half) - cells.events / 2
    whole = (weight * time).sum(axis=-2)
    died = (weight * cells.events).sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        possible = whole > 0
        inverse = np.where(possible, 1.0 / whole, 0.0)
        awaited = (weight * rise * time).sum(axis=-2) * inverse
        excess = died * inverse - awaited
        relative = np.where(possible, np.exp(-excess), np.nan)
        observed = np.where(possible, np.exp(-died * inverse), np.nan)
        expected = np.where(possible, np.exp(-awaited), np.nan)
    variance = (weight**2 * cells.events).sum(axis=-2) * inverse**2
    by_risk = weight * (rise + excess[..., None, :]) * inverse[..., None, :]
    by_event = -weight * inverse[..., None, :] - by_risk / 2
    return _Steps(observed, expected, relative, variance, by_risk, by_event, half)


def _noise_variance(cells: Reconciled, steps: _Steps, shown: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the noise variance of ln S_k for every k, by the delta method over all cells.

    A member of interval i is at risk in every interval up to its own. So by ln S_k its derivative is the
    sum A of ``by_risk`` over the first min(i, k) intervals, plus what it does in its own if i ≤ k: those
    first k intervals are running sums, and the 2(J − k) + 1 cells beyond all have the derivative A_k.
    """
    total = np.cumsum(steps.by_risk, axis=-1)
    own_loss = -steps.half * steps.by_risk
    by_event, by_censored = total + steps.by_event, total + own_loss
    later = 2.0 * np.arange(steps.by_risk.shape[-1])[::-1] + 1.0
    squares = np.cumsum(by_event**2 + by_censored**2, axis=-1) + later * total**2
    plain = np.cumsum(by_event + by_censored, axis=-1) + later * total
    entered = np.zeros_like(squares)
    if cells.entered is not None:
        # A late entry of interval i was not at risk before it, nor (actuarial) in the first half of it.
        by_entered = -(total - steps.by_risk) + own_loss
        entered = np.cumsum(by_entered**2, axis=-1) + (later - 1) / 2 * total**2
    cellwise = cells.noise_covariance(squares, plain, plain, entered)
    return np.asarray((cellwise * shown[..., None]).sum(axis=-2), dtype=np.float64)
