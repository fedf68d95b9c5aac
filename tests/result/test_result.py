"""Results from release documents: the table, its files, its layouts, its words, and what is refused."""

from __future__ import annotations

import io
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError, MismatchError
from mpc_engine.result import Result
from mpc_engine.result.result import MOST_ROWS
from tests.result.documents import (
    BOOK,
    CODEBOOK,
    COUNT,
    CROSSTAB,
    HISTOGRAM,
    MEAN,
    SURVIVAL,
    document,
)

ALL = {"survival": SURVIVAL, "crosstab": CROSSTAB, "histogram": HISTOGRAM, "mean": MEAN, "count": COUNT}
NUMBERS = ["time", "n_shown", "value", "lcl", "ucl", "se_sampling", "se_noise"]


def result(query: dict[str, Any], **more: Any) -> Result:
    return Result(document(query, **more), CODEBOOK)


# --- the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_columns_are_typed_and_in_order(name: str) -> None:
    made = result(ALL[name])
    table = made.table
    rest = ["statistic", "time", "n_shown", "value", "display", "lcl", "ucl", "se_sampling", "se_noise"]
    assert list(table.columns) == ["preset", *made.variables, *rest, "ci_method", "standard", "flag", "note"]
    for column in table.columns:
        if column in NUMBERS:
            assert table[column].dtype == np.float64
        elif column in ("display", "ci_method", "standard", "note"):
            assert table[column].dtype == "string"
        else:
            assert isinstance(table[column].dtype, pd.CategoricalDtype)
    assert table["flag"].isin(["ok", "c", "t", "u", "z", "x"]).all()


def test_counts_are_those_of_the_document() -> None:
    release = document(CROSSTAB, hide=(1, 4))
    table = Result(release, CODEBOOK).table
    cells = table[table["statistic"] == "count"]
    published = release["groups"][0]["tallies"][0]["values"]
    assert [None if np.isnan(value) else value for value in cells["value"]] == published
    assert list(cells["display"][cells["flag"] == "c"]) == ["[c]", "[c]"]
    assert cells[cells["flag"] == "c"][["value", "lcl", "ucl", "se_noise"]].isna().all(axis=None)


@pytest.mark.parametrize("name", ALL)
def test_with_everything_hidden_no_row_is_missing_and_none_is_zero(name: str) -> None:
    shown, hidden = result(ALL[name]).table, result(ALL[name], hide=None).table
    of_groups = hidden[~hidden["statistic"].astype(str).str.startswith(("log_rank", "degrees", "chi", "p_"))]
    assert set(hidden["statistic"]) == set(shown["statistic"])
    assert len(hidden) == len(shown)
    assert of_groups["value"].isna().all() and (of_groups["display"].str.match(r"\[[cxz]\]")).all()


def test_a_negative_number_is_raw_in_value_and_zero_in_display() -> None:
    release = document(COUNT)
    release["groups"][0]["tallies"][0]["values"] = [-3]
    made = Result(release, CODEBOOK)
    assert (made.table["value"][0], made.table["display"][0]) == (-3.0, "0")
    assert list(made.crosstab()["n"]) == ["0"]


def test_one_cell_without_variables() -> None:
    made = result(COUNT, cases=400)
    assert made.variables == [] and len(made.table) == 1
    assert made.layout().shape == (1, 1)
    assert "Nothing is hidden of 1 count" in made.explain()


def test_a_survival_of_all_together() -> None:
    made = result({**SURVIVAL, "by": []}, cases=300)
    assert len(made.summary()) == 1
    assert list(made.summary().columns) == ["n", "1 year", "3 years", "5 years", "10 years"]
    assert len(made.life_table()) == 10


def test_a_prompt_shows_what_it_is_and_a_notebook_its_tables() -> None:
    made = result({**CROSSTAB, "title": "A <b> & c"}, cases=50, hide=(0, 3))
    cells = "cells: 6 shown, 2 hidden; stage totals: "
    assert repr(made).startswith(f"<Result “A <b> & c”: ε = 1, k = 5; {cells}") and "\n" not in repr(made)
    page = made._repr_html_()
    assert "A &lt;b&gt; &amp; c" in page and "<b>" not in page
    assert page.count("<table") == len(made.pages()) and "[c]" in page and "suppressed" in page


def test_a_notebook_is_not_flooded() -> None:
    made = result({"preset": "crosstab", "by": ["place", "sex"]}, cases=20)
    assert made._repr_html_().count("<tr") < 70  # the middle of a long table is left out
    made = result({"preset": "crosstab", "by": ["place", "stage"]}, cases=20)
    assert len(made.table) > MOST_ROWS and made._repr_html_() == f"<p>{escape(repr(made))}</p>"


def test_ten_thousand_rows() -> None:
    made = result({"preset": "crosstab", "by": ["place", "stage"]}, hide=range(0, 10_000, 7))
    assert len(made.table) == 10_000
    assert (made.table["flag"] == "c").sum() == len(range(0, 10_000, 7))
    assert made.crosstab().shape == (2500, 5)
    assert made.to_csv().count("\n") == 10_001


# --- CSV and JSON -------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(ALL)),
    seed=st.integers(0, 2**20),
    cases=st.sampled_from([6, 40, 900]),
    hide=st.sets(st.integers(0, 9)),
)
def test_csv_comes_back_as_it_was(name: str, seed: int, cases: int, hide: set[int]) -> None:
    table = result(ALL[name], cases=cases, seed=seed, hide=sorted(hide)).table
    made = result(ALL[name], cases=cases, seed=seed, hide=sorted(hide))
    texts = [column for column in table.columns if column not in NUMBERS]
    read = pd.read_csv(
        io.StringIO(made.to_csv()),
        dtype=dict.fromkeys(texts, str) | dict.fromkeys(NUMBERS, np.float64),
        na_values={column: [""] for column in NUMBERS},
        keep_default_na=False,
        float_precision="round_trip",
    )
    assert list(read.columns) == list(table.columns)
    for column in NUMBERS:
        np.testing.assert_array_equal(read[column], table[column])
    for column in texts:
        assert list(read[column]) == list(table[column].astype(str))


def test_json_holds_the_same_records_and_the_parameters(tmp_path: Path) -> None:
    made = result(SURVIVAL, cases=400, hide=[3], beyond=60)
    fields = json.loads(made.to_json(tmp_path / "result.json"), parse_constant=pytest.fail)
    assert json.loads((tmp_path / "result.json").read_text()) == fields
    assert fields["parameters"] == made.parameters
    table = pd.DataFrame(fields["table"])
    assert list(table.columns) == list(made.table.columns)
    for column in NUMBERS:
        np.testing.assert_array_equal(table[column].astype(np.float64), made.table[column])
    assert "Inf" in list(table["ucl"]), "a median that is not reached"


def test_parameters_name_guarantee_split_noise_digests_and_promise() -> None:
    release = document(SURVIVAL)
    given_ = Result(release, CODEBOOK).parameters
    assert (given_["rule"], given_["k"], given_["cap"], given_["epsilon"]) == ("noisy", 5, 1, "1")
    assert [(part["part"], part["epsilon"]) for part in given_["split"]] == [
        ("patients", "0.25"),
        ("outcomes", "0.75"),
    ]
    for part in given_["split"]:
        assert float(part["noise_standard_deviation"]) == pytest.approx(
            float(part["noise_variance"]) ** 0.5, abs=1e-4
        )
    assert given_["digests"]["codebook"] == CODEBOOK.digest()
    assert {"query", "plan"} <= set(given_["digests"])
    assert given_["promise"] == release["promise"]
    assert "differential privacy with epsilon = 1" in given_["guarantee"]


# --- layouts ------------------------------------------------------------------------------------------


def test_a_crosstab_is_wide_with_totals_of_their_own() -> None:
    release = document(CROSSTAB, hide=(1,))
    frame = Result(release, CODEBOOK).crosstab()
    assert list(frame.columns) == ["stage", "sex F", "sex M", "Total"]
    assert list(frame["stage"]) == ["I", "II", "III, [c] $x$", "unknown", "Total"]
    values = {
        each["name"]: ["[c]" if x is None else f"{max(x, 0):,}" for x in each["tallies"][0]["values"]]
        for each in release["groups"]
    }
    assert list(frame["sex F"]) == [*values["cells"][0::2], values["sex totals"][0]]
    assert list(frame["sex M"]) == [*values["cells"][1::2], values["sex totals"][1]]
    assert list(frame["Total"]) == [*values["stage totals"], *values["total"]]
    assert frame.loc[0, "sex M"] == "[c]"


def test_without_totals_there_are_none() -> None:
    frame = result({**CROSSTAB, "totals": False}).crosstab()
    assert "Total" not in frame.columns and "Total" not in set(frame["stage"])


def test_percentages_stand_apart() -> None:
    made = result({**CROSSTAB, "percentages": True})
    assert [page.title for page in made.pages()] == ["", "% of the total", "% of the row", "% of the column"]
    assert list(made.crosstab("row_percent").columns) == ["stage", "sex F", "sex M"]
    with pytest.raises(DocumentError, match="no row_percent to cross-tabulate; it has: count"):
        result(HISTOGRAM).crosstab("row_percent")


def test_a_summary_has_a_line_for_every_stratum_in_per_cent() -> None:
    made = result(SURVIVAL, cases=200, hide=[2])
    frame = made.summary()
    assert list(frame["stage"]) == ["I", "II", "III, [c] $x$", "unknown", "(all)"]
    assert list(frame.loc[2])[1:] == ["[c]"] * 5
    table = made.table
    row = table[(table["statistic"] == "survival") & (table["stage"] == "I") & (table["time"] == 5)].iloc[0]
    value, low, high = (f"{100 * row[name]:.1f}" for name in ("value", "lcl", "ucl"))
    assert frame.loc[0, "5 years"] == f"{value} ({low}–{high})"
    errors = made.summary(errors=True)
    assert errors.loc[0, "5 years: SE sampling"] == f"{100 * row['se_sampling']:.1f}"
    assert errors.loc[0, "5 years: SE noise"] == f"{100 * row['se_noise']:.1f}"


def test_a_life_table_has_its_columns_and_marks_what_is_not_reliable() -> None:
    made = result(SURVIVAL, cases=40, hide=[1])
    frame = made.life_table()
    assert list(frame.columns) == [
        *("stratum", "Years", "Alive at start", "Events", "Lost", "Interval %", "Cumul. %"),
        *("SE sampling", "SE noise", "95 % CI"),
    ]
    assert list(frame["Years"][:2]) == ["0–1", "1–2"]
    assert len(frame) == 5 * 10
    assert (frame[frame["stratum"] == "II"]["Cumul. %"] == "[c]").all()
    table = made.table
    truncated = table[(table["statistic"] == "survival") & (table["flag"] == "t")]
    assert frame["Cumul. %"].str.endswith(" [t]").sum() == len(truncated) > 0


def test_people_fewer_than_none_are_marked_in_a_life_table() -> None:
    made = Result(document({**SURVIVAL, "by": []}, cases=900), CODEBOOK)
    assert made.pages("life-table")[0].foot == ()
    made = Result(document({**SURVIVAL, "by": []}, cases=900), CODEBOOK)
    row = (made.table["statistic"] == "events") & (made.table["time"] == 4)
    made.table.loc[row, ["value", "display"]] = [-2.4, "0"]  # as other presets may have it
    (page,) = made.pages("life-table")
    assert page.frame.loc[3, "Events"] == "<0" and page.foot[0].startswith("<0: the noise made")


def test_a_median_that_is_not_reached_says_so() -> None:
    made = result(SURVIVAL, cases=400, beyond=60)
    rows = made.table[made.table["statistic"] == "median_survival"]
    assert np.isinf(rows["value"]).all()
    page = made.pages()[-1].frame
    assert page["95 % CI"].str.endswith("NR").any()
    assert not page.astype(str).apply(lambda column: column.str.contains("inf|nan")).any(axis=None)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("hide", [(), None], ids=["shown", "hidden"])
def test_natural_layouts_are_texts_without_gaps(name: str, hide: tuple[int, ...] | None) -> None:
    pages = result(ALL[name], hide=hide).pages()
    assert pages
    for page in pages:
        cells = page.frame.to_numpy().ravel()
        assert len(page.frame) and all(isinstance(cell, str) for cell in cells)
        assert not {"nan", "inf", "<NA>", "None"} & set(cells)
        if hide is None and name != "crosstab":
            assert any(cell in ("[c]", "[x]") for cell in cells)


def test_a_layout_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DocumentError, match="no survival"):
        result(CROSSTAB).life_table()
    with pytest.raises(DocumentError, match="no count"):
        result(SURVIVAL).crosstab()
    with pytest.raises(DocumentError, match="is no layout; layouts: life-table"):
        result(CROSSTAB).layout("pages")  # type: ignore[arg-type]


# --- files and documents ------------------------------------------------------------------------------


def test_the_files_are_four_and_whole() -> None:
    made = result(CROSSTAB, hide=[0])
    files = made.files()
    assert list(files) == ["table.csv", "result.json", "plot.png", "explanation.txt"]
    assert isinstance(files["plot.png"], bytes) and files["plot.png"].startswith(b"\x89PNG")
    text = files["explanation.txt"]
    assert isinstance(text, str) and max(map(len, text.splitlines())) <= 100
    for line in made.release["promise"]:
        assert line in " ".join(text.split())
    assert made.files() == files, "a pure function of the document"


def test_a_stored_release_is_read_again(tmp_path: Path) -> None:
    release = document(CROSSTAB)
    (tmp_path / "release.json").write_text(json.dumps(release))
    expected = Result(release, CODEBOOK).to_csv()
    assert Result.load(tmp_path, CODEBOOK).to_csv() == expected
    assert Result.load(tmp_path / "release.json", CODEBOOK).to_csv() == expected


def test_another_codebook_is_refused(tmp_path: Path) -> None:
    other = parse({**BOOK, "version": "2"}, Codebook)
    release = document(CROSSTAB)
    with pytest.raises(MismatchError, match="codebook: the release was made with the one of digest"):
        Result(release, other)
    (tmp_path / "release.json").write_text(json.dumps(release))
    with pytest.raises(MismatchError, match=r"release\.json: codebook: .* made-up version 2"):
        Result.load(tmp_path, other)


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", '{"format": "mpc-engine/release/1"}', '{"format": "mpc-engine/release/2"}'],
)
def test_what_is_no_release_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "release.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DocumentError, match=r"release\.json"):
        Result.load(path, CODEBOOK)


def spoil(release: dict[str, Any], change: str) -> None:
    tally = release["groups"][0]["tallies"][0]
    match change:
        case "query":
            release["query"]["by"] = ["sex", "stage"]
        case "k":
            release["query"]["privacy"]["threshold"] = 3
        case "grid":
            tally["grid"][0]["categories"][0] = "0"
        case "length":
            tally["values"].pop()
        case "float":
            tally["values"][0] = 0.5
        case "text":
            tally["values"][0] = "7"
        case "part":
            release["parameters"]["split"].pop()
        case "variance":
            del release["parameters"]["split"][0]["noise_variance"]
        case "group":
            release["groups"].pop()
        case _:
            del release[change]


@pytest.mark.parametrize(
    "change",
    [
        *("query", "k", "grid", "length", "float", "text", "part", "variance", "group"),
        *("groups", "parameters", "digests", "parties", "promise", "session", "format"),
    ],
)
def test_a_release_that_was_changed_is_refused(change: str) -> None:
    release = document(CROSSTAB)
    spoil(release, change)
    with pytest.raises(DocumentError):
        Result(release, CODEBOOK)
