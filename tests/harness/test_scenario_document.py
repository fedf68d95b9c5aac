"""Scenario documents: every rule that can be broken is refused in words that name the key."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError, TooFewPartiesError
from mpc_engine.party.failpoints import FAILPOINTS
from mpc_engine.scenario.document import STAGES, Network, Scenario, changed, load_scenario
from mpc_engine.scenario.expectations import P_LEAST
from mpc_engine.scenario.faults import KINDS

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "scenarios").glob("*.toml"))
WHOLE: dict[str, Any] = {
    "title": "A study",
    "about": "What it shows.",
    "codebook": "codebook.toml",
    "policy": {"greatest_epsilon": "1", "least_threshold": 5},
    "party": [
        {"name": "north", "mapping": "north.toml", "records": {"rows": 100, "seed": 3}},
        {"name": "south", "mapping": "south.toml"},
        {"name": "helper"},
    ],
    "ask": [{"name": "first", "query": "query.toml"}, {"name": "second", "query": "query.toml", "times": 3}],
    "network": {"delay_ms": 40, "link": [{"between": ["north", "helper"], "delay_ms": 80}]},
    "fault": [{"kind": "kill", "party": "helper", "at": "counted", "for_s": 5, "ask": "second"}],
    "expect": [{"kind": "outcome", "ask": "second"}, {"kind": "budget", "spent": "2", "party": "north"}],
}


def scenario(**changes: Any) -> Scenario:
    """Return the scenario above with some keys replaced; None leaves a key out."""
    fields = {**copy.deepcopy(WHOLE), **changes}
    return parse({key: value for key, value in fields.items() if value is not None}, Scenario, "s.toml")


def with_one(key: str, **fields: Any) -> dict[str, Any]:
    """Return the change that puts one table in place of a list of them."""
    return {key: [fields]}


FAULT = {"party": "helper"}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # the document
    ({"codebook": None}, "codebook", "is required and missing"),
    ({"policy": None}, "policy", "is required and missing"),
    ({"party": []}, "party", "must have at least 1 item"),
    ({"titel": "x"}, "titel", "known keys: .*title"),
    ({"title": 201 * "x"}, "title", "at most 200 characters"),
    ({"about": 4001 * "x"}, "about", "at most 4000 characters"),
    ({"seed": -1}, "seed", "at least 0"),
    ({"seed": 2**31 + 1}, "seed", "at most 2147483648"),
    ({"ci": "yes"}, "ci", "must be true or false"),
    ({"runs_in": []}, "runs_in", "must have at least 1 item"),
    ({"runs_in": ["cloud"]}, r"runs_in\[0\]", "'memory', 'processes' or 'network'"),
    ({"deadlines": {"connect_s": 0}}, "deadlines.connect_s", "at least 1"),
    ({"policy": {"greatest_epsilon": "x", "least_threshold": 5}}, "policy.greatest_epsilon", ""),
    # questions
    ({"query": "q.toml"}, "query", "not both"),
    ({"ask": None}, "query", r"or one `\[\[ask\]\]` or more"),
    (with_one("ask", name="Eh?", query="q"), r"ask\[0\].name", ""),
    ({"ask": [{"name": "first", "query": "q"}, {"name": "first", "query": "q"}]}, "ask", "same name"),
    (with_one("ask", name="second", query="q", party="west"), r"ask\[0\].party", "no party 'west'"),
    (with_one("ask", name="second", query="q", times=2, together=2), r"ask\[0\].together", "one of them"),
    (with_one("ask", name="second", query="q", times=0), r"ask\[0\].times", "at least 1"),
    (with_one("ask", name="second", query="q", together=1001), r"ask\[0\].together", "at most 1000"),
    (with_one("ask", name="second", query="q", after_s=-1), r"ask\[0\].after_s", "at least 0"),
    (with_one("ask", name="second", query="q", wait_s=0), r"ask\[0\].wait_s", "greater than 0"),
    (with_one("ask", name="second"), r"ask\[0\].query", "is required and missing"),
    # parties
    ({"party": [*WHOLE["party"], {"name": "north"}]}, "party", "same name"),
    ({"party": [*WHOLE["party"], {"name": "w", "computing": False}]}, r"party\[3\]", "must compute"),
    (
        {"party": [*WHOLE["party"], {"name": "w", "records": {"rows": 1}}]},
        r"party\[3\].records",
        "which names its `mapping` too",
    ),
    ({"party": [*WHOLE["party"], {"name": "No Name"}]}, r"party\[3\].name", ""),
    (
        {"party": [*WHOLE["party"], {"name": "w", "mapping": "m", "records": {"rows": -1}}]},
        r"party\[3\].records.rows",
        "at least 0",
    ),
    (
        {"party": [*WHOLE["party"], {"name": "w", "mapping": "m", "records": {"kind": "real"}}]},
        r"party\[3\].records.kind",
        "'dummy' or 'cells'",
    ),
    # the network
    ({"network": {"delay_ms": -1}}, "network.delay_ms", "at least 0"),
    ({"network": {"jitter_ms": 60_001}}, "network.jitter_ms", "at most 60000"),
    ({"network": {"loss": 1}}, "network.loss", "less than 1"),
    ({"network": {"rate_mbit": 0}}, "network.rate_mbit", "greater than 0"),
    (
        {"network": {"link": [{"between": ["north", "west"]}]}},
        r"network.link\[0\].between",
        "no party 'west'",
    ),
    ({"network": {"link": [{"delay_ms": 1}]}}, r"network.link\[0\].between", "is required and missing"),
    # faults
    (with_one("fault", kind="explode", **FAULT), r"fault\[0\].kind", "must be one of"),
    (with_one("fault", kind="kill"), r"fault\[0\].party", "is required and missing"),
    (with_one("fault", kind="kill", party="west"), r"fault\[0\]", "no party 'west'"),
    (with_one("fault", kind="kill", ask="third", **FAULT), r"fault\[0\].ask", "no question 'third'"),
    (with_one("fault", kind="kill", at="lunch", **FAULT), r"fault\[0\].at", "must be one of begin, reserved"),
    (with_one("fault", kind="kill", after_s=-1, **FAULT), r"fault\[0\].after_s", "at least 0"),
    (with_one("fault", kind="kill", for_s=0, **FAULT), r"fault\[0\].for_s", "greater than 0"),
    (with_one("fault", kind="reset", bytes=-1, **FAULT), r"fault\[0\].bytes", "at least 0"),
    (with_one("fault", kind="slow", factor=0.5, for_s=1, **FAULT), r"fault\[0\].factor", "at least 1"),
    (with_one("fault", kind="tamper", section="ALL", **FAULT), r"fault\[0\].section", "'VALUES'"),
    (with_one("fault", kind="kill", section="TEST", **FAULT), r"fault\[0\].section", "not to `kill`"),
    (with_one("fault", kind="expire", at="agreed", **FAULT), r"fault\[0\].at", "does not go with `expire`"),
    (with_one("fault", kind="expire", ask="first", **FAULT), r"fault\[0\].ask", "does not go with `expire`"),
    (with_one("fault", kind="kill", at="agreed", after_s=2, **FAULT), r"fault\[0\].after_s", "with `at`"),
    (with_one("fault", kind="kill", bytes=3, **FAULT), r"fault\[0\].bytes", "belongs to `reset`"),
    (with_one("fault", kind="kill", factor=3, **FAULT), r"fault\[0\].factor", "belongs to `slow`"),
    (with_one("fault", kind="reset", for_s=3, **FAULT), r"fault\[0\].for_s", "over at once"),
    *(
        (
            {"runs_in": ["memory", "processes"], "fault": [{"kind": kind, "for_s": for_s, **FAULT}]},
            r"fault\[0\].kind",
            "cannot be played on the stage `processes`, which `runs_in` names",
        )
        for kind, for_s in (("partition", 9), ("reset", None))
    ),
    (
        with_one("fault", kind="partition", against=["west"], for_s=1, **FAULT),
        r"fault\[0\]",
        "no party 'west'",
    ),
    # expectations
    (with_one("expect", kind="luck"), r"expect\[0\]", "kind"),
    (with_one("expect", ask="first"), r"expect\[0\]", "the key .kind., which says what this is, is missing"),
    (with_one("expect", kind="outcome", ask="third"), r"expect\[0\]", "no question 'third'"),
    (with_one("expect", kind="outcome", state="DONE"), r"expect\[0\].state", "'RELEASED'"),
    (with_one("expect", kind="outcome", count=-1), r"expect\[0\].count", "at least 0"),
    (with_one("expect", kind="same", other="third"), r"expect\[0\]", "no question 'third'"),
    (with_one("expect", kind="budget"), r"expect\[0\].spent", "is required and missing"),
    (with_one("expect", kind="budget", spent="a lot"), r"expect\[0\].spent", ""),
    (with_one("expect", kind="budget", spent="1", party="west"), r"expect\[0\]", "no party 'west'"),
    (with_one("expect", kind="detected"), r"expect\[0\].within_s", "is required and missing"),
    (with_one("expect", kind="detected", within_s=0), r"expect\[0\].within_s", "greater than 0"),
    (with_one("expect", kind="detected", within_s=1, fault=-1), r"expect\[0\].fault", "at least 0"),
    (with_one("expect", kind="detected", within_s=1), r"expect\[0\].fault", "it has 0, counted from 0"),
    (with_one("expect", kind="cost", rounds=0), r"expect\[0\].rounds", "at least 1"),
    (with_one("expect", kind="cost", rss_mib=0), r"expect\[0\].rss_mib", "greater than 0"),
    (with_one("expect", kind="trips", most=0), r"expect\[0\].most", "at least 1"),
    (with_one("expect", kind="trips", runs=26), r"expect\[0\].runs", "at most 25"),
    (with_one("expect", kind="trips", predicted_within=1), r"expect\[0\].predicted_within", "less than 1"),
    (with_one("expect", kind="truth", tolerance=1), r"expect\[0\].where", "is required and missing"),
    (with_one("expect", kind="truth", where={}), r"expect\[0\].tolerance", "or `errors` in its place"),
    (
        with_one("expect", kind="truth", where={}, tolerance=1, errors=2),
        r"expect\[0\].tolerance",
        "not both",
    ),
    (with_one("expect", kind="pooled"), r"expect\[0\].file", "is required and missing"),
    (with_one("expect", kind="pooled", file="f", tolerance=0), r"expect\[0\].tolerance", "greater than 0"),
    (with_one("expect", kind="noise", p_least=0), r"expect\[0\].p_least", "greater than 0"),
    (with_one("expect", kind="published", least=-1), r"expect\[0\].least", "at least 0"),
    (with_one("expect", kind="coverage"), r"expect\[0\].statistic", "is required and missing"),
    (with_one("expect", kind="coverage", statistic="s", stated=1), r"expect\[0\].stated", "less than 1"),
    (with_one("expect", kind="curator", p_least=1), r"expect\[0\].p_least", "less than 1"),
    (with_one("expect", kind="audit", power=0), r"expect\[0\].power", "greater than 0"),
    (with_one("expect", kind="attack", by="magic"), r"expect\[0\].by", "'averaging'"),
    (with_one("expect", kind="attack", by="coalition", party="west"), r"expect\[0\]", "no party 'west'"),
    (with_one("expect", kind="attack", by="averaging", other="third"), r"expect\[0\]", "no question 'third'"),
    (with_one("expect", kind="keeps", cells=0), r"expect\[0\].cells", "greater than 0"),
    *(
        (with_one("fault", kind=kind, against=["north"], for_s=1, **FAULT), r"fault\[0\].against", kind)
        for kind in sorted(set(KINDS) - {"partition", "reset"})
    ),
    *((with_one("fault", kind=kind, **FAULT), r"fault\[0\].for_s", kind) for kind in ("partition", "slow")),
]


def test_a_whole_scenario_is_read() -> None:
    read = scenario()
    assert [ask.name for ask in read.asks] == ["first", "second"] and read.asks[1].times == 3
    assert read.runs_in == ("processes", "memory", "network") and set(read.runs_in) == set(STAGES)
    assert read.fault[0].parties == ("helper",) and read.fault[0].at in FAILPOINTS
    assert read.expect[0].asks == ("second",) and read.expect[1].parties == ("north",)


@pytest.mark.parametrize(
    ("changes", "key", "words"), REFUSED, ids=[f"{key}-{words}" for _, key, words in REFUSED]
)
def test_a_broken_rule_names_the_key(changes: dict[str, Any], key: str, words: str) -> None:
    if "fault" in changes or "expect" in changes:
        changes = {"fault": [], "expect": []} | changes
    if "ask" in changes:
        changes = {"fault": [], "expect": []} | changes
    with pytest.raises(DocumentError, match=rf"^s\.toml: (?s:.*){key}.*?: .*{words}"):
        scenario(**changes)


def test_a_single_query_is_a_question() -> None:
    read = scenario(ask=None, query="q.toml", fault=[], expect=[])
    assert [(ask.name, ask.query) for ask in read.asks] == [("query", "q.toml")]


def test_a_partition_is_left_to_the_stages_that_can_play_it() -> None:
    part = [{"kind": "partition", "party": "helper", "for_s": 9}]
    assert scenario(fault=part).runs_in == ("memory", "network")
    assert scenario(fault=[{"kind": "kill", "party": "helper"}]).runs_in[0] == "processes"


def test_computing_parties_come_first() -> None:
    parties = [{"name": "x", "mapping": "m", "computing": False}, *WHOLE["party"]]
    assert [party.name for party in scenario(party=parties).ordered] == ["north", "south", "helper", "x"]


def test_too_few_computing_parties(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(
        'codebook = "c.toml"\nquery = "q.toml"\npolicy = { greatest_epsilon = "1", least_threshold = 5 }\n'
        '[[party]]\nname = "a"\nmapping = "a.toml"\n[[party]]\nname = "b"\nmapping = "b.toml"\n'
    )
    with pytest.raises(TooFewPartiesError):
        load_scenario(path)


def test_weather() -> None:
    network = scenario().network
    assert not network.calm and Network().calm
    assert network.between("helper", "north").delay_ms == 80
    assert network.between("south", "north").delay_ms == 40


def test_changes_go_key_by_key() -> None:
    before = {"by": ["a", "b"], "privacy": {"epsilon": "1", "rule": "noisy"}}
    after = changed(before, {"by": ["a"], "privacy": {"epsilon": "0.5"}, "title": "t"})
    assert after == {"by": ["a"], "privacy": {"epsilon": "0.5", "rule": "noisy"}, "title": "t"}
    assert before["by"] == ["a", "b"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_say_what_they_show(path: Path) -> None:
    read = load_scenario(path)
    assert read.title and len(read.about.split()) >= 30
    assert all(getattr(expect, "p_least", P_LEAST) <= 1e-4 for expect in read.expect)  # or it would flake
    named = re.findall(r'"([\w./-]+\.(?:toml|csv|parquet))"', path.read_text(encoding="utf-8"))
    assert named and [name for name in named if not read.path(name).exists()] == []
