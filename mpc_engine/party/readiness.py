"""Whether a party could make a release now, and what is missing if not: for probes, metrics and operators."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from mpc_engine.identity import Card, expiry_warning
from mpc_engine.party.journal import Journal

LEAST_FREE_BYTES: Final = 128 << 20
"""Free space on the ledger's disk below which a party does not count as ready."""

Missing = Literal[
    "SHUTTING_DOWN",
    "LEDGER_BROKEN",
    "LEDGER_ROLLBACK",
    "DISK_FULL",
    "CERT_EXPIRED",
    "DATA",
    "PEER_UNAVAILABLE",
]
"""What may be missing."""
ALONE: Final[frozenset[Missing]] = frozenset(("LEDGER_ROLLBACK", "DATA", "PEER_UNAVAILABLE"))
"""What keeps a party from releases, but not from taking requests and answering about them."""


@dataclass(frozen=True)
class Condition:
    """How a party stands at one moment."""

    stopping: bool
    ledger_broken: bool
    behind: bool
    """Whether peers have seen more of its ledger than there is, as after a restored backup."""
    free_bytes: int
    not_after: datetime
    """When its own certificate ends."""
    silo: bool
    snapshot: str
    """The registered snapshot that can be counted, "" if there is none."""
    peers_up: bool

    def missing(self, now: datetime) -> tuple[Missing, ...]:
        """Return what is missing at `now` for a release; () if the party is ready."""
        found: dict[Missing, bool] = {
            "SHUTTING_DOWN": self.stopping,
            "LEDGER_BROKEN": self.ledger_broken,
            "LEDGER_ROLLBACK": self.behind,
            "DISK_FULL": self.free_bytes < LEAST_FREE_BYTES,
            "CERT_EXPIRED": now >= self.not_after,
            "DATA": self.silo and not self.snapshot,
            "PEER_UNAVAILABLE": not self.peers_up,
        }
        return tuple(name for name, holds in found.items() if holds)


def free_bytes(folder: Path) -> int:
    """Return the free space on a folder's disk, 0 if it cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


class ExpiryWatch:
    """Notes in the journal that certificates end soon: at each threshold, and then once a day."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._said: dict[str, tuple[int, datetime]] = {}

    def look(self, cards: tuple[Card, ...], now: datetime) -> None:
        """Look at the card that each party uses now."""
        for card in cards:
            warning = expiry_warning(card, now)
            if warning is None:
                self._said.pop(card.name, None)
                continue
            said = self._said.get(card.name)
            if said is None or said[0] != warning.within or now - said[1] >= timedelta(days=1):
                self._said[card.name] = (warning.within, now)
                self._journal(
                    "certificate.expires", party=card.name, within=warning.within, days=warning.days
                )
