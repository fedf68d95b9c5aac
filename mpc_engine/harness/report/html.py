"""The validation report as one HTML file: no script, nothing from elsewhere, made to be printed too."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mpc_engine.harness.blocks import Chapter, Table
from mpc_engine.harness.record import Verdict
from mpc_engine.harness.report.blocks import block_html, emphasised, escaped, prose, region, table_html
from mpc_engine.harness.report.document import Entry
from mpc_engine.harness.report.words import AUTHORS, HEADLINES, INTRODUCTIONS, LIMITS, NOTICE, READING

_STYLE: Final = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
# Forbids scripts and everything from elsewhere, whatever a picture or a title may hold.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
_MOST_OF_A_KIND: Final = 3
_HOLDS: Final = '<span class="holds-mark">✓ holds</span>'
_FAILS: Final = '<span class="fails-mark">✗ fails</span>'


def render(entries: Sequence[Entry]) -> str:
    """Return the page of a report: what was played and what holds, four chapters, and every scenario."""
    parts = [
        *_summary(entries),
        *(part for chapter in INTRODUCTIONS for part in _chapter(chapter, entries)),
        *_scenarios(entries),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Validation report of mpc_engine</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the summary</a>\n<main id="main">\n{body}\n</main>\n'
        '<footer class="note"><p>Made by <code>mpc-engine scenario report</code>. How each figure comes '
        "about is described in <code>docs/validation.md</code>.</p></footer>\n</body>\n</html>\n"
    )


# --- summary ----------------------------------------------------------------------------------------


def _summary(entries: Sequence[Entry]) -> Iterator[str]:
    played = [entry for entry in entries if entry.played]
    yield "<header><h1>Validation report of mpc_engine</h1>"
    yield f'<p class="made">{prose(_circumstances(played))}</p></header>'
    yield f'<p class="warning">{prose(NOTICE)}</p>'
    yield _verdict_line(played, len(entries) - len(played))
    yield _tiles(played)
    yield from _failures(played)
    yield from _findings(played)
    yield "<section><h3>How to read this report</h3>"
    yield from (f"<p>{emphasised(text)}</p>" for text in READING)
    yield '</section><nav aria-label="Contents"><h3>Contents</h3><ol>'
    for name, words in INTRODUCTIONS.items():
        yield f'<li><a href="#{name}">{words.title}</a> – {prose(words.question)}</li>'
    yield '<li><a href="#scenarios">The scenarios</a> – what each shows, and how to repeat it</li></ol></nav>'
    yield _played_table(entries)
    yield "<section><h3>What it cannot show</h3><ul>"
    yield from (f"<li>{prose(text)}</li>" for text in LIMITS)
    yield "</ul></section>"


def _circumstances(played: Sequence[Entry]) -> str:
    if not played:
        return "Nothing was played."
    engines = ", ".join(dict.fromkeys(entry.engine for entry in played))
    machines = "; ".join(dict.fromkeys(entry.machine for entry in played))
    days = sorted({entry.made[:10] for entry in played})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    took = _time(sum(entry.took_s for entry in played))
    return (
        f"Engine {engines}. Played {when} on {machines}; playing took {took} altogether, judging and writing "
        "this report not counted."
    )


def _verdict_line(played: Sequence[Entry], left: int) -> str:
    """Return the verdict on all that was played; `left` scenarios were not."""
    failed = [entry for entry in played if not entry.holds]
    if not played:
        return '<p class="verdict fails">No scenario was played, so nothing is known.</p>'
    if not failed:
        checked = sum(len(entry.verdicts) for entry in played)
        text = f"{_many(checked, 'expectation')} of {_many(len(played), 'scenario')}"
        text += f"; {_many(left, 'scenario')} could not be played here" if left else ""
        return f'<p class="verdict holds">✓ Everything that was expected holds: {text}.</p>'
    broken = sum(not verdict.holds for entry in failed for verdict in entry.verdicts)
    names = ", ".join(entry.name for entry in failed)
    stopped = sum(bool(entry.failed) for entry in failed)
    text = f"{_many(len(failed), 'scenario')} of {len(played)} did not come out as expected: {names}."
    if broken:
        text += f" {_many(broken, 'expectation')} failed."
    if stopped:
        text += f" {_many(stopped, 'scenario')} could not be played to the end."
    if left:
        text += f" {_many(left, 'scenario')} could not be played here."
    return f'<p class="verdict fails">✗ {escaped(text)}</p>'


def _tiles(played: Sequence[Entry]) -> str:
    def total(fact: str) -> int:
        return sum(entry.facts.get(fact, 0) for entry in played)

    def most(fact: str) -> int:
        return max((entry.facts.get(fact, 0) for entry in played), default=0)

    largest = max((entry.facts for entry in played), key=lambda facts: facts.get("parties", 0), default={})
    checks = sum(len(entry.verdicts) for entry in played)
    held = sum(verdict.holds for entry in played for verdict in entry.verdicts)
    tiles = [
        (f"{sum(entry.holds for entry in played)} of {len(played)}", "scenarios came out as expected"),
        (f"{held:,} of {checks:,}", "expectations hold"),
        _answered(total("released"), total("questions"), total("refused")),
        (f"{most('largest'):,}", "values in the largest release"),
        (f"{largest.get('parties', 0):,}", "parties in the largest study"),
        (f"{largest.get('silos', 0):,}", "of them registries"),
    ]
    if total("awaited"):
        noticed = f"{total('detected'):,} of {total('awaited'):,}"
        tiles.append((noticed, "injected faults that others were to notice were noticed"))
    inner = "".join(f'<div class="tile"><dt>{escaped(b)}</dt><dd>{escaped(a)}</dd></div>' for a, b in tiles)
    return f'<dl class="tiles">{inner}</dl>'


def _answered(released: int, questions: int, refused: int) -> tuple[str, str]:
    """Return the number of questions that were answered, with words on the others."""
    if not refused:
        return f"{released:,} of {questions:,}", "questions ended with a release"
    words = f"questions ended with a release, and {refused:,} were refused as expected"
    if refused == 1:
        words = words.replace("were", "was")
    others = questions - released - refused
    return f"{released:,}", words + (f"; {others:,} ended otherwise" if others else "")


def _failures(played: Sequence[Entry]) -> Iterator[str]:
    for entry in played:
        if entry.holds:
            continue
        yield f'<div class="warning"><h3>{escaped(entry.name)}: {escaped(entry.title)}</h3>'
        if entry.failed:
            yield f"<p>It could not be played to the end: {prose(entry.failed)}</p>"
        missed = [verdict for verdict in entry.verdicts if not verdict.holds]
        if missed:
            yield "<ul>"
            yield from (f"<li>{prose(v.claim)} <strong>{prose(v.found)}</strong></li>" for v in missed)
            yield "</ul>"
        yield f"<p>To see it again:</p><pre>{escaped(entry.repeat)}</pre></div>"


def _findings(played: Sequence[Entry]) -> Iterator[str]:
    """Yield what was found on the expectations that say most: the first of a kind in some scenarios."""
    rows: list[tuple[str, str, str, str]] = []
    for kind in HEADLINES:
        first = {row[0]: row for row in reversed(_expected(played, (kind,)))}
        rows += list(first.values())[::-1][:_MOST_OF_A_KIND]
    if rows:
        heads = ("scenario", "expected", "found", "")
        yield table_html(Table("What was found, in short", heads, rows), "findings")


def _played_table(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        held = sum(verdict.holds for verdict in entry.verdicts)
        counted = f"{held} of {len(entry.verdicts)}"
        rows.append(
            (
                *(f'<a href="#s-{escaped(entry.key)}">{escaped(entry.name)}</a>', escaped(entry.title)),
                *(escaped(entry.stage), _number(entry, "parties"), _number(entry, "questions")),
                *(_number(entry, "faults"), counted if entry.played else "–"),
                *(_time(entry.took_s) if entry.played else "–", _mark(entry)),
            )
        )
    heads = (
        "scenario",
        "what it is",
        "stage",
        "parties",
        "questions",
        "faults",
        "expectations",
        "playing took",
        "",
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th><td>{row[1]}</td>{"".join(map(_short, row[2:]))}</tr>'
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<section>{region(table, 'What was played', 'played')}</section>"


def _short(cell: str) -> str:
    return f'<td class="short">{cell}</td>'


def _number(entry: Entry, fact: str) -> str:
    return f"{entry.facts[fact]:,}" if fact in entry.facts else "–"


def _mark(entry: Entry) -> str:
    if entry.skipped:
        return '<span class="skipped-mark">not played</span>'
    return _HOLDS if entry.holds else _FAILS


# --- chapters ---------------------------------------------------------------------------------------


def _chapter(chapter: Chapter, entries: Sequence[Entry]) -> Iterator[str]:
    words = INTRODUCTIONS[chapter]
    yield f'<section aria-labelledby="{chapter}"><h2 id="{chapter}">{words.title}</h2>'
    yield f'<p class="question">{prose(words.question)}</p>'
    yield from (f"<p>{prose(text)}</p>" for text in words.plain)
    yield f'<div class="checking"><p>For those who check: {prose(words.checking)}</p></div>'
    with_blocks = [entry for entry in entries if entry.chapters.get(chapter)]
    expected = _expected(entries, words.about & set(HEADLINES))
    if with_blocks:
        yield f'<nav class="within" aria-label="Scenarios in the chapter {words.title}"><ul>'
        for entry in with_blocks:
            title = escaped(entry.title or entry.name)
            yield f'<li><a href="#{chapter}-{escaped(entry.key)}">{title}</a></li>'
        yield "</ul></nav>"
    if expected:
        heads = ("scenario", "expected", "found", "")
        yield table_html(Table("What was expected, and what came", heads, expected), f"{chapter}-expected")
    if not with_blocks and not expected:
        yield '<p class="note">No scenario that was played says anything about this.</p>'
    for entry in with_blocks:
        place = f"{chapter}-{entry.key}"
        yield f'<h3 id="{escaped(place)}">{escaped(entry.title or entry.name)}</h3>'
        link = f'<a href="#s-{escaped(entry.key)}">{escaped(entry.name)}</a>'
        yield f'<p class="note">{link}, {escaped(entry.stage)}</p>'
        for number, block in enumerate(entry.chapters[chapter]):
            yield block_html(block, f"{_identifier(place)}-{number}")
    yield "</section>"


def _expected(entries: Iterable[Entry], kinds: Collection[str]) -> list[tuple[str, str, str, str]]:
    """Return scenario, expectation, finding and verdict for each expectation of some kinds."""
    return [
        (entry.name, verdict.claim, verdict.found, "✓ holds" if verdict.holds else "✗ fails")
        for entry in entries
        for verdict in entry.verdicts
        if verdict.kind in kinds
    ]


# --- scenarios --------------------------------------------------------------------------------------


def _scenarios(entries: Sequence[Entry]) -> Iterator[str]:
    yield '<section aria-labelledby="scenarios"><h2 id="scenarios">The scenarios</h2>'
    yield '<p class="question">What each shows, what was expected of it, and how to repeat it</p>'
    for entry in entries:
        yield f'<article><h3 id="s-{escaped(entry.key)}">{escaped(entry.title or entry.name)}</h3>'
        yield f'<p class="note">{_circumstance(entry)}</p>'
        about = [text for text in entry.about.split("\n\n") if text.strip()]
        if about:
            yield f'<p class="note">{AUTHORS}</p>'
        yield from (f"<p>{prose(text)}</p>" for text in about)
        if entry.skipped:
            yield f'<p class="warning">Not played: {prose(entry.skipped)}</p>'
        if entry.failed:
            yield f'<p class="warning">Not played to the end: {prose(entry.failed)}</p>'
        if entry.verdicts:
            yield _verdicts(entry.verdicts)
        if entry.repeat:
            yield f"<pre>{escaped(entry.repeat)}</pre>"
        yield "</article>"
    yield "</section>"


def _circumstance(entry: Entry) -> str:
    said = [f"{entry.name}.toml", f"stage {entry.stage}", f"seed {entry.seed}"]
    if entry.played:
        said += [
            f"engine {entry.engine}",
            entry.made.replace("T", " ")[:16] + " UTC",
            f"played in {_time(entry.took_s)}",
        ]
    return escaped(" · ".join(said))


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    items = "".join(
        f"<tr><td>{_HOLDS if v.holds else _FAILS}</td><td>{prose(v.claim)}</td><td>{prose(v.found)}</td></tr>"
        for v in verdicts
    )
    head = '<th scope="col"></th><th scope="col">expected</th><th scope="col">found</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{items}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="Expectations">{table}</div>'


def _identifier(text: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in text)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
