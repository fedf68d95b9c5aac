"""A party's documents, all read and checked together: its situation, or the document that is at fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.identity import Analyst, Clock, Identity, TrustStore, utc_now
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.roster import Roster
from mpc_engine.party.situation import Deadlines, Situation

DOCUMENTS: Final = ("configuration", "identity", "roster", "codebook", "analysts")
"""What is read, in this order."""


@dataclass(frozen=True)
class Dossier:
    """A party's configuration, its roster's document, and what follows from all of them."""

    config: PartyConfig
    roster: Roster
    situation: Situation

    @property
    def data(self) -> Path | None:
        """The folder of the registered records, None at a helper."""
        return None if self.config.data is None else self.config.path(self.config.data)

    @property
    def state(self) -> Path:
        """The folder of the ledger."""
        return self.config.path(self.config.state)

    @property
    def count_bound(self) -> int:
        """The greatest bound on counts with which this party's records may be registered."""
        return self.roster.party[self.situation.number - 1].count_bound

    def needs_restart_after(self, old: Dossier) -> bool:
        """Return whether something changed that only a start takes on: parties, folders or ports."""
        kept = ("name", "identity", "listen", "data", "dataset", "trust", "state", "dev")
        ports = ("analysts", "health", "metrics", "log")
        return (
            any(getattr(old.config, key) != getattr(self.config, key) for key in kept)
            or any(getattr(old.config.service, key) != getattr(self.config.service, key) for key in ports)
            or old.roster.party != self.roster.party
        )


def read_dossier(
    config_path: str | Path,
    *,
    clock: Clock = utc_now,
    reached: Callable[[str], None] = lambda document: None,
    identity: Identity | None = None,
    timely: bool = True,
) -> Dossier:
    """Return a party's documents.

    `reached` is told each of `DOCUMENTS` before it is read, so that whoever calls knows which one is at
    fault. `identity` is the one that a running party presents, which it keeps until its next start. Raises
    DocumentError, TooFewPartiesError, or CertificateError if the party's certificate has expired or, if
    `timely`, a peer's: a service starts without that peer and waits for its new card.
    """
    reached("configuration")
    config, roster = load_config(config_path)
    config.check_service()
    policy = config.accepted()
    reached("identity")
    identity = identity or config.own()
    reached("roster")
    trust = TrustStore(config.path(config.trust), dev=config.dev, clock=clock)
    directory = roster.read(trust, identity, timely=timely)
    reached("codebook")
    codebook: Codebook = load_codebook(config.path(config.codebook))
    reached("analysts")
    analysts: dict[str, Analyst] = {}
    for analyst in trust.analysts():
        analysts |= {card.fingerprint: analyst for card in analyst.cards}
    revoked = frozenset(
        card.name for card in (each.read() for each in trust.revoked()) if card.role == "analyst"
    )
    situation = Situation(
        roster.number(config.name),
        directory,
        identity,
        policy,
        config.dataset or "",
        codebook,
        analysts,
        Deadlines(config.deadlines.connect_s, config.deadlines.round_s, config.service.session_s),
        config.service.most_sessions,
        config.dev,
        revoked,
    )
    return Dossier(config, roster, situation)
