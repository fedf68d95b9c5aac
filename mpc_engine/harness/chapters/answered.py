"""One answered question with everything that the chapter on utility compares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd

from mpc_engine.harness.alternatives import Alternative, alone, local, masked, truth
from mpc_engine.harness.answers import KEYS, Question, Sums, opened_of, pool, variables_of
from mpc_engine.harness.checks.utility import curators
from mpc_engine.harness.noise_tests import Shown
from mpc_engine.harness.record import Asked, Run

MOST_SITES: Final = 3
"""Sites whose own results are shown one by one; of more, only the largest's."""
COLUMNS: Final = ("value", "lcl", "ucl", "se_sampling", "se_noise", "flag")


@dataclass(frozen=True)
class Answered:
    """One answered question with the sums behind it."""

    run: Run
    asked: tuple[Asked, ...]
    question: Question
    sums: dict[str, Sums]

    @cached_property
    def pooled(self) -> Sums:
        """The sums over all silos."""
        return pool(self.sums)

    @cached_property
    def releases(self) -> list[Shown]:
        """What each release shows."""
        return [
            Shown(self.question, self.pooled, self.question.values(opened_of(each)), self.sums)
            for each in self.asked
        ]

    @cached_property
    def ways(self) -> list[Alternative]:
        """The truth, the first release, and the alternatives to it."""
        largest = sorted(self.sums, key=lambda name: -int(self.sums[name].patients[0].sum()))
        some = {
            name: self.sums[name] for name in self.sums if name in largest[:1] or len(largest) <= MOST_SITES
        }
        release = Alternative("release", "release", "", opened_of(self.asked[0]))
        held = (self.question, self.sums)
        return [
            truth(*held),
            release,
            *curators(self.run, self.asked[0], 1),
            local(*held),
            masked(*held),
            *alone(self.question, some),
        ]

    @cached_property
    def variables(self) -> list[str]:
        """The table's columns of categories."""
        return variables_of(self.question.finish(self.ways[0].opened))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The pooled truth's rows, with each way's value, limits and errors in columns of its name."""
        first, *others = self.ways
        found = self.question.finish(first.opened)
        keys = [*variables_of(found), *KEYS]
        found["position"] = np.arange(len(found))
        for way in others:
            own = self.question.finish(way.opened)[[*keys, *COLUMNS]]
            named = {name: f"{way.name} {name}" for name in COLUMNS}
            found = found.merge(own.rename(columns=named), on=keys, how="left")
        return found.sort_values("position", ignore_index=True)
