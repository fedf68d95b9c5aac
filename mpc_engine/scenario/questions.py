"""What a scenario asks, read and laid out before any party is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.documents import read
from mpc_engine.errors import DocumentError
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.scenario.document import Ask, Scenario, changed
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

T = TypeVar("T")


def read_query(scenario: Scenario, ask: Ask) -> Query:
    """Return what a question asks, changed as it says, after laying it out on the scenario's codebook.

    Raises DocumentError for a document that is missing or breaks a rule: it names the scenario's key, and of
    a query that breaks the rule only as `change` has it that key rather than the query's file.
    """
    key = scenario.key(ask)
    path = scenario.path(ask.query)
    plain = named(scenario, f"{key}.query" if key else "query", read, path)
    codebook = named(scenario, "codebook", load_codebook, scenario.path(scenario.codebook))
    fields = changed(plain, ask.change)
    try:
        return _laid_out(scenario, fields, codebook, str(path))
    except DocumentError:
        if not ask.change or not _fits(scenario, plain, codebook, str(path)):
            raise
    return _laid_out(scenario, fields, codebook, f"{scenario.origin}: {key}.change")


def _fits(scenario: Scenario, fields: Mapping[str, Any], codebook: Codebook, origin: str) -> bool:
    try:
        _laid_out(scenario, fields, codebook, origin)
    except DocumentError:
        return False
    return True


def _laid_out(scenario: Scenario, fields: Mapping[str, Any], codebook: Codebook, origin: str) -> Query:
    query = parse_query(fields, origin)
    members = tuple(
        Member(party.name, party.computing, party.mapping is not None, "unknown", 1)
        for party in scenario.ordered
    )
    propose(query, codebook, members).plan()
    return query


def check_mappings(scenario: Scenario) -> None:
    """Raise DocumentError for a mapping that is missing or breaks a rule."""
    # Imported here, for the commands that only name this module need not load the table libraries.
    from mpc_engine.silo.mapping import load_mapping

    for index, party in enumerate(scenario.party):
        if party.mapping is not None:
            named(scenario, f"party[{index}].mapping", load_mapping, scenario.path(party.mapping))


def named(scenario: Scenario, key: str, load: Callable[[Path], T], path: Path) -> T:
    """Return what `load` makes of a file; a DocumentError names the scenario's key too."""
    try:
        return load(path)
    except DocumentError as error:
        raise DocumentError(f"{scenario.origin}: {key}: {error}") from None
