"""The scenario document: a query, the parties that answer it, and what each brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mpc_engine.documents import Document, Field, broken, load_toml, model_validator
from mpc_engine.party.config import Deadlines
from mpc_engine.party.policy import PolicyDocument
from mpc_engine.sharing.shamir import degree_for


class ScenarioParty(Document):
    """One party of a scenario: a silo names its mapping, a helper none."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
    mapping: str | None = None
    computing: bool = True
    policy: PolicyDocument | None = None


class Scenario(Document):
    """A study that `mpc-engine simulate` runs; paths are relative to the document."""

    title: Annotated[str, Field(max_length=200)] = ""
    query: str
    codebook: str
    policy: PolicyDocument
    # Many processes on one machine take long to start; a party that fails ends the others at once anyway.
    deadlines: Deadlines = Deadlines(connect_s=300, round_s=60)
    party: Annotated[tuple[ScenarioParty, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _parties_fit(self) -> Scenario:
        names = [party.name for party in self.party]
        if len(set(names)) != len(names):
            raise broken("party", "two parties have the same name")
        for index, party in enumerate(self.party):
            if party.mapping is None and not party.computing:
                raise broken(
                    f"party[{index}]", "a party without a mapping holds no records, so it must compute"
                )
        return self

    @property
    def ordered(self) -> list[ScenarioParty]:
        """The parties in order of their numbers: computing ones first."""
        return sorted(self.party, key=lambda party: not party.computing)

    def path(self, relative: str) -> Path:
        """Return a path of this document."""
        return (Path(self.origin).parent / relative).resolve()


def load_scenario(path: str | Path) -> Scenario:
    """Return a scenario.

    Raises DocumentError when it breaks a rule, TooFewPartiesError for fewer than three computing parties.
    """
    scenario = load_toml(path, Scenario)
    degree_for(sum(party.computing for party in scenario.party))
    return scenario
