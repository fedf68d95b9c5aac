"""The one type of result: everything that a release says, from its document and the codebook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from mpc_engine.codebook import Codebook
from mpc_engine.documents import digest
from mpc_engine.errors import DocumentError, MismatchError
from mpc_engine.release.opened import Opened, read_opened
from mpc_engine.release.table import FORMAT
from mpc_engine.result import layouts
from mpc_engine.result.explanation import explain, hidden, notation, text_file
from mpc_engine.result.layouts import Page
from mpc_engine.result.vocabulary import readable
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Picture, Query
from mpc_engine.statistics.tidy import NUMBERS, Tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELEASE_FILE: Final = "release.json"
"""Name of the release document among a release's files."""
MOST_ROWS: Final = 5_000
"""Rows of a table up to which a notebook shows its layouts."""
PICTURES: Final = (".pdf", ".png", ".svg")
"""Kinds of file that a picture can be written as."""
_TEXTS: Final = ("display", "ci_method", "standard", "note")

Layout = Literal["life-table", "summary", "crosstab", "estimates"]
"""Layouts that can be asked for by name."""


class Result:
    """What a release says, computed in the clear from its document and the codebook alone.

    Attributes:
        release: the release document.
        codebook: the codebook with which it was made.
        query: what was asked.
        opened: the published whole numbers in the shape of their grids, NaN where suppressed.
        table: the tidy table, one row per statistic: ``preset``, a column for each variable, and
            ``statistic, time, n_shown, value, display, lcl, ucl, se_sampling, se_noise, ci_method, standard,
            flag, note``. Labels and flags are categorical, texts strings, numbers float64 (NaN: missing;
            infinite: not reached). ``value`` is raw – proportions from 0 to 1, a noisy count may be negative
            – and ``display`` is what is printed. Nothing is left out: what is hidden has its row and flag.

    Raises DocumentError for a document that is no release, that does not fit its own query, or was altered;
    MismatchError for another codebook than the parties used.
    """

    def __init__(self, release: Mapping[str, Any], codebook: Codebook) -> None:
        self.release = release
        self.codebook = codebook
        self.query: Query = _query(release)
        _check(release, self.query, codebook)
        self.opened: Opened = read_opened(release)
        self.table: pd.DataFrame = _typed(self.query.finish(codebook, self.opened))

    @classmethod
    def load(cls, path: str | Path, codebook: Codebook) -> Result:
        """Return the result of a stored release: release.json, or the folder that it lies in.

        Raises DocumentError when there is none, and as the class does.
        """
        file = Path(path) / RELEASE_FILE if Path(path).is_dir() else Path(path)
        try:
            release = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DocumentError(f"{file}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError):
            raise DocumentError(f"{file}: is not valid JSON") from None
        if not isinstance(release, Mapping):
            raise DocumentError(f"{file}: this is not a release document of this engine")
        try:
            return cls(release, codebook)
        except (DocumentError, MismatchError) as error:
            raise type(error)(f"{file}: {error}") from None

    def __repr__(self) -> str:
        given = self.release["parameters"]
        parts = [
            f"{name}: {total - number:,} shown, {number:,} hidden"
            for name, number, total in hidden(self.opened, self.table)
        ]
        words = "; ".join([f"ε = {given['epsilon']}, k = {given['k']}", *parts])
        return f"<{type(self).__name__} “{self.title}”: {words}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the line of `repr` and, unless they are very long, the tables."""
        parts = [f"<p>{escape(repr(self))}</p>"]
        if len(self.table) <= MOST_ROWS:
            for page in self.pages():
                parts += [
                    f"<p>{escape(page.title or self.title)}</p>",
                    page.frame.to_html(index=False, max_rows=60),
                ]
            parts += [f"<p>{escape(line)}</p>" for line in self.legend()]
        return "\n".join(parts)

    @property
    def title(self) -> str:
        """The query's title; without one what was asked."""
        question = self.query.question()
        return self.query.title or question[:1].upper() + question[1:]

    @property
    def variables(self) -> list[str]:
        """The table's columns of categories, in order."""
        names = list(self.table.columns)
        return names[1 : names.index("statistic")]

    @cached_property
    def readable(self) -> pd.DataFrame:
        """The table with descriptions of categories beside their labels, where there are short ones."""
        return readable(self.table, self.variables, self.codebook)

    @property
    def parameters(self) -> dict[str, Any]:
        """What one must know to read the numbers, as plain fields.

        ``guarantee`` in a sentence, ``rule``, ``k``, ``cap``, ``epsilon`` and its ``split`` with the noise's
        standard deviation and variance of each part, ``unit``, ``digests`` of codebook, query, plan and so
        on, ``parties`` by role, ``session``, and what is promised, sentence by sentence.
        """
        given = self.release["parameters"]
        parts = ("part", "epsilon", "noise_standard_deviation", "noise_variance")
        return {
            "preset": self.query.preset,
            "title": self.title,
            "codebook": {"name": self.codebook.name, "version": self.codebook.version},
            "multiple_primaries": self.query.multiple_primaries,
            "guarantee": given["statement"],
            "differentially_private": given["differentially_private"],
            **{name: given[name] for name in ("rule", "k", "cap", "epsilon")},
            "split": [{name: part[name] for name in parts} for part in given["split"]],
            "unit": given["unit"],
            "digests": dict(self.release["digests"]),
            "session": dict(self.release["session"]),
            "parties": {party["name"]: party["role"] for party in self.release["parties"]},
            "promise": list(self.release["promise"]),
            "flags": dict(notation(self.table)),
        }

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the tidy table as CSV: missing is empty, not reached ``inf``; also written to ``path``."""
        return _written(self.table.to_csv(index=False, lineterminator="\n"), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return parameters and the table's records as JSON; also written to ``path``.

        Missing is null. Not reached is the text ``"Inf"``, which R and Python both turn into a number,
        because JSON has no infinity and null would say something else.
        """
        columns = [_plain(self.table[name]) for name in self.table]
        records = [dict(zip(self.table, row, strict=True)) for row in zip(*columns, strict=True)]
        fields = {"parameters": self.parameters, "table": records}
        return _written(json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False) + "\n", path)

    def explain(self) -> str:
        """Return one paragraph in plain English: what was asked, of whom, what is hidden, the noise."""
        return explain(self.release, self.query, self.codebook, self.opened, self.table)

    def legend(self) -> list[str]:
        """Return the notation that the table uses, one line for each flag but ``ok``."""
        return [f"[{flag}] {words}" for flag, words in notation(self.table).items()]

    def life_table(self) -> pd.DataFrame:
        """Return the life table in the layout of SEER's detailed page, one block of rows for each stratum.

        All of it is text as it is printed; survival and its standard errors – of sampling and of the noise,
        apart – in per cent. Raises DocumentError for a release without survival.
        """
        return layouts.joined(self.pages("life-table"))

    def summary(self, errors: bool = False) -> pd.DataFrame:
        """Return one line per stratum: patients, then survival in per cent (95 % CI) after 1, 3, 5, 10 years.

        All of it is text; ``errors`` adds the standard errors of sampling and of the noise, apart. Raises
        DocumentError for a release without survival.
        """
        return layouts.summary(self.readable, self.variables, self.query.headlines, errors).frame

    def crosstab(self, percent: str | None = None) -> pd.DataFrame:
        """Return counts in a wide table: the last variable's categories in columns, [c] where suppressed.

        Totals are those that were released with noise of their own; where none were asked for there are
        none. ``percent`` shows ``percent``, ``row_percent`` or ``column_percent`` instead of counts. All of
        it is text. Raises DocumentError for a release without counts, or without those percentages.
        """
        return layouts.crosstab(self.readable, self.variables, percent or "count").frame

    def layout(self, name: Layout | None = None) -> pd.DataFrame:
        """Return a layout by name, or the first that suits what was asked; all of it is text."""
        pages = self.pages(name)
        return layouts.joined(pages) if name == "life-table" else pages[0].frame

    def pages(self, name: Layout | None = None) -> list[Page]:
        """Return everything there is to print, table by table; by name one layout only."""
        query = self.query
        by = getattr(query, "by", None) if query.picture in ("curve", "points") else None
        return layouts.pages(self.readable, self.variables, query.headlines, query.picture, name, by)

    def plot(self, path: str | Path | None = None, picture: Picture | None = None) -> Figure:
        """Return the picture that suits what was asked, or another kind; also written to ``path``.

        The file's suffix says which kind: png, pdf or svg. Raises DocumentError for another suffix, a file
        that cannot be written, and a kind of picture that the statistics do not make.
        """
        from mpc_engine.result.pictures import draw, save  # here, for many results are never drawn

        figure = draw(self, picture)
        if path is not None:
            if Path(path).suffix.lower() not in PICTURES:
                raise DocumentError(f"{path}: a picture is a {', '.join(PICTURES)} file")
            try:
                save(figure, Path(path))
            except OSError as error:
                raise DocumentError(f"{path}: cannot be written: {error.strerror}") from None
        return figure

    def files(self) -> dict[str, str | bytes]:
        """Return the files that present the release, by name: table.csv, result.json, plot.png and
        explanation.txt."""
        from mpc_engine.result.pictures import png

        return {
            "table.csv": self.to_csv(),
            "result.json": self.to_json(),
            "plot.png": png(self.plot()),
            "explanation.txt": text_file(self.title, self.explain(), self.legend(), self.release["promise"]),
        }


def _query(release: Mapping[str, Any]) -> Query:
    if not isinstance(release, Mapping) or release.get("format") != FORMAT:
        raise DocumentError(f"this is not a release document of this engine ({FORMAT})")
    parts: dict[str, type] = {"query": Mapping, "parameters": Mapping, "digests": Mapping, "session": Mapping}
    parts |= {"parties": list, "promise": list, "groups": list}
    for name, kind in parts.items():
        if not isinstance(release.get(name), kind):
            raise DocumentError(f"the release document has no `{name}`, or it is of another form")
    return parse_query(release["query"], "query")


def _check(release: Mapping[str, Any], query: Query, codebook: Codebook) -> None:
    """Hold a release to its own digests and to the groups that its query lays out with this codebook."""
    digests = release["digests"]
    if digests.get("codebook") != codebook.digest():
        stated, found = str(digests.get("codebook"))[:12], codebook.digest()[:12]
        raise MismatchError(
            f"codebook: the release was made with the one of digest {stated}…, this one, {codebook.name} "
            f"version {codebook.version}, has {found}…"
        )
    fields = query.digest_fields()
    asked = {name: value for name, value in fields.items() if name != "privacy"}
    for name, made in (("query", {"query": asked}), ("privacy", {"privacy": fields["privacy"]})):
        if digests.get(name) != digest(made):
            raise DocumentError(f"the {name} in the release document is not the one of its digest")
    if _groups(release) != [groups.as_fields() for groups in query.layout(codebook).groups]:
        raise DocumentError("the numbers in the release document are not laid out as its query asks")


def _groups(release: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups without their values. Raises DocumentError unless all that is read later is there."""
    try:
        for party in release["parties"]:
            _texts(party["name"], party["role"])
        given = release["parameters"]
        _texts(given["statement"], given["rule"], given["epsilon"], given["unit"], *release["promise"])
        for part in given["split"]:
            _texts(part["part"], part["epsilon"], part["noise_standard_deviation"], part["noise_variance"])
        bare = []
        for groups in release["groups"]:
            tallies = [dict(tally) for tally in groups["tallies"]]
            for tally in tallies:
                if not set(map(type, tally.pop("values"))) <= {int, NoneType}:
                    raise TypeError
            bare.append({"name": groups["name"], "tallies": tallies})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DocumentError("this is not a whole release document of this engine") from None
    return bare


def _texts(*values: object) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError


def _typed(tidy: Tidy) -> pd.DataFrame:
    """Return the rows with typed columns; categories in the order in which they first occur."""
    columns: dict[str, Any] = {}
    for name, values in tidy.columns().items():
        if name in NUMBERS:
            columns[name] = values
        elif name in _TEXTS:
            columns[name] = pd.array(values, dtype="string")
        else:
            columns[name] = pd.Categorical(values, categories=pd.unique(pd.Series(values, dtype=object)))
    return pd.DataFrame(columns)


def _plain(column: pd.Series) -> list[object]:
    """Return a column's values as JSON has them: null where missing, "Inf" for what is not reached."""
    if column.dtype != np.float64:
        return list(column.astype(object))
    return [
        None if np.isnan(x) else x if np.isfinite(x) else "Inf" if x > 0 else "-Inf" for x in column.tolist()
    ]


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise DocumentError(f"{path}: cannot be written: {error.strerror}") from None
    return text
