"""Three throw-away parties on this machine, with made-up records, for trials: `mpc-engine dev up`.

Everything about them is as in service – keys, cards, policies, ledgers, ports – except that it is marked DEV,
so that no real configuration accepts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError
from mpc_engine.identity import Card, Terms, TrustStore, create_identity
from mpc_engine.scenario.simulate import free_addresses

SILOS: Final = ("north", "south")
HELPER: Final = "helper"
NAMES: Final = (*SILOS, HELPER)
ANALYST: Final = "alice"
PROJECT: Final = "trial"
ROWS: Final = 400
"""Made-up records of each silo."""
_SEED: Final = 20_260_401
_PARTY: Final = """\
# A throw-away party of a trial on this machine; everything about it is marked DEV.
name = "{name}"
roster = "../roster.toml"
codebook = "../codebook.toml"
identity = "identity"
trust = "trust"
state = "state"
dev = true
{silo}
[policy]
greatest_epsilon = "2"
least_threshold = 5
approval = "{approval}"

[policy.budget]
epsilon = "20"
delta = "0.001"
other_projects = "20"

[deadlines]
connect_s = 30
round_s = 30

[service]
{analysts}health = "{health}"
metrics = "{metrics}"
log = "log.jsonl"
"""
_SILO: Final = 'mapping = "rows.mapping.toml"\ndata = "data"\ndataset = "trial-{name}"\n'
_PROFILE: Final = """\
# What the analyst of the trial asks with: `mpc-engine query submit query.toml --profile analyst.toml`
identity = "{analyst}"
party = "{party}/identity/card.json"
address = "{address}"
codebook = "codebook.toml"
project = "{project}"
trust = "cards"
dev = true
"""


@dataclass(frozen=True)
class Trial:
    """Where the documents of a trial lie."""

    folder: Path

    @property
    def profile(self) -> Path:
        """The analyst's profile."""
        return self.folder / "analyst.toml"

    @property
    def query(self) -> Path:
        """A question to begin with."""
        return self.folder / "query.toml"

    def config(self, name: str) -> Path:
        """Return a party's configuration."""
        return self.folder / name / "party.toml"

    def log(self, name: str) -> Path:
        """Return a party's log."""
        return self.folder / name / "log.jsonl"


def make_trial(folder: Path, *, rows: int = ROWS, manual: Sequence[str] = ()) -> Trial:
    """Make the documents, keys, records and registrations of a trial in `folder`, which must be new or empty.

    `manual` names parties whose operator approves requests; the others' policies do. Raises DocumentError.
    """
    # Imported here, for whoever simulates needs none of it.
    from mpc_engine.silo.dummy import write_records
    from mpc_engine.silo.register import register

    trial = Trial(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DocumentError(f"{folder}: is not empty; a trial begins in a folder of its own")
        for name in ("codebook.toml", "query.toml"):
            (folder / name).write_bytes((Path(__file__).parent / name).read_bytes())
        (folder / "roster.toml").write_text(_roster(), encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"{folder}: cannot be written ({error.strerror})") from None
    addresses = iter(free_addresses(4 * len(NAMES)))
    codebook = load_codebook(folder / "codebook.toml")
    cards = [
        create_identity(name, folder / name / "identity", address=next(addresses), dev=True).card
        for name in NAMES
    ]
    analyst = create_identity(ANALYST, folder / ANALYST, role="analyst", dev=True).card
    desk = ""
    for index, name in enumerate(NAMES):
        home, silo = folder / name, name in SILOS
        _trust(home / "trust", [card for card in cards if card.name != name], analyst if silo else None)
        port = next(addresses)
        desk = desk or port
        text = _PARTY.format(
            name=name,
            silo=_SILO.format(name=name) if silo else "",
            approval="manual" if name in manual else "auto",
            analysts=f'analysts = "{port}"\n' if silo else "",
            health=next(addresses),
            metrics=next(addresses),
        )
        (home / "party.toml").write_text(text, encoding="utf-8")
        if silo:
            register(write_records(codebook, home / "rows.csv", rows, _SEED + index), home / "data")
    _trust(folder / "cards", cards, None)
    trial.profile.write_text(
        _PROFILE.format(analyst=ANALYST, party=SILOS[0], address=desk, project=PROJECT), encoding="utf-8"
    )
    return trial


def _roster() -> str:
    entries = [f'[[party]]\nname = "{name}"\nsilo = {str(name in SILOS).lower()}\n' for name in NAMES]
    return "# Who takes part in the trial; addresses are those of the parties' cards.\n\n" + "\n".join(
        entries
    )


def _trust(folder: Path, cards: Sequence[Card], analyst: Card | None) -> None:
    store = TrustStore(folder, dev=True)
    for card in cards:
        store.add(card, typed=card.fingerprint)
    if analyst is not None:
        store.add_analyst(analyst, Terms(budget="20"), typed=analyst.fingerprint)
