"""What a scenario asks, read and laid out before any party is started."""

from __future__ import annotations

from mpc_engine.codebook import load_codebook
from mpc_engine.documents import read
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.scenario.document import Ask, Scenario, changed
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query


def read_query(scenario: Scenario, ask: Ask) -> Query:
    """Return what a question asks, changed as it says, after laying it out on the scenario's codebook.

    Raises DocumentError for a document that is missing or breaks a rule.
    """
    path = scenario.path(ask.query)
    query = parse_query(changed(read(path), ask.change), str(path))
    members = tuple(
        Member(party.name, party.computing, party.mapping is not None, "unknown", 1)
        for party in scenario.ordered
    )
    propose(query, load_codebook(scenario.path(scenario.codebook)), members).plan()
    return query


def check_mappings(scenario: Scenario) -> None:
    """Raise DocumentError for a mapping that is missing or breaks a rule."""
    # Imported here, for the commands that only name this module need not load the table libraries.
    from mpc_engine.silo.mapping import load_mapping

    for party in scenario.party:
        if party.mapping is not None:
            load_mapping(scenario.path(party.mapping))
