"""Whether what a scenario names is there and fits it, before anything is started."""

from __future__ import annotations

from typing import Final

from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError
from mpc_engine.scenario.document import Scenario
from mpc_engine.scenario.expectations import Coverage, Pooled, Truth
from mpc_engine.scenario.questions import check_mappings, named, read_query
from mpc_engine.statistics.query import Query

_MOST_CELLS: Final = 20_000
"""Cells of a release up to which its table is laid out to see what rows it has."""


def check_documents(scenario: Scenario) -> None:
    """Read every document that a scenario names, and see whether its expectations ask for what there is.

    Raises DocumentError, which names the scenario's own key, for a document that is missing or breaks a rule
    and for a statistic, a category or a reference file that there is not.
    """
    queries = {ask.name: read_query(scenario, ask) for ask in scenario.asks}
    check_mappings(scenario)
    for index, party in enumerate(scenario.party):
        if party.codebook is not None:
            named(scenario, f"party[{index}].codebook", load_codebook, scenario.path(party.codebook))
    first = scenario.asks[0].name
    for index, expect in enumerate(scenario.expect):
        key = f"{scenario.origin}: expect[{index}]"
        if isinstance(expect, Truth | Coverage):
            _check_rows(scenario, queries[expect.ask or first], expect, key)
        elif isinstance(expect, Pooled) and not scenario.path(expect.file).is_file():
            raise DocumentError(f"{key}.file: {scenario.path(expect.file)}: there is no such file")


def _check_rows(scenario: Scenario, query: Query, expect: Truth | Coverage, key: str) -> None:
    """Raise DocumentError unless a query's table has what is expected of it; no record matters."""
    # Imported here, for most scenarios need no table to be checked.
    import numpy as np

    from mpc_engine.errors import EngineError
    from mpc_engine.harness.answers import Question, matching, one_row

    question = Question(query, load_codebook(scenario.path(scenario.codebook)))
    cells = [line.tally.grid.cells for line in question.lines]
    if sum(cells) > _MOST_CELLS:
        return
    table = question.finish(question.true([np.zeros(size, np.int64) for size in cells]))
    try:
        if isinstance(expect, Truth):
            one_row(table, expect.where)
        elif not len(matching(table, {"statistic": expect.statistic})):
            one_row(table, {"statistic": expect.statistic})
    except EngineError as error:
        place = "where" if isinstance(expect, Truth) else "statistic"
        raise DocumentError(f"{key}.{place}: {error}") from None
