"""The report: what it says, that nothing in it is loaded or run, and that JSON keeps all of it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError
from mpc_engine.harness.blocks import Figure, Table, Text
from mpc_engine.harness.record import Verdict
from mpc_engine.harness.report import charts
from mpc_engine.harness.report.blocks import block_html, unique, written
from mpc_engine.harness.report.document import (
    CHAPTERS,
    Entry,
    as_fields,
    blank,
    from_fields,
    read_entries,
    write_entry,
    write_report,
)
from mpc_engine.harness.report.html import render
from mpc_engine.harness.report.words import HEADLINES, INTRODUCTIONS
from mpc_engine.scenario.expectations import Expectation

LABELS = ["each site alone", "masked at each site", "pooled"]
BARS = charts.bars("Cells shown", LABELS, {"shown": [3, 51, 53], "wrong": [0, 48, None]}, axis="cells")
TABLE = Table(
    "Ways <to> publish",
    ["way", "private", "cells", "error", "p"],
    [["masked `at site`", False, 51, 206.0, 1.2e-9], ["pooled", True, np.int64(1234567), math.nan, None]],
    {"error": ".1f"},
)


def entry(name: str = "rare", **changes: Any) -> Entry:
    """Return an entry with something in every chapter."""
    verdicts = (
        Verdict("Pooling keeps 10 times as many cells.", True, "It keeps 17.7 times as many.", "keeps"),
        Verdict("All parties serve in the end.", True, "All do."),
    )
    made = replace(
        blank(name, f"Title of {name}", "First.\n\nSecond.", "memory", 7, f"mpc-engine run {name}"),
        took_s=12.34,
        verdicts=verdicts,
        chapters={chapter: (Text(f"About {chapter}"), TABLE, BARS) for chapter in CHAPTERS},
        facts={"parties": 5, "silos": 5, "questions": 2, "released": 2, "values": 160, "largest": 80},
    )
    return replace(made, **changes)


class Page(HTMLParser):
    """What matters of a page: its elements, ids, links within, and text; raises for tags out of order."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name.endswith("href") and (value or "").startswith("#"):
                self.targets.append((value or "")[1:])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style"} & set(self._open):
            self.words.append(data)


def test_a_page_says_what_was_played_and_what_holds() -> None:
    page = Page(
        render([entry("rare"), entry("other", skipped="no namespaces here", verdicts=(), chapters={})])
    )
    said = " ".join(" ".join(page.words).split())
    assert "Everything that was expected holds: 2 expectations of 1 scenario; 1 scenario could not" in said
    assert "It keeps 17.7 times as many." in said and "values in the largest release 80" in said
    assert "Not played: no namespaces here" in said
    for words in INTRODUCTIONS.values():
        assert words.question in said
    assert page.tags["h1"] == 1 and page.tags["h2"] == 5
    assert page.tags["svg"] == 4 == page.tags["figure"]


def test_a_failure_comes_first_with_the_command_to_repeat_it() -> None:
    missed = Verdict("It is released.", False, "It ended RETURNED.", "outcome")
    text = render([entry("a"), entry("b", verdicts=(missed,)), entry("c", failed="out of memory")])
    said = " ".join(" ".join(Page(text).words).split())
    assert "✗ 2 scenarios of 3 did not come out as expected: b, c. 1 expectation failed." in said
    before = said.split("How to read this report")[0]
    for words in ("It ended RETURNED.", "mpc-engine run b", "out of memory", "mpc-engine run c"):
        assert words in before
    assert "mpc-engine run a" not in before


def test_nothing_played_is_not_success() -> None:
    assert "No scenario was played, so nothing is known." in render([entry(skipped="because")])


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = Page(render([entry()]))
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith("#"), (tag, name, value)
    text = render([entry()])
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_links_have_targets() -> None:
    page = Page(render([entry("one"), entry("two"), entry("three", stage="network")]))
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert set(page.targets) <= set(page.ids)
    labelled = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert labelled <= set(page.ids)


def test_who_cannot_see_is_told() -> None:
    page = Page(render([entry()]))
    pictures = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(pictures) == page.tags["svg"] and all("pooled 53" in told for told in pictures)
    assert ("html", "lang", "en-GB") in page.attributes
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == page.tags["th"]


@given(st.text(max_size=60))
def test_texts_are_never_markup(text: str) -> None:
    nasty = f"<script>{text}</script>\"'&"
    made = entry(name="x", title=nasty, about=nasty, repeat=nasty, failed=nasty)
    made = replace(made, chapters={"utility": (Text(nasty), Table(nasty, [nasty], [[nasty]]))})
    assert Page(render([made])).tags["script"] == 0


def test_a_table_tells_numbers_from_words() -> None:
    text = block_html(TABLE, "place")
    assert '<th scope="col" class="number">cells</th>' in text and '<th scope="col">way</th>' in text
    assert "Ways &lt;to&gt; publish" in text and "<code>at site</code>" in text
    assert ">206.0<" in text and "1.2·10<sup>−9</sup>" in text and ">no<" in text
    with pytest.raises(ValueError):
        block_html(Table("c", ["a", "b"], [[1]]), "place")


def test_a_long_table_says_how_long_it_is() -> None:
    text = block_html(Table("c", ["n"], [[n] for n in range(5_000)]), "place")
    assert "The first 200 of 5,000 rows" in text and text.count("<tr>") == 201


@pytest.mark.parametrize(
    ("cell", "digits", "text"),
    [
        (None, "", "–"),
        (True, "", "yes"),
        (0, "", "0"),
        (-12345, "", "−12,345"),
        (0.123456, "", "0.1235"),
        (123456.7, "", "123,457"),
        (2.5e-7, "", "2.5·10^−7"),
        (1e20, "", "1.000·10^20"),
        (3.14159, ".1f", "3.1"),
        (2015, "d", "2015"),
        (2015.5, "d", "2016"),
        (math.nan, "", "–"),
        (-math.inf, "", "−∞"),
        ("as-is", ".1f", "as-is"),
    ],
)
def test_numbers_as_people_write_them(cell: Any, digits: str, text: str) -> None:
    assert written(cell, digits) == text


def test_pictures_share_a_page() -> None:
    one, two = (unique(BARS.svg, place) for place in ("a", "b"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, known in zip((one, two), ids, strict=True):
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used and used <= known


def test_pictures_are_pictures() -> None:
    places = [1.0, 10.0, 1000.0]
    pictures = [
        BARS,
        charts.bars("c", ["a" * 60, "b" * 60], {"x": [1, 2]}, intervals={"x": [(0, 2), None]}),
        charts.points("c", LABELS, {"x": [0.1, None, 0.3]}, intervals={"x": [(0, 1)] * 3}, level=(0.2, "t")),
        charts.lines("c", {"x": (places, places)}, log_x=True, log_y=True, marks=True, level=(5, "most")),
        charts.lines("c", {}),
    ]
    for picture in pictures:
        root = ElementTree.fromstring(picture.svg)
        assert root.tag.endswith("svg") and picture.alt and "mathdefault" not in picture.svg
    assert "x goes from 1 at 1 to 1,000 at 1,000" in pictures[3].alt
    again = charts.bars("Cells shown", LABELS, {"shown": [3, 51, 53], "wrong": [0, 48, None]}, axis="cells")
    assert again.svg == BARS.svg


def test_pictures_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 values for 3 labels"):
        charts.bars("c", LABELS, {"x": [1, 2]})
    with pytest.raises(ValueError, match="1 places and 2 heights"):
        charts.lines("c", {"x": ([1], [1, 2])})


def test_json_keeps_everything(tmp_path: Path) -> None:
    made = entry()
    home = write_entry(tmp_path, made)
    assert home == tmp_path / "rare.memory"
    (read,) = read_entries(tmp_path)
    assert as_fields(read) == as_fields(made) and render([read]) == render([made])
    assert read.verdicts == made.verdicts and read.holds
    table = read.chapters["utility"][1]
    assert isinstance(table, Table) and table.rows[1] == ["pooled", True, 1234567, None, None]
    assert isinstance(read.chapters["cost"][2], Figure)


def test_an_entry_replaces_its_own_only(tmp_path: Path) -> None:
    write_entry(tmp_path, entry("a"))
    write_entry(tmp_path, entry("b"))
    write_entry(tmp_path, entry("b", failed="now it fails"))
    write_entry(tmp_path, entry("b", stage="network"))
    assert [(each.name, each.stage, each.holds) for each in read_entries(tmp_path)] == [
        ("a", "memory", True),
        ("b", "memory", False),
        ("b", "network", True),
    ]


def test_a_report_is_written_beside_its_entries(tmp_path: Path) -> None:
    kept, page = write_report(tmp_path, [entry()], render([entry()]))
    fields = json.loads(kept.read_text(encoding="utf-8"))
    assert [each["name"] for each in fields["entries"]] == ["rare"] and fields["entries"][0]["holds"] is True
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_folders_without_a_report(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="holds no scenario that was played"):
        read_entries(tmp_path)
    (tmp_path / "x.memory").mkdir()
    for text in ("", "[]", "{}", '{"format": "another"}', json.dumps(as_fields(entry()) | {"verdicts": [1]})):
        (tmp_path / "x.memory" / "entry.json").write_text(text)
        with pytest.raises(DocumentError, match="is not an entry of a report"):
            read_entries(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DocumentError, match="cannot be written"):
        write_entry(tmp_path / "file", entry())


def test_entries_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match="another format"):
        from_fields(as_fields(entry()) | {"format": "mpc-engine validation report 0"})


def test_every_kind_of_expectation_has_its_chapter() -> None:
    kinds = {get_args(each.model_fields["kind"].annotation)[0] for each in get_args(get_args(Expectation)[0])}
    places = [kind for words in INTRODUCTIONS.values() for kind in words.about if kind]
    assert sorted(places) == sorted(kinds) and set(HEADLINES) <= kinds
