"""The scenario document: a study with its parties, their data, a network, faults, and what is to come of it.

`mpc-engine simulate` plays its first question once and reads neither faults nor expectations; the harness
(`mpc-engine scenario run`) plays all of it. Paths are relative to the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from mpc_engine.documents import Document, Field, broken, load_toml, model_validator
from mpc_engine.party.config import Deadlines
from mpc_engine.party.policy import PolicyDocument
from mpc_engine.scenario.expectations import Detected, Expectation
from mpc_engine.scenario.faults import OF_THE_NETWORK, Fault
from mpc_engine.sharing.shamir import degree_for

Stage = Literal["memory", "processes", "network"]
"""Where a scenario is played: in one process on virtual time, as processes on this machine, or as processes
in network namespaces of their own with real delays below TCP."""
STAGES: tuple[Stage, ...] = get_args(Stage)
_USUAL: tuple[Stage, ...] = ("processes", "memory", "network")
"""Where a scenario is played that does not say."""
PartyName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
AskName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]


class Generated(Document):
    """Made-up records in place of a file: as many as `rows`, the same for the same `seed`.

    `kind` ``dummy`` draws each column from the codebook; ``cells`` fills every cell of the first question,
    see `mpc_engine.harness.records`.
    """

    kind: Literal["dummy", "cells"] = "dummy"
    rows: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    seed: Annotated[int, Field(ge=0)] = 1


class ScenarioParty(Document):
    """One party of a scenario: a silo names its mapping, a helper none.

    `codebook`, `policy` replace the scenario's; `records` replaces the mapping's source.
    """

    name: PartyName
    mapping: str | None = None
    computing: bool = True
    policy: PolicyDocument | None = None
    codebook: str | None = None
    records: Generated | None = None


class Ask(Document):
    """One question, asked by one analyst: handed in `after_s` seconds after the previous one has ended.

    `change` replaces keys of the query, tables key by key. `times` asks the very same again under other keys,
    one after the other; `together` hands in so many at once, each with a title of its own and so a
    question of its own.
    """

    name: AskName
    query: str
    change: dict[str, Any] = Field(default_factory=dict)
    analyst: AskName = "analyst"
    party: PartyName | None = None
    times: Annotated[int, Field(ge=1, le=1_000)] = 1
    together: Annotated[int, Field(ge=1, le=1_000)] = 1
    after_s: Seconds = 0
    wait_s: Annotated[float, Field(gt=0, le=10_000_000)] = 600

    @model_validator(mode="after")
    def _one_way_to_repeat(self) -> Ask:
        if self.times > 1 and self.together > 1:
            raise broken(
                "together", "asks different questions at once, `times` the same one; use one of them"
            )
        return self


class Weather(Document):
    """How messages travel between two parties, each way."""

    delay_ms: Annotated[float, Field(ge=0, le=60_000)] = 0
    jitter_ms: Annotated[float, Field(ge=0, le=60_000)] = 0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0
    rate_mbit: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


class LinkWeather(Weather):
    """The weather between two parties, in place of the network's."""

    between: tuple[PartyName, PartyName]


class Network(Weather):
    """The network; delays are one way. In one process loss is a longer delay, as TCP would make it."""

    link: tuple[LinkWeather, ...] = ()

    @property
    def calm(self) -> bool:
        """Whether messages travel as fast as the machine carries them."""
        weathers: tuple[Weather, ...] = (self, *self.link)
        return not any(w.delay_ms or w.jitter_ms or w.loss or w.rate_mbit for w in weathers)

    def between(self, one: str, two: str) -> Weather:
        """Return the weather between two parties."""
        return next((link for link in self.link if set(link.between) == {one, two}), self)


class Scenario(Document):
    """A study. `about` says in prose what it shows; `ci` whether it is in the subset that is always run.

    `query` stands for one `ask`.
    """

    title: Annotated[str, Field(max_length=200)] = ""
    about: Annotated[str, Field(max_length=4_000)] = ""
    query: str | None = None
    ask: Annotated[tuple[Ask, ...], Field(max_length=100)] = ()
    codebook: str
    policy: PolicyDocument
    # Many processes on one machine take long to start; a party that fails ends the others at once anyway.
    deadlines: Deadlines = Deadlines(connect_s=300, round_s=60)
    party: Annotated[tuple[ScenarioParty, ...], Field(min_length=1, max_length=200)]
    runs_in: Annotated[tuple[Stage, ...], Field(min_length=1)] = _USUAL
    seed: Annotated[int, Field(ge=0, le=2**31)] = 1
    ci: bool = True
    network: Network = Network()
    fault: Annotated[tuple[Fault, ...], Field(max_length=100)] = ()
    expect: Annotated[tuple[Expectation, ...], Field(max_length=100)] = ()

    @model_validator(mode="before")
    @classmethod
    def _where_it_can(cls, data: Any) -> Any:
        """Leave stages that cannot play its faults out of the usual ones."""
        faults = data.get("fault") if isinstance(data, Mapping) else None
        if not isinstance(faults, list | tuple) or "runs_in" in data:
            return data
        if any(isinstance(each, Mapping) and each.get("kind") in OF_THE_NETWORK for each in faults):
            return {**data, "runs_in": tuple(stage for stage in _USUAL if stage != "processes")}
        return data

    @model_validator(mode="after")
    def _stages_fit(self) -> Scenario:
        for index, fault in enumerate(self.fault):
            if fault.kind in OF_THE_NETWORK and "processes" in self.runs_in:
                raise broken(
                    f"fault[{index}].kind",
                    f"`{fault.kind}` cannot be played on the stage `processes`, which `runs_in` names; it "
                    "can on `memory` and `network`",
                )
        for index, expect in enumerate(self.expect):
            if isinstance(expect, Detected) and expect.fault >= len(self.fault):
                raise broken(
                    f"expect[{index}].fault",
                    f"there is no fault {expect.fault} in this scenario: it has {len(self.fault)}, counted "
                    "from 0",
                )
        return self

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
            if party.records is not None and party.mapping is None:
                raise broken(f"party[{index}].records", "belongs to a silo, which names its `mapping` too")
        return self

    @model_validator(mode="after")
    def _questions_fit(self) -> Scenario:
        if (self.query is None) == (not self.ask):
            raise broken("query", "is required, or one `[[ask]]` or more in its place; not both")
        names = [ask.name for ask in self.asks]
        if len(set(names)) != len(names):
            raise broken("ask", "two questions have the same name")
        known = {party.name for party in self.party}
        for index, link in enumerate(self.network.link):
            _all_known(link.between, known, f"network.link[{index}].between", "party")
        for index, fault in enumerate(self.fault):
            _all_known(fault.parties, known, f"fault[{index}]", "party")
            _all_known(() if fault.ask is None else (fault.ask,), names, f"fault[{index}].ask", "question")
        for index, expect in enumerate(self.expect):
            _all_known(expect.asks, names, f"expect[{index}]", "question")
            _all_known(expect.parties, known, f"expect[{index}]", "party")
        for index, ask in enumerate(self.ask):
            _all_known(() if ask.party is None else (ask.party,), known, f"ask[{index}].party", "party")
        return self

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What is asked, in order."""
        if self.query is None:
            return self.ask
        return (Ask(name="query", query=self.query),)

    @property
    def ordered(self) -> list[ScenarioParty]:
        """The parties in order of their numbers: computing ones first."""
        return sorted(self.party, key=lambda party: not party.computing)

    @property
    def name(self) -> str:
        """The document's name without its ending."""
        return Path(self.origin).stem

    def key(self, ask: Ask) -> str:
        """Return the key under which a question stands in the document, such as ``ask[1]``."""
        return "" if self.query is not None else f"ask[{self.ask.index(ask)}]"

    def path(self, relative: str) -> Path:
        """Return a path of this document."""
        return (Path(self.origin).parent / relative).resolve()


def _all_known(names: Any, known: Any, path: str, what: str) -> None:
    for name in names:
        if name not in known:
            raise broken(path, f"there is no {what} {name!r} in this scenario")


def changed(fields: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document's fields with some replaced, tables key by key."""
    merged = dict(fields)
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = changed(old, value) if both else value  # type: ignore[arg-type]
    return merged


def load_scenario(path: str | Path) -> Scenario:
    """Return a scenario.

    Raises DocumentError when it breaks a rule, TooFewPartiesError for fewer than three computing parties.
    """
    scenario = load_toml(path, Scenario)
    degree_for(sum(party.computing for party in scenario.party))
    return scenario
