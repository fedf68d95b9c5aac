"""One party of a benchmark: the release job on generated counts, over gRPC with mutual TLS.

Reads its task from a JSON file, says `ready`, waits for a line on standard input, takes part, and
prints what it took as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.job import POLICY, SILOS, check_release, counts_of, proposal_for
from mpc_engine.identity import CARD_FILE, load_card, load_identity
from mpc_engine.party.book import Credentials
from mpc_engine.party.process import keep_memory
from mpc_engine.party.session import Session
from mpc_engine.party.source import source_digest
from mpc_engine.runtime.link import Section
from mpc_engine.transport.endpoint import Endpoint
from mpc_engine.transport.grpc_switchboard import connect

READY = "ready"

_AHEAD_BYTES = 4 << 20


@dataclass(frozen=True)
class Task:
    """What the parties are to do; the identity of party i, with its address, lies in folder i."""

    cells: int
    seed: int
    parties: int


@dataclass(frozen=True)
class Used:
    """What one party used, from just before it listens and dials until its link is closed."""

    cpu_s: float
    wall_s: float
    payload_bytes: int
    messages_per_peer: int
    rounds: int
    rounds_online: int
    control_rounds: int
    rss_mib: float


async def take_part(task: Task, me: int, folder: Path) -> Used:
    """Run the job as party `me` and return what it used. Raises RuntimeError for a wrong release."""
    everyone = range(1, task.parties + 1)
    identity = load_identity(folder / str(me))
    cards = [load_card(folder / str(number) / CARD_FILE) for number in everyone]
    proposal = proposal_for(task.cells, [(card.name, card.fingerprint) for card in cards])
    plan = proposal.plan()
    ahead = plan.sent_bytes // plan.computing + _AHEAD_BYTES  # lays out the noise's circuit, once for each ε
    endpoints = [
        Endpoint(number, card.name, card.address, (card.pinned.pem,))
        for number, card in zip(everyone, cards, strict=True)
    ]
    counts = [counts_of(me, task.cells, task.seed)] if me <= SILOS else None
    keys = {number: (card.public_key,) for number, card in zip(everyone, cards, strict=True)}
    credentials = Credentials(identity.signing, keys, source_digest())
    print(READY, flush=True)
    sys.stdin.readline()  # returns when all parties are ready: here start-up ends
    cpu, wall = time.process_time(), time.monotonic()
    async with connect(
        me,
        identity,
        endpoints,
        computing=plan.computing,
        listen_address=identity.card.address,
        max_ahead_bytes=ahead,
    ) as link:
        session = Session(me, proposal, POLICY, link, "", counts, credentials)
        release = (await session.run()).release
    meter, stats = session.meter, link.stats
    used = Used(
        cpu_s=time.process_time() - cpu,
        wall_s=time.monotonic() - wall,
        payload_bytes=stats.payload_bytes(),
        messages_per_peer=max(stats.messages(peer) for peer in link.peers),
        rounds=meter.total_rounds,
        rounds_online=meter.total_rounds - meter.rounds[Section.PREPARE],
        control_rounds=max(stats.messages(peer, Section.CONTROL) for peer in link.peers),
        rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    check_release(release.published, plan, task.seed)
    return used


def main(task_path: str, me: str) -> None:
    """Be party `me` of the task in this file."""
    keep_memory()
    path = Path(task_path)
    task = Task(**json.loads(path.read_text(encoding="utf-8")))
    print(json.dumps(asdict(asyncio.run(take_part(task, int(me), path.parent)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
