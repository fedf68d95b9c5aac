"""A scenario's parties as folders: documents, identities, records and registrations, as operators have them.

trust/                  the cards of all parties, and the analysts' with what they may spend
roster.json
PARTY/party.json        its configuration; identity/, data/, state/ and log.jsonl beside it
analysts/NAME/          an analyst's identity, and a profile for each party that it asks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.documents import read
from mpc_engine.errors import DocumentError
from mpc_engine.harness.sources import own_mapping
from mpc_engine.harness.stage import PROJECT, Show, budgeted, policy_of, terms_under
from mpc_engine.identity import (
    LONGEST_VALIDITY,
    TrustStore,
    activate,
    create_identity,
    rotate,
    utc_now,
)
from mpc_engine.identity.cards import Card
from mpc_engine.release.plan import Member
from mpc_engine.scenario.document import Ask, Scenario, ScenarioParty
from mpc_engine.scenario.simulate import free_addresses

LOOPBACK: Final = "127.0.0.1"
_BACKDATED: Final = timedelta(hours=1)
"""New certificates are valid from an hour ago."""
_BOUND: Final = 1 << 24


@dataclass(frozen=True)
class Home:
    """Where one party's things lie. `analysts` is its analyst port's address, "" where nobody asks it."""

    party: ScenarioParty
    number: int
    folder: Path
    analysts: str

    @property
    def name(self) -> str:
        """The party's name."""
        return self.party.name

    @property
    def silo(self) -> bool:
        """Whether it holds records."""
        return self.party.mapping is not None

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "party.json"

    @property
    def state(self) -> Path:
        """The folder of its ledger."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.folder / "log.jsonl"

    @property
    def errors(self) -> Path:
        """What its process writes to standard error."""
        return self.folder / "errors.txt"


class Layout:
    """The folders of a scenario's parties.

    Attributes:
        homes: by party, in order of their numbers.
        codebook: the scenario's, with which analysts ask.
        members: the parties as the roster has them; the bounds on counts are those of the mappings.
        registered: folder of each silo's registered records, by name, once registered.
    """

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        *,
        address: Callable[[str], str] = lambda party: LOOPBACK,
        validity: Mapping[str, timedelta] | None = None,
    ) -> None:
        """Write everything but the records.

        `address` gives the host at which a party is reached. `validity` tells for how long from now the
        certificates of some parties are valid. Raises DocumentError.
        """
        self.scenario, self.folder = scenario, folder
        self.codebook: Codebook = load_codebook(scenario.path(scenario.codebook))
        self.registered: dict[str, Path] = {}
        self._validity = dict(validity or {})
        self._store = TrustStore(folder / "trust", dev=True)
        ordered = scenario.ordered
        ports = iter(free_addresses(2 * len(ordered)))
        asked = {self.asked_by(ask).name for ask in scenario.asks}
        self.homes: dict[str, Home] = {}
        cards = []
        for number, party in enumerate(ordered, start=1):
            own, analysts = (_at(address(party.name), next(ports)) for _ in range(2))
            home = Home(party, number, folder / party.name, analysts if party.name in asked else "")
            self.homes[party.name] = home
            cards.append(self._identity(home, own))
        bounds = {party.name: self._bound(party) for party in ordered}
        self.members = tuple(
            Member(name, home.party.computing, home.silo, card.fingerprint, bounds[name])
            for (name, home), card in zip(self.homes.items(), cards, strict=True)
        )
        keys = ("name", "computing", "silo", "count_bound")
        roster = [{key: getattr(each, key) for key in keys} for each in self.members]
        write(folder / "roster.json", {"party": roster})
        for home in self.homes.values():
            write(home.config, self._config(home))
        self._enrol()

    def asked_by(self, ask: Ask) -> ScenarioParty:
        """Return the party that a question is handed to. Raises DocumentError if no party holds records."""
        parties = self.scenario.ordered
        if ask.party is not None:
            return next(party for party in parties if party.name == ask.party)
        for party in parties:
            if party.mapping is not None:
                return party
        raise DocumentError(f"{self.scenario.origin}: party: none holds records, so there is nothing to ask")

    def profile(self, analyst: str, party: str) -> Path:
        """Return the profile with which an analyst asks a party."""
        return self.folder / "analysts" / analyst / f"{party}.json"

    def register(self, show: Show) -> None:
        """Register the records of all silos; takes a while. Raises DataError, DocumentError."""
        # Imported here, for whoever only looks at folders needs no table libraries.
        from mpc_engine.silo.register import register

        for home in self.homes.values():
            if home.silo:
                show(f"registering the records of {home.name}")
                self.registered[home.name] = home.folder / "data"
                register(own_mapping(self.scenario, home.party, home.folder), self.registered[home.name])

    def renew(self, name: str) -> None:
        """Give a party new keys that all others trust; it presents them from its next start."""
        identity = self.homes[name].folder / "identity"
        self._store.add(rotate(identity).card)
        activate(identity)

    # --- within -------------------------------------------------------------------------------------

    def _identity(self, home: Home, address: str) -> Card:
        validity = self._validity.get(home.name)
        # What lasts shorter was made earlier: certificates all last equally long.
        began = utc_now() if validity is None else utc_now() + validity + _BACKDATED - LONGEST_VALIDITY
        folder = home.folder / "identity"
        card = create_identity(home.name, folder, address=address, dev=True, clock=lambda: began).card
        self._store.add(card, typed=card.fingerprint)
        return card

    def _bound(self, party: ScenarioParty) -> int:
        if party.mapping is None:
            return _BOUND
        stated = read(self.scenario.path(party.mapping)).get("count_bound", _BOUND)
        return stated if isinstance(stated, int) else _BOUND

    def _config(self, home: Home) -> dict[str, Any]:
        scenario, party = self.scenario, home.party
        service: dict[str, Any] = {"log": home.log.name}
        if home.analysts:
            service["analysts"] = home.analysts
        config: dict[str, Any] = {
            "name": home.name,
            "roster": "../roster.json",
            "codebook": str(scenario.path(party.codebook or scenario.codebook)),
            "identity": "identity",
            "trust": "../trust",
            "dev": True,
            "policy": budgeted(scenario, party),
            "deadlines": scenario.deadlines.model_dump(),
            "service": service,
        }
        if home.silo:
            mapping = str(scenario.path(party.mapping or ""))
            config |= {"mapping": mapping, "data": "data", "dataset": f"scenario-{home.name}"}
        return config

    def _enrol(self) -> None:
        analysts = self.folder / "analysts"
        terms = terms_under(policy_of(self.scenario, each) for each in self.scenario.ordered)
        asked: dict[str, set[str]] = {}
        for ask in self.scenario.asks:
            asked.setdefault(ask.analyst, set()).add(self.asked_by(ask).name)
        for number, (analyst, parties) in enumerate(asked.items(), start=1):
            name = f"analyst{number}.scenario"  # no party's name has a dot
            card = create_identity(name, analysts / analyst / "identity", role="analyst", dev=True).card
            self._store.add_analyst(card, terms, typed=card.fingerprint)
            for party in parties:
                home = self.homes[party]
                fields = {
                    "identity": "identity",
                    "party": str(home.folder / "identity" / "card.json"),
                    "address": home.analysts,
                    "codebook": str(self.scenario.path(self.scenario.codebook)),
                    "project": PROJECT,
                    "trust": str(self.folder / "trust"),
                    "dev": True,
                }
                write(self.profile(analyst, party), fields)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a document as JSON."""
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _at(host: str, free: str) -> str:
    return f"{host}:{free.rpartition(':')[2]}"
