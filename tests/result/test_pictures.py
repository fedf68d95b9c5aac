"""Pictures: every kind is drawn without a warning, whatever is hidden, and says what it shows."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from mpc_engine.codebook import Codebook
from mpc_engine.errors import DocumentError
from mpc_engine.result import Result, curves, funnels
from mpc_engine.result.pictures import png
from tests.result.documents import CODEBOOK, COUNT, CROSSTAB, DESCRIBED, HISTOGRAM, MEAN, SURVIVAL, document

QUERIES: dict[str, dict[str, Any]] = {
    "bars": HISTOGRAM,
    "one bar": COUNT,
    "one variable": {"preset": "crosstab", "by": ["stage"], "totals": True},
    "heat": CROSSTAB,
    "heat of three": {"preset": "crosstab", "by": ["stage", "ages", "sex"]},
    "heat without numbers": {"preset": "crosstab", "by": ["age", "sex"]},
    "curve": SURVIVAL,
    "one curve": {**SURVIVAL, "by": [], "title": ""},
    "panels": {**SURVIVAL, "by": ["stage", "ages"]},
    "points": MEAN,
}


@pytest.fixture(autouse=True)
def _warnings_are_faults() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure: Figure) -> list[str]:
    """Return everything that is written in a figure."""
    found = [each.get_text() for each in figure.findobj(Text)]
    return [text for text in found if text]


def curve_lines(axes: Axes) -> list[Line2D]:
    """Return the lines of the curves, solid and dashed, of axes."""
    return [line for line in axes.get_lines() if line.get_label() in ("solid", "dashed")]


def drawn(query: dict[str, Any], picture: Any = None, book: Codebook = CODEBOOK, **more: Any) -> Figure:
    """Return a figure after it has been laid out and rendered."""
    figure = Result(document(query, codebook=book, **more), book).plot(picture=picture)
    assert png(figure).startswith(b"\x89PNG")
    return figure


@pytest.mark.parametrize("hide", [(), (0, 3), None], ids=["shown", "some hidden", "all hidden"])
@pytest.mark.parametrize("name", QUERIES)
def test_every_kind_is_drawn_without_warnings(name: str, hide: tuple[int, ...] | None) -> None:
    figure = drawn(QUERIES[name], hide=hide)
    said = " ".join(" ".join(texts(figure)).split())
    assert "ε = 1, k = 5 (rule noisy); uk and us" in said
    assert ("suppressed: did not pass the threshold" in said) == (hide != ())
    assert "matplotlib.pyplot" not in sys.modules


def test_suppressed_cells_are_hatched_and_marked() -> None:
    figure = drawn(CROSSTAB, hide=(0, 5))
    release = document(CROSSTAB, hide=(0, 5))
    hidden = sum(value is None for each in release["groups"] for value in each["tallies"][0]["values"])
    assert texts(figure).count("[c]") == hidden > 2
    (patches,) = [each for each in figure.findobj(matplotlib.collections.PatchCollection) if each.get_hatch()]
    assert len(patches.get_paths()) == hidden


def test_a_hidden_stratum_is_named_and_has_no_curve() -> None:
    figure = drawn(SURVIVAL, cases=300, hide=[1])
    assert "II [c]" in texts(figure)
    assert texts(figure).count("[c]") == 11  # at risk
    axes = figure.findobj(matplotlib.axes.Axes)[0]
    assert len(curve_lines(axes)) == 3


def test_a_curve_goes_through_the_table_and_is_dashed_where_it_is_not_reliable() -> None:
    query = {**SURVIVAL, "by": []}
    made = Result(document(query, cases=25), CODEBOOK)
    rows = made.table[made.table["statistic"] == "survival"]
    reliable = rows[rows["flag"] != "t"]
    assert 0 < len(reliable) < len(rows)
    axes = made.plot().findobj(matplotlib.axes.Axes)[0]
    solid, dashed = curve_lines(axes)
    assert not solid.is_dashed() and dashed.is_dashed()
    np.testing.assert_allclose(np.asarray(solid.get_ydata())[1:], 100 * reliable["value"])
    assert np.asarray(dashed.get_xdata())[0] == reliable["time"].iloc[-1]


@pytest.mark.parametrize("by", [[], ["stage"]])
def test_every_tick_has_its_number_at_risk_the_last_one_too(by: list[str]) -> None:
    made = Result(document({**SURVIVAL, "by": by}, cases=400), CODEBOOK)
    figure = made.plot()
    png(figure)
    axes, beneath = figure.findobj(Axes)[:2]
    rows = made.table[~(made.table[by] == "(all)").any(axis=1)] if by else made.table
    first = rows[rows["time"].notna()].iloc[0]
    one = rows[(rows[by] == first[by]).all(axis=1)] if by else rows
    value = one[one["time"].notna()].pivot(index="time", columns="statistic", values="value")
    left = (value["at_risk"] - value["events"] - value["censored"]).round().clip(lower=0)
    printed = {
        text.get_position()[0]: text.get_text() for text in beneath.texts if text.get_position()[1] == 0
    }
    assert [tick for tick in axes.get_xticks() if tick not in printed] == []
    assert printed[10.0] == f"{left[10.0]:.0f}"
    for year in range(1, 10):
        assert printed[year] == f"{left[float(year)]:.0f}", "who is left begins the next interval"
    assert "carry noise of their own" in " ".join(texts(figure))


def test_a_hidden_stratum_has_no_number_at_the_end() -> None:
    made = Result(document(SURVIVAL, cases=400, hide=(1,)), CODEBOOK)
    beneath = made.plot().findobj(Axes)[1]
    assert {text.get_text() for text in beneath.texts if text.get_position()[1] == 1} == {"[c]"}


@pytest.mark.parametrize(("grid", "stepped"), [({"every": 1}, True), ({"every": 2}, False)])
def test_curves_are_steps_on_monthly_grids_and_straight_lines_on_wider_ones(
    grid: dict[str, int], stepped: bool
) -> None:
    figure = drawn({**SURVIVAL, "by": [], "grid": {**grid, "unit": "months", "until": 24}}, cases=900)
    axes = figure.findobj(Axes)[0]
    assert {line.get_drawstyle() for line in curve_lines(axes)} == {"steps-post" if stepped else "default"}
    assert ("joined by straight lines" in " ".join(texts(figure))) != stepped
    (band,) = [each for each in axes.collections if len(each.get_paths()[0].vertices) > 5]
    corners = band.get_paths()[0].vertices
    assert {100.0} == {y for x, y in corners if x == 0}, "the band begins at time 0 and 100 %"


def test_bars_of_many_curves_stand_at_their_years_within_the_axes() -> None:
    figure = drawn({**SURVIVAL, "by": ["ages", "dead"]}, cases=900)
    axes = figure.findobj(Axes)[0]
    bars = [
        line for line in axes.get_lines() if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]
    assert {float(line.get_xdata()[0]) for line in bars} == {1, 3, 5, 10}
    box = axes.get_window_extent()
    for bar in bars:
        low, high = bar.get_transform().transform(np.column_stack([bar.get_xdata(), bar.get_ydata()]))
        assert box.x0 <= low[0] == high[0] <= box.x1


def test_small_multiples_of_many_curves_have_no_bars() -> None:
    figure = drawn({**SURVIVAL, "by": ["sex", "iccc"]}, book=DESCRIBED, cases=900)
    said = " ".join(texts(figure))
    assert "intervals: in the tables" in said and "bars" not in said
    for axes in figure.findobj(Axes):
        assert not [
            each for each in axes.get_lines() if len(set(each.get_xdata())) == 1 and len(each.get_xdata()) > 1
        ]


def test_legends_and_axes_speak_the_words_of_the_codebook() -> None:
    said = texts(drawn({**SURVIVAL, "by": ["iccc"]}, book=DESCRIBED, cases=400))
    assert {"I Leukaemias, …", "V Retinoblastoma"} <= set(said)
    heat = texts(drawn({"preset": "crosstab", "by": ["sex", "iccc"]}, book=DESCRIBED))
    assert "Main diagnostic group" in heat
    joined = " ".join(texts(drawn({**SURVIVAL, "by": ["stage", "iccc"]}, book=DESCRIBED, cases=400)))
    assert "Main diagnostic group" in " ".join(joined.split()) and "Retinoblastoma" not in joined


def test_bars_of_a_histogram_are_to_scale() -> None:
    query = {"preset": "histogram", "variable": "age", "edges": [0, 10, 40, 60]}
    made = Result(document(query, cases=400), CODEBOOK)
    axes = made.plot().findobj(Axes)[0]
    bars = sorted(axes.patches, key=lambda patch: patch.get_x())
    counts = list(made.table[made.table["statistic"] == "count"]["value"])
    assert [patch.get_width() for patch in bars] == [10, 30, 20, 20, 20]
    np.testing.assert_allclose([patch.get_width() * patch.get_height() for patch in bars], counts)
    assert len({patch.get_alpha() for patch in bars}) == 2, "the open bin and the unknown are lighter"
    assert axes.get_ylabel() == "Records per year" and axes.get_xlabel() == "age, years"
    assert "\n≥ 60" in texts(axes.figure.figure)
    even = drawn({**query, "edges": [0, 50, 100]})
    assert "Records" in texts(even)


def test_means_by_many_years_are_a_trend() -> None:
    query = {"preset": "mean", "variable": "days", "by": ["age"]}
    made = Result(document(query, cases=400, hide=[3]), CODEBOOK)
    axes = made.plot().findobj(Axes)[0]
    (line,) = axes.get_lines()
    values = made.table[made.table["statistic"] == "mean"]["value"].to_numpy()[:100]
    np.testing.assert_allclose(np.asarray(line.get_ydata())[:100], values)
    assert np.isnan(values[3]) and "[c]" in texts(axes.figure.figure)
    assert axes.get_xlabel() == "age, years"


def test_points_show_the_sampling_part_within_the_whole() -> None:
    made = Result(document(MEAN, cases=200), CODEBOOK)
    axes = made.plot().findobj(matplotlib.axes.Axes)[0]
    whole, inner = (each.lines[2][0].get_segments() for each in axes.containers)
    rows = made.table[made.table["statistic"] == "mean"]
    np.testing.assert_allclose([line[0, 0] for line in whole], rows["lcl"])
    np.testing.assert_allclose([line[1, 0] for line in whole], rows["ucl"])
    for a, b in zip(whole, inner, strict=True):
        assert a[0, 0] <= b[0, 0] < b[1, 0] <= a[1, 0]


def test_labels_are_never_read_as_formulae() -> None:
    labels = [text for text in texts(drawn(SURVIVAL)) if "$x$" in text]
    assert labels and all("III, [c] $x$" in label for label in labels)


def test_parameters_of_the_user_stay_as_they_are() -> None:
    before = dict(matplotlib.rcParams)
    drawn(SURVIVAL)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_pictures_are_files(tmp_path: Path, suffix: str, start: bytes) -> None:
    Result(document(COUNT), CODEBOOK).plot(tmp_path / f"plot.{suffix}")
    assert (tmp_path / f"plot.{suffix}").read_bytes().startswith(start)


def test_pictures_that_cannot_be_are_refused(tmp_path: Path) -> None:
    made = Result(document(COUNT), CODEBOOK)
    with pytest.raises(DocumentError, match="a picture is a"):
        made.plot(tmp_path / "plot.exe")
    with pytest.raises(DocumentError, match="cannot be written"):
        made.plot(tmp_path / "nowhere" / "plot.png")
    with pytest.raises(DocumentError, match="no survival"):
        made.plot(picture="curve")
    with pytest.raises(DocumentError, match="two variables"):
        made.plot(picture="heat")
    with pytest.raises(DocumentError, match="no funnel limits"):
        made.plot(picture="funnel")


# --- funnels, of a table as the ratios make it ----------------------------------------------------------


def ratios(hidden: int = 2) -> pd.DataFrame:
    """Return a table of standardised ratios of twelve areas, the first ones hidden."""
    areas = [f"area {number}" for number in range(12)]
    expected = np.linspace(4.0, 90.0, 12)
    ratio = 1 + np.where(np.arange(12) == 7, 1.6, 0.2) * (-1.0) ** np.arange(12) / np.sqrt(expected / 20)
    rows = []
    half = {"95": 1.96, "998": 3.09}
    for number, (area, mean) in enumerate(zip(areas, expected, strict=True)):
        shown = number >= hidden
        rows.append(("sir", area, mean, ratio[number], shown))
        for level, z in half.items():
            rows.append((f"funnel_lower_{level}", area, mean, max(0.0, 1 - z / mean**0.5), shown))
            rows.append((f"funnel_upper_{level}", area, mean, 1 + z / mean**0.5, shown))
    table = pd.DataFrame(rows, columns=["statistic", "area", "n_shown", "value", "shown"])
    table.loc[~table["shown"], ["n_shown", "value"]] = np.nan
    return table.assign(time=np.nan, standard="", flag=np.where(table["shown"], "ok", "c"))


@pytest.mark.parametrize("hidden", [0, 2, 12])
@pytest.mark.parametrize("external", [False, True])
def test_a_funnel_has_two_limits_and_names_what_lies_outside(hidden: int, external: bool) -> None:
    figure = Figure(layout="constrained")
    drawing = funnels.funnel(ratios(hidden), ["area"], external)
    assert drawing.width > drawing.height
    drawing.paint(figure.subfigures())
    figure.draw_without_rendering()
    centre = "reference, 1.00" if external else "all shown strata together, 1.00"
    assert {"95 % limits", "99.8 % limits", centre} <= set(texts(figure))
    assert ("area 7" in texts(figure)) == (hidden < 12)
    assert any("area 0" in note for note in drawing.notes) == (hidden > 0) == bool(drawing.flags)


def test_a_funnel_says_how_many_outliers_it_does_not_name() -> None:
    table = ratios(0)
    far = (table["statistic"] == "sir").to_numpy()
    table.loc[far, "value"] = 2.0
    table.loc[table["n_shown"].notna(), "n_shown"] = 50.0  # all in one place
    notes = " ".join(funnels.funnel(table, ["area"]).notes)
    assert "more beyond the 99.8 % limits are not named" in notes


def test_no_more_panels_than_a_page_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_PANELS", 3)
    figure = drawn({**SURVIVAL, "by": ["age"], "grid": {"edges": [5]}})
    assert "the first 3 of 101 panels" in " ".join(" ".join(texts(figure)).split())
    assert len(figure.findobj(matplotlib.axes.Axes)) == 6  # with the numbers at risk
