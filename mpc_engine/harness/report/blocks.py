"""Blocks as HTML: text, tables and pictures, and the few pieces of markup that all of a report uses."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from mpc_engine.harness.blocks import Block, Cell, Figure, Table, Text

MOST_ROWS: Final = 200
"""Rows of a table that the page shows; ``report.json`` has all of them."""
_LONG: Final = 40
"""Rows from which on a table scrolls within the page."""
_WIDE: Final = 9
"""Columns from which on a table is set smaller on paper."""
_WORDS: Final = 26
"""Letters from which on a cell is given the room of a sentence."""
_SHORT: Final = 14
"""Letters up to which a cell stays on one line."""
_CODE: Final = re.compile(r"`([^`]+)`")
_EMPHASIS: Final = re.compile(r"\*([^*\s][^*]*)\*")
NOT_REACHED: Final = "not reached"
"""Stands for a time that is infinite, such as a median survival where fewer than half have died."""
_NO_NUMBER: Final = re.compile(rf"^(−?∞|\[\w+\]|{NOT_REACHED})?$")
"""What stands for a number that is not there, in a column of numbers."""
_WRITTEN_POWER: Final = re.compile(r"(?<![\w.])(10|2)\^([-−]?[0-9]+)")
_WRITTEN_E: Final = re.compile(r"(?<![\w.])([0-9](?:\.[0-9]+)?)e([+-])0*([0-9]+)(?!\w)")
_ID: Final = re.compile(r'\bid="([^"]+)"')
_POWER: Final = re.compile(r"e([+-])0*([0-9]+)$")
_SIGNS: Final = {"+": "", "-": "−"}


def escaped(text: str) -> str:
    """Return text as HTML, safe within an element and within a quoted attribute."""
    return html.escape(text, quote=True)


def prose(text: str) -> str:
    """Return text as HTML; what stands in backticks is set as code, and powers are raised."""
    pieces = _CODE.split(escaped(text))
    return "".join(f"<code>{each}</code>" if i % 2 else _raised(each) for i, each in enumerate(pieces))


def _raised(text: str) -> str:
    text = _WRITTEN_E.sub(lambda found: f"{found[1]}·10^{_SIGNS[found[2]]}{found[3]}", text)
    text = re.sub(r"(?<![\w.·])1·(10\^)", r"\1", text)
    return _WRITTEN_POWER.sub(lambda found: f"{found[1]}<sup>{found[2].replace('-', '−')}</sup>", text)


def emphasised(text: str) -> str:
    """Return `prose` in which what stands between single asterisks is emphasised."""
    return _EMPHASIS.sub(r"<em>\1</em>", prose(text))


def block_html(block: Block, place: str) -> str:
    """Return a block as HTML. `place` is an identifier that no other block of the page has."""
    match block:
        case Text(text, kind):
            return f'<p class="{kind}">{prose(text)}</p>'
        case Table():
            return table_html(block, place)
        case Figure():
            return _figure(block, place)


def table_html(table: Table, place: str) -> str:
    """Return a table as HTML, within a region that scrolls by itself and can be reached by keyboard.

    Its caption stands above the region, for within the table it would be no wider than that. Raises
    ValueError for a row of another length than the columns.
    """
    rows = [[plain(cell) for cell in row] for row in table.rows]
    if any(len(row) != len(table.columns) for row in rows):
        raise ValueError(f"{table.caption}: a row has not {len(table.columns)} cells")
    numeric = [_numeric([row[i] for row in rows]) for i in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col"{_number_class(numeric[i])}>{prose(name)}</th>'
        for i, name in enumerate(table.columns)
    )
    lines = []
    for row in rows[:MOST_ROWS]:
        cells = [
            _cell(written(cell, table.digits.get(name, "")), numeric[i], head=i == 0 and not numeric[0])
            for i, (name, cell) in enumerate(zip(table.columns, row, strict=True))
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    more = ""
    if len(rows) > MOST_ROWS:
        more = f'<p class="note">The first {MOST_ROWS} of {len(rows):,} rows; report.json has all.</p>'
    wide = ' class="wide"' if len(table.columns) >= _WIDE else ""
    inner = f'<table{wide} aria-labelledby="{place}"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}'
    return region(inner + "</tbody></table>", prose(table.caption), place, len(lines) > _LONG) + more


def region(table: str, caption: str, place: str, long: bool = False) -> str:
    """Return a table in its region below its caption, both as HTML; `place` is the caption's identifier.

    If it is `long` the region is no higher than a screen.
    """
    kind = "scroll long" if long else "scroll"
    return (
        f'<p class="caption" id="{place}">{caption}</p>'
        f'<div class="{kind}" role="region" tabindex="0" aria-labelledby="{place}">{table}</div>'
    )


def written(cell: Cell, digits: str = "") -> str:
    """Return a cell as text: by its format, or with 4 significant digits; – for None."""
    if cell is None or cell == "":
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    if digits:
        try:
            return _signed(format(cell, digits))
        except ValueError:  # such as d for a float
            pass
    if isinstance(cell, int):
        return _signed(f"{cell:,d}")
    if not math.isfinite(cell):
        return "–" if math.isnan(cell) else "∞" if cell > 0 else "−∞"
    if abs(cell) >= 9999.5:
        return _signed(f"{cell:,.0f}" if abs(cell) < 1e15 else f"{cell:.3e}")
    return _signed(f"{cell:.4g}")


def plain(cell: object) -> Cell:
    """Return a cell as JSON has it: no numbers of numpy, nothing that is not finite."""
    made = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(made, float) and not math.isfinite(made):
        return None if math.isnan(made) else "∞" if made > 0 else "−∞"
    if made is None or isinstance(made, str | int | float | bool):
        return made
    return str(made)


def _signed(text: str) -> str:
    """Return a number with a true minus sign, and powers of ten written out."""
    power = _POWER.search(text)
    if power:
        return f"{_signed(text[: power.start()])}·10^{_SIGNS[power[1]]}{power[2]}"
    return text.replace("-", "−")


def _cell(text: str, number: bool, head: bool) -> str:
    kind = _number_class(number) or _words_class(text)
    inner = prose(text)
    return f'<th scope="row"{kind}>{inner}</th>' if head else f"<td{kind}>{inner}</td>"


def _words_class(text: str) -> str:
    return ' class="words"' if len(text) > _WORDS else ' class="short"' if len(text) <= _SHORT else ""


def _number_class(number: bool) -> str:
    return ' class="number"' if number else ""


def _numeric(cells: Sequence[Cell]) -> bool:
    """Return whether a column is of numbers: nothing else, but for words and signs of what is not there."""
    known = [
        cell for cell in cells if not (cell is None or (isinstance(cell, str) and _NO_NUMBER.match(cell)))
    ]
    return bool(known) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known)


def _figure(figure: Figure, place: str) -> str:
    told = escaped(figure.alt or figure.caption)
    svg = unique(figure.svg, place).replace("<svg", f'<svg role="img" aria-label="{told}"', 1)
    return f"<figure><figcaption>{prose(figure.caption)}</figcaption>{svg}</figure>"


def unique(svg: str, place: str) -> str:
    """Return a picture whose identifiers begin with `place`, so that many pictures share one page."""
    known = set(_ID.findall(svg))

    def renamed(match: re.Match[str]) -> str:
        return f"{match[1]}{place}-{match[2]}{match[3]}" if match[2] in known else match[0]

    svg = re.sub(r'(\bid=")([^"]+)(")', renamed, svg)
    svg = re.sub(r"(url\(#)([^)\"']+)(\))", renamed, svg)
    return re.sub(r'(href="#)([^"]+)(")', renamed, svg)
