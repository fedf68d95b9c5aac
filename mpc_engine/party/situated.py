"""What the process knows of a running party beside the party itself, for `party status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpc_engine.identity import Certificate
from mpc_engine.transport.standing import PeerStats

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Ports:
    """The ports in use; 0 for one that is not open."""

    peers: int = 0
    analysts: int = 0
    health: int = 0
    metrics: int = 0


def status_fields(
    peers: Sequence[Mapping[str, Any]],
    stats: Mapping[str, PeerStats],
    missing: Sequence[str],
    certificate: Certificate,
    ports: Ports,
) -> dict[str, Any]:
    """Return what the answer to ``status`` holds beside the party's own; see :mod:`mpc_engine.party.control`.

    `peers` are the entries of the party's answer, `stats` the connections by name.
    """
    return {
        "peers": [{**peer, **_connection(stats[peer["name"]])} for peer in peers],
        "ready": not missing,
        "missing": list(missing),
        "not_after": certificate.not_after.strftime(_TIME),
        "ports": asdict(ports),
    }


def _connection(stats: PeerStats) -> dict[str, Any]:
    return {
        "since": stats.since.strftime(_TIME),
        "rtt_s": stats.rtt_s,
        "clock_skew_s": stats.clock_skew_s,
        "trouble": "" if stats.connected else stats.last_error,
    }
