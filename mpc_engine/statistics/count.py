"""``count``: how many patients' records satisfy the filters. One cell."""

from __future__ import annotations

from typing import ClassVar, Literal

from mpc_engine.codebook import Codebook
from mpc_engine.release.opened import Opened
from mpc_engine.statistics.cells import add_counts
from mpc_engine.statistics.layout import Kind
from mpc_engine.statistics.query import Query, counted
from mpc_engine.statistics.tidy import Tidy
from mpc_engine.statistics.where import Problems


class Count(Query):
    """The number of records that satisfy the filters, capped per patient."""

    headlines: ClassVar[tuple[str, ...]] = ("count",)

    preset: Literal["count"]

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return one cell without axes."""
        return [counted("count", [])]

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return one row, the count with its interval."""
        tidy = Tidy(self.preset, ())
        add_counts(tidy, opened.groups["count"].guard)
        return tidy

    def question(self) -> str:
        """Return what is asked in plain words."""
        return "how many records satisfy the filters"
