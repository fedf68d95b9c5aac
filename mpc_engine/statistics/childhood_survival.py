"""``childhood_survival``: what childhood registries publish, as one preset.

Kaplan–Meier survival at 1, 2, 3, 5 and 10 years by diagnostic group of the ICCC-3 and age band, with the
names of the shipped codebook. Observed survival is what is published for children: their expected mortality
is so low that net survival says the same. Five intervals keep the noise small where tumours are rare; without
the edges at 2 and 3 years those who are censored in between would make 5-year survival too high
(docs/coverage.md).
"""

from __future__ import annotations

from typing import Annotated, Literal

from mpc_engine.codebook import Name
from mpc_engine.documents import Field
from mpc_engine.statistics.followup import Event
from mpc_engine.statistics.survival import SurvivalBase
from mpc_engine.statistics.timegrid import TimeGrid


class ChildhoodSurvival(SurvivalBase):
    """Survival with the defaults of a childhood registry; every key may be given otherwise."""

    preset: Literal["childhood_survival"]
    time: Name = "follow_up_days"
    event: Event = Event.model_construct(variable="vital_status", in_=("dead",))
    by: Annotated[tuple[Name, ...], Field(max_length=8)] = ("iccc3_group", "age_group")
    grid: TimeGrid = TimeGrid.model_construct(unit="years", edges=(1, 2, 3, 5, 10))
