"""Age-standardised survival with the International Cancer Survival Standards and equal weights for children.

A standardised survival is S = Σ π_k S_k over age groups k with SE = √(Σ π_k² SE_k²), groups being disjoint.
The three ICSS are the age distributions of patients with cancers whose incidence rises with age (1), is
broadly constant (2) or is highest in young adults (3); sources: [CQC04], [SEERSurvStd].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.net_survival import IntervalKind, net_limits
from mpc_engine.estimators.population_tables import FloatArray


@dataclass(frozen=True)
class SurvivalStandard:
    """Weights by age at diagnosis: group k covers ages ``lower[k]`` to below ``lower[k + 1]``, in years.

    The last group ends below ``end``, or never (None). ``weights`` are whole numbers of which only ratios
    matter. Raises DocumentError if ages do not ascend or a weight is not above 0.
    """

    name: str
    lower: tuple[int, ...]
    end: int | None
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        limits = [*self.lower, *([] if self.end is None else [self.end])]
        if not self.lower or any(a >= b for a, b in itertools.pairwise(limits)):
            raise DocumentError("survival standard: the ages must ascend")
        if len(self.weights) != len(self.lower) or min(self.weights) <= 0:
            raise DocumentError("survival standard: every age group needs a weight above 0")

    @property
    def shares(self) -> FloatArray:
        """The weights as parts of 1."""
        weights = np.asarray(self.weights, dtype=np.float64)
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    @property
    def labels(self) -> tuple[str, ...]:
        """The age groups as tables print them: ``15-44``, …, ``75+``."""
        ends = [*self.lower[1:], self.end]
        return tuple(
            f"{low}+" if end is None else f"{low}-{end - 1}"
            for low, end in zip(self.lower, ends, strict=True)
        )


_ADULT = (15, 45, 55, 65, 75)

STANDARDS = MappingProxyType(
    {
        standard.name: standard
        for standard in (
            SurvivalStandard("icss_1", _ADULT, None, (7, 12, 23, 29, 29)),
            SurvivalStandard("icss_2", _ADULT, None, (28, 17, 21, 20, 14)),
            SurvivalStandard("icss_3", _ADULT, None, (60, 10, 10, 10, 10)),
            SurvivalStandard("children", (0, 5, 10), 15, (1, 1, 1)),
        )
    }
)
"""The standards by name. ``icss_1`` serves most cancers, ``icss_2`` those of nasopharynx, soft tissues,
cervix uteri, brain, thyroid and bone and melanoma, ``icss_3`` testis, Hodgkin's disease and acute lymphatic
leukaemia [SEERSurvStd]. ``children`` gives the three groups the same weight."""


@dataclass(frozen=True)
class StandardisedSurvival:
    """Age-standardised survival and its standard errors from sampling and from noise, one shape."""

    survival: FloatArray
    se_sampling: FloatArray
    se_noise: FloatArray

    @property
    def se(self) -> FloatArray:
        """Standard error from both."""
        return np.asarray(np.hypot(self.se_sampling, self.se_noise), dtype=np.float64)

    def limits(self, kind: IntervalKind = "log", level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Return confidence limits, with σ = SE/S; kinds and errors as `net_survival.net_limits`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return net_limits(self.survival, (self.se / self.survival) ** 2, kind, level)


def standardise(
    standard: SurvivalStandard,
    survival: npt.ArrayLike,
    se_sampling: npt.ArrayLike,
    se_noise: npt.ArrayLike = 0.0,
) -> StandardisedSurvival:
    """Return survival standardised over the first axis of ``survival`` (K, …), the groups of ``standard``.

    An age group without an estimate (nan) leaves the result nan: weights are not shared out among the others,
    since that would be another standard. A group whose survival is 0 has no standard error of its own and
    adds none. Raises DocumentError if there are not K groups, or shapes do not fit.
    """
    values = np.asarray(survival, dtype=np.float64)
    if not values.ndim or len(values) != len(standard.weights):
        raise DocumentError(f"survival standard: {len(standard.weights)} age groups are needed")
    try:
        errors = [
            np.where(values == 0, 0.0, np.broadcast_to(np.asarray(part, dtype=np.float64), values.shape))
            for part in (se_sampling, se_noise)
        ]
    except ValueError:
        raise DocumentError("survival standard: the standard errors do not fit") from None
    shares = standard.shares
    roots = [np.sqrt(np.tensordot(shares**2, part**2, axes=1)) for part in errors]
    return StandardisedSurvival(np.asarray(np.tensordot(shares, values, axes=1)), roots[0], roots[1])
