"""Checks against truths: references of other software, single statistics, intervals, what pooling keeps."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.ultra_rare import draw
from mpc_engine.errors import EngineError
from mpc_engine.harness.answers import opened_of
from mpc_engine.harness.blocks import Figure, Table, Text
from mpc_engine.harness.chapters.utility import utility as chapter
from mpc_engine.harness.checks import utility
from mpc_engine.harness.record import Asked, Run
from mpc_engine.scenario.expectations import Coverage, Keeps, Pooled, Truth
from tests.harness import played, references
from tests.harness.played import ROOT

SHIPPED = ("rare_cells", "ultra_rare")
"""Those that are looked at here; `pytest scenarios/` plays all of them."""


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played.play(ROOT / f"scenarios/{request.param}.toml", tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def wilms(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played.play(
        ROOT / "scenarios/wilms.toml", tmp_path_factory.mktemp("wilms"), ["stage_by_histology", "mean_age"]
    )


CHECKS: dict[str, Any] = {
    "pooled": utility.pooled,
    "truth": utility.truth,
    "noise": utility.noise,
    "published": utility.published,
    "coverage": utility.coverage,
    "curator": utility.curator,
    "keeps": utility.keeps,
}


def test_shipped_scenarios_keep_what_they_promise(shipped: Run) -> None:
    looked_at = [each for each in shipped.scenario.expect if each.kind in CHECKS]
    assert {each.kind for each in looked_at} & {"pooled", "keeps"} and shipped.scenario.about
    for expectation in looked_at:
        for verdict in CHECKS[expectation.kind](shipped, expectation):
            assert verdict.holds, verdict


def test_the_chapter_has_every_question(shipped: Run) -> None:
    blocks = chapter(shipped)
    assert sum(isinstance(each, Text) for each in blocks) >= len(shipped.scenario.asks)
    figures = [each for each in blocks if isinstance(each, Figure)]
    assert len(figures) == 2 * len(shipped.scenario.asks)
    assert all(each.svg.lstrip().startswith("<svg") for each in figures)
    tables = [each for each in blocks if isinstance(each, Table)]
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.caption
        assert set(table.digits) <= set(table.columns)
    left = [each for each in tables if each.caption.startswith("What is left")]
    if shipped.scenario.name == "ultra_rare":
        totals = {row[0]: row[-1] for row in left[0].rows}
        assert totals["masked at each site, the rest summed"] == 43
        assert totals["pooled under MPC"] == pytest.approx(10.84, abs=0.01)


@pytest.mark.parametrize("name", references.TABLES)
def test_references_are_the_other_softwares_numbers(name: str) -> None:
    assert (references.REFERENCES / name).read_text(encoding="utf-8") == references.text(name)


def test_a_reference_that_is_off_is_found(wilms: Run, tmp_path: Path) -> None:
    rows = (references.REFERENCES / "nwtco/table_stage_by_histology.csv").read_text()
    file = tmp_path / "reference.csv"
    for text, holds in ((rows, True), (rows.replace("1446", "1447"), False), (rows[:27], False)):
        file.write_text(text)
        (verdict,) = utility.pooled(wilms, Pooled(kind="pooled", file=str(file)))
        assert verdict.holds is holds, verdict
    file.write_text("statistic,stage,value\ncount,V,3\n")
    with pytest.raises(EngineError, match="no row has stage = 'V'; there is I, II, III, IV"):
        utility.pooled(wilms, Pooled(kind="pooled", file=str(file)))
    with pytest.raises(EngineError, match="cannot be read"):
        utility.pooled(wilms, Pooled(kind="pooled", file=str(tmp_path / "none.csv")))


def test_records_coded_wrongly_are_found(wilms: Run) -> None:
    asked = wilms.asked[0]
    sums = wilms.sums(asked)
    swapped = {"uk": [row.reshape(2, 4, 2)[:, :, ::-1].reshape(-1) for row in sums["uk"]], "us": sums["us"]}
    run = replace(wilms, _sums={**wilms._sums, asked.query.digest(): swapped})
    (expectation,) = [e for e in wilms.scenario.expect if e.kind == "pooled" and e.ask is None]
    (verdict,) = utility.pooled(run, expectation)
    assert not verdict.holds


def cell(**fields: Any) -> Truth:
    return Truth(kind="truth", where={"statistic": "count", "stage": "I", "histology": "FH"}, **fields)


def test_a_single_truth(wilms: Run) -> None:
    for fields, holds in (
        ({"value": 1446.0, "errors": 12.0}, True),
        ({"errors": 12.0}, True),
        ({"value": 1446.0, "tolerance": 20.0}, True),
        ({"value": 1480.0, "errors": 12.0}, False),
        ({"value": 1480.0, "tolerance": 12.0}, False),
    ):
        (verdict,) = utility.truth(wilms, cell(**fields))
        assert verdict.holds is holds, verdict
    where: dict[str, Any] = {"statistic": "mean", "stage": "I"}
    # Sampling counts for a truth of its own; for one of the same records it does not.
    own = Truth(kind="truth", ask="mean_age", where=where, value=32.4637404580153, errors=3.0)
    wide, narrow = (utility.truth(wilms, each)[0].claim for each in (own, replaced(own, value=None)))
    assert float(wide.split()[-1][:-1]) > 1.5 * float(narrow.split()[-1][:-1])
    with pytest.raises(EngineError, match="picks 4 rows"):
        utility.truth(wilms, replaced(own, where={"statistic": "mean"}))
    with pytest.raises(EngineError, match="no column 'sex'"):
        utility.truth(wilms, replaced(own, where={"statistic": "mean", "sex": "f"}))


def replaced(expectation: Truth, **fields: Any) -> Truth:
    return expectation.model_copy(update=fields)


def suppressed(asked: Asked, at: int) -> Asked:
    assert asked.release is not None
    values = list(asked.release["groups"][0]["tallies"][0]["values"])
    values[at] = None
    return played.doctored(asked, values)


def test_what_is_hidden_is_not_the_truth(wilms: Run) -> None:
    run = replace(wilms, asked=[suppressed(wilms.asked[0], 0)], _sums=wilms._sums)
    (verdict,) = utility.truth(run, cell(errors=12.0))
    assert not verdict.holds and "flag c" in verdict.found


def test_intervals_that_miss_are_found(tmp_path: Path) -> None:
    counts = {name: np.full(60, size, np.int64) for name, size in (("a", 40), ("b", 30), ("c", 10))}
    run, query = played.table(tmp_path, counts)
    played.answer(run, "query", query, {name: played.rows(each) for name, each in counts.items()}, 4)
    expectation = Coverage(kind="coverage", statistic="count")
    assert utility.coverage(run, expectation)[0].holds
    values = opened_of(run.asked[0]).groups["cells"].guard.values
    moved = [int(each) + (40 if number % 3 == 0 else 0) for number, each in enumerate(values)]
    wrong = replace(run, asked=[played.doctored(run.asked[0], moved)], _sums=run._sums)
    assert not utility.coverage(wrong, expectation)[0].holds
    assert not utility.coverage(run, Coverage(kind="coverage", statistic="nothing"))[0].holds


def test_pooling_that_keeps_nothing_more_is_found(wilms: Run) -> None:
    """Two registries with large cells lose nothing by masking: there the noise is a loss."""
    assert not utility.keeps(wilms, Keeps(kind="keeps", precision=1))[0].holds
    cells, precision = utility.keeps(wilms, Keeps(kind="keeps", cells=1.01, precision=0.1))
    assert not cells.holds and not precision.holds


def test_the_sixty_patients_are_drawn_again() -> None:
    for hospital, expected in enumerate(draw.drawn()):
        with (draw.HERE / f"silo_U{hospital}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == draw.SIZES[hospital]
        for row, source in zip(rows, expected, strict=True):
            assert all(row[name] == source[name] for name in ("age_band", "stage", "rel", "edrel"))
            assert source["histol"] == "UH"
    assert draw.SIZES == (22, 15, 11, 8, 4)
