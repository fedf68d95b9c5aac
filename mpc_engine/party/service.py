"""The composition root: one party takes part in one release, from its files to the published table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine import __version__
from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.identity import Identity
from mpc_engine.party.book import Credentials
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.judgement import check_query
from mpc_engine.party.process import keep_memory
from mpc_engine.party.proposal import Proposal, propose
from mpc_engine.party.publish import Finished
from mpc_engine.party.published import policy_digest, published
from mpc_engine.party.roster import Directory, Roster
from mpc_engine.party.session import Session
from mpc_engine.party.source import source_digest
from mpc_engine.release.blocks import Progress
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Section
from mpc_engine.silo.registration import check_use, load_registration
from mpc_engine.statistics.presets import load_query
from mpc_engine.statistics.query import Query
from mpc_engine.transport.grpc_switchboard import connect

_CONTROL_ALLOWANCE = 4 << 20
"""Bytes a peer may be ahead with besides what the plan foresees: control messages."""


@dataclass
class Show:
    """How a run tells a person where it is; both functions may do nothing."""

    announce: Callable[[str], None] = lambda phase: None
    progress: Progress = lambda section, done, of: None


@dataclass
class Usage:
    """What a run took at this party: rounds, payload bytes, wall and CPU seconds from joining to the end."""

    meter: Meter = field(default_factory=Meter)
    payload_bytes: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def as_fields(self) -> dict[str, Any]:
        """Return the usage as plain fields."""
        return {
            "rounds": self.meter.total_rounds,
            "rounds_online": self.meter.total_rounds - self.meter.rounds.get(Section.PREPARE, 0),
            "payload_bytes": self.payload_bytes,
            "wall_s": round(self.wall_s, 4),
            "cpu_s": round(self.cpu_s, 4),
        }


@dataclass(frozen=True)
class Ready:
    """A party with everything read and checked, before it has spoken to anyone."""

    config: PartyConfig
    number: int
    proposal: Proposal
    identity: Identity = field(repr=False)
    directory: Directory
    snapshot_id: str
    sums: tuple[NDArray[np.int64], ...] | None = field(repr=False)


def read_query(config: PartyConfig, query_path: str | Path) -> tuple[Query, Codebook]:
    """Return the query and this party's codebook. Raises DocumentError."""
    return load_query(query_path), load_codebook(config.path(config.codebook))


def prepare(config_path: str | Path, query_path: str | Path, show: Show) -> Ready:
    """Read and check everything that one party brings to a release, and count its registered records.

    Raises DocumentError, TooFewPartiesError or DataError; nobody else learns of it.
    """
    keep_memory()
    config, roster = load_config(config_path)
    query, codebook = read_query(config, query_path)
    identity = config.own()
    directory = roster.read(config.store(), identity)
    proposal = propose(query, codebook, directory.members)
    check_query(config.accepted(), config.name, query, codebook)
    proposal.plan()  # refuses what could not run, before anybody is troubled
    number = roster.number(config.name)
    if config.data is None:
        return Ready(config, number, proposal, identity, directory, "", None)
    show.announce("count")
    snapshot_id, sums = _count(config, roster, number, query, codebook)
    return Ready(config, number, proposal, identity, directory, snapshot_id, sums)


def _count(
    config: PartyConfig, roster: Roster, number: int, query: Query, codebook: Codebook
) -> tuple[str, tuple[NDArray[np.int64], ...]]:
    # Imported here, for a helper has no records and need not load the table libraries.
    from mpc_engine.silo.tabulate import tabulate

    registration = load_registration(config.path(config.data or ""))
    check_use(registration, codebook.digest(), roster.party[number - 1].count_bound)
    cells = tabulate(query, codebook, registration)
    return registration.snapshot_id, cells.take()


def _credentials(ready: Ready) -> Credentials:
    """Return what this party declares of itself, and whose signatures it takes for whose."""
    config, policy = ready.config, ready.config.accepted()
    source = source_digest()
    parameters = published(
        policy,
        config.name,
        config.dataset or "",
        ready.snapshot_id,
        {"version": __version__, "source": source.hex()},
        silo=ready.proposal.members[ready.number - 1].silo,
    )
    keys = {
        number: tuple(card.public_key for card in cards)
        for number, cards in enumerate(ready.directory.cards, start=1)
    }
    return Credentials(
        ready.identity.signing,
        keys,
        source,
        bytes.fromhex(policy_digest(parameters)),
        tuple(bytes.fromhex(each) for each in policy.engines),
    )


async def take_part(ready: Ready, show: Show, usage: Usage) -> Finished:
    """Join the others for one release; return it with its receipt. If it raises, nothing is released."""
    config = ready.config
    plan = ready.proposal.plan()
    show.announce("connect")
    async with connect(
        ready.number,
        ready.identity,
        ready.directory.endpoints,
        computing=ready.proposal.computing,
        listen_address=config.listen or ready.directory.endpoints[ready.number - 1].address,
        connect_timeout_s=config.deadlines.connect_s,
        round_timeout_s=config.deadlines.round_s,
        max_ahead_bytes=plan.sent_bytes // plan.computing + _CONTROL_ALLOWANCE,
    ) as link:
        session = Session(
            ready.number,
            ready.proposal,
            config.accepted(),
            link,
            ready.snapshot_id,
            ready.sums,
            _credentials(ready),
            agree_timeout_s=config.deadlines.connect_s,
            round_timeout_s=config.deadlines.round_s,
            progress=show.progress,
            announce=show.announce,
        )
        wall, cpu = time.monotonic(), time.process_time()
        try:
            return await session.run()
        finally:
            usage.meter = session.meter
            usage.payload_bytes = link.stats.payload_bytes()
            usage.wall_s = time.monotonic() - wall
            usage.cpu_s = time.process_time() - cpu
