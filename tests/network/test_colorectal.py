"""Three registries on hosts of their own set up as the guide says: net survival of colorectal cancer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mpc_engine.harness.namespaces import obstacle
from tests.network.guide import ROOT, Guide
from tests.network.hosts import hosts
from tests.network.study import PARTIES, Study

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())

NAMES = dict(zip(PARTIES, ("a", "b", "c"), strict=True))
CHANGES = {
    "wilms": "colorectal",
    "stage_by_histology": "net_survival_by_stage",
    'count = "auto", crosstab = "auto", survival = "manual"': 'net_survival = "auto"',
    "\nsilo = false": "",
}
RECORDS = {"1": 893, "2": 3313, "3": 1369, "unknown": 396}
"""How many patients the three files hold in each stage, age and year being no matter."""


def test_three_registries_answer_an_analyst(tmp_path: Path) -> None:
    with hosts(tmp_path, (*NAMES.values(), "alice"), {}) as made:
        study = Study(Guide.read(), made, NAMES, CHANGES, PARTIES)
        try:
            study.write_documents()
            _give_records_to_the_third(study)
            study.enrol()
            study.register()
            study.enrol_alice()
            study.start()
            study.prepare_alice()
            study.ask_first()
            _compare(study.host("alice").home / "first")
            _fetch_again(study)
        finally:
            print(study.transcript())


def _give_records_to_the_third(study: Study) -> None:
    """The guide's helper has no records; here the third is a registry, configured as the first."""
    config = study.guide.document('name = "uk"\nroster').replace("uk", "helper")
    before, _, _ = config.partition("analysts = ")
    _, _, after = config.partition('8570"\n')
    study.host("helper").write("/etc/mpc-engine/c/party.toml", study.here(before + after))


def _compare(folder: Path) -> None:
    """Patients by stage are the files', and net survival of all is near relsurv's of all ages."""
    rows = list(csv.DictReader((folder / "table.csv").open()))
    found = {
        row["stage"]: float(row["value"])
        for row in rows
        if row["statistic"] == "patients" and row["age_10"] == "(all)" and row["stage"] != "(all)"
    }
    assert found.keys() == RECORDS.keys()
    for stage, held in RECORDS.items():
        assert abs(found[stage] - held) < 64, (stage, found[stage])
    with (ROOT / "data/references/netsurv/relsurv_fixed_times.csv").open() as file:
        truth = {
            float(row["time_days"]) / 365.241: float(row["net_surv"])
            for row in csv.DictReader(file)
            if (row["dataset"], row["method"], row["stratum"]) == ("colrec", "pohar-perme", "all")
        }
    shown = {
        float(row["time"]): float(row["value"])
        for row in rows
        if row["statistic"] == "net_survival" and row["stage"] == row["age_10"] == "(all)"
    }
    for year in (1.0, 3.0, 5.0):
        assert abs(shown[year] - truth[year]) < 0.02, (year, shown[year], truth[year])


def _fetch_again(study: Study) -> None:
    """The same release is there for who asks again, and its receipt holds."""
    alice = study.host("alice")
    alice.run("mpc-engine query submit net_survival_by_stage.toml --wait --out second")
    first, second = ((alice.home / name / "receipt.json").read_bytes() for name in ("first", "second"))
    assert first == second
    assert "✗" not in alice.run("mpc-engine receipt verify second --trust cards")
