"""Results in plain words: what the explanation says of the question, methods, hidden cells and noise."""

from __future__ import annotations

from typing import Any

from mpc_engine.result import Result
from tests.result.documents import CODEBOOK, COUNT, CROSSTAB, DESCRIBED, MEAN, SURVIVAL, document


def result(query: dict[str, Any], **more: Any) -> Result:
    return Result(document(query, **more), CODEBOOK)


def test_the_explanation_says_what_must_be_known() -> None:
    query = {**SURVIVAL, "where": [{"variable": "sex", "in": ["F"]}, {"variable": "age", "between": [0, 14]}]}
    text = result(query, hide=[0, 2]).explain()
    for words in (
        "among records with sex F and age from 0 to 14 years",
        "The records of uk and us were added up on secret shares",
        "2 of 4 strata are hidden, marked [c], because the count with its noise was below k = 5 (rule noisy)",
        "standard deviation 5.64 on patients and 1.84 on outcomes",
        "Intervals include this noise",
        "ε = 1 (patients 0.25 and outcomes 0.75)",
        "costs twice that, ε = 2",
    ):
        assert words in text, text
    assert "\n" not in text


def test_the_explanation_names_methods_tumours_and_codebook() -> None:
    text = result(SURVIVAL, cases=60, hide=[1]).explain()
    for said in (
        "The question was how survival develops",
        "Of several tumours of a patient only the first takes part. One patient at one silo counts once.",
        "Codebook: made-up, version 1.",
        "survival – Kaplan–Meier, log-log",
        "is shown with all its cells, those with fewer than 5 too",
        "rows marked [t] (beyond the reliable range, because too few are at risk",
    ):
        assert said in text, text
    mean = result({**MEAN, "multiple_primaries": "iarc"}, cases=400).explain()
    assert "Records of unknown age are left out." in mean and "international rules" in mean
    assert "are left out" not in text, "nothing of it can be unknown"


def test_cells_outside_the_filters_are_not_hidden() -> None:
    query = {"preset": "crosstab", "by": ["stage", "sex"], "where": [{"variable": "sex", "in": ["F"]}]}
    made = result(query, hide=[1, 3, 4, 5, 7])  # all of M, and one of F
    if (made.table["flag"] == "z").any():
        assert "1 of 4 cells is hidden" in made.explain()
    else:
        assert "5 of 8 cells are hidden" in made.explain()


def test_pages_name_methods_and_show_what_was_asked_first() -> None:
    made = result({**SURVIVAL, "conditional_on": [1]}, cases=400)
    titles = [page.title for page in made.pages()]
    assert titles[0] == "Survival in % (95 % CI; Kaplan–Meier, log-log)"
    assert titles[1] == "Survival given survival to 1 year in % (95 % CI; Kaplan–Meier, log-log)"
    assert titles[-1] == "Further statistics"


def test_descriptions_stand_beside_labels() -> None:
    query = {"preset": "crosstab", "by": ["sex", "iccc"]}
    made = Result(document(query, codebook=DESCRIBED), DESCRIBED)
    assert list(made.crosstab().columns)[1:4] == ["iccc I Leukaemias, …", "iccc V Retinoblastoma", "iccc VI"]
    assert set(made.table["iccc"]) == {"I", "V", "VI", "VII", "VIII"}, "the table keeps the labels"


def test_the_explanation_of_the_other_rules() -> None:
    strict = {**COUNT, "privacy": {"rule": "strict", "delta": "1e-6"}}
    assert "patients were fewer than k = 5, or the count with its noise was below 1" in (
        result(strict, hide=None).explain()
    )
    exact = result({**COUNT, "privacy": {"rule": "exact"}}, hide=None).explain()
    assert "fewer than k = 5 patients were counted (rule exact)" in exact
    assert "statistical disclosure control, not differential privacy" in exact and "spends" not in exact


def test_the_legend_lists_only_what_is_used() -> None:
    assert result(CROSSTAB).legend() == []
    assert result(CROSSTAB, hide=[0]).legend() == ["[c] suppressed: did not pass the threshold"]
