"""The oracle against plain arithmetic: with fixed randomness its output is known in every cell."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle.mpyc_release import ROOT, STYLES, TABLE_A, Coins, Job, Outcome, Words, run

SMALL = Coins(magnitude=((3, 3), (1, 2), (1, 4)), nonzero=(5, 3))


def in_the_clear(job: Job) -> list[int | None]:
    """Return the release that the job's fixed words lead to."""
    assert job.words is not None
    values: list[int | None] = []
    for cell, counts in enumerate(zip(*job.counts, strict=True)):
        *magnitude, nonzero = (
            int(words[cell] < numerator)
            for (numerator, _), words in zip(job.coins.all, job.words.coins, strict=True)
        )
        size = 1 + sum(bit << i for i, bit in enumerate(magnitude))
        value = sum(counts) + (-size if job.words.signs[cell] else size) * nonzero
        values.append(value if value >= job.threshold else None)
    return values


def boundary_words(coins: Coins) -> list[tuple[int, ...]]:
    """Return words at and around every constant: c - 1, c, c + 1, both ends, c with each bit flipped."""
    rows = []
    for numerator, bits in coins.all:
        near = [numerator - 1, numerator, min(numerator + 1, (1 << bits) - 1), 0, (1 << bits) - 1]
        rows.append((*near, *(numerator ^ 1 << i for i in range(bits))))
    longest = max(map(len, rows))
    return [tuple(row[i % len(row)] for i in range(longest)) for row in rows]


def agrees(outcome: Outcome, expected: list[int | None]) -> None:
    assert outcome.values == expected
    assert outcome.suppressed == [value is None for value in expected]


@pytest.mark.parametrize("style", STYLES)
def test_each_constant_is_compared_exactly(style: str) -> None:
    coins = boundary_words(TABLE_A)
    cells = len(coins[0])
    # Far above the threshold every value is shown, so that each wrong coin shows too.
    job = Job(
        ((100,) * cells, (200,) * cells),
        words=Words(tuple(coins), (0, 1) * (cells // 2) + (0,) * (cells % 2)),
    )
    expected = in_the_clear(job)
    assert len(set(expected)) > 10
    agrees(run(job, style=style), expected)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("parties", [3, 5])
def test_random_cells_about_the_threshold(style: str, parties: int) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print("seed", seed)
    draw = random.Random(seed)
    cells = 60
    job = Job(
        counts=tuple(tuple(draw.randrange(5) for _ in range(cells)) for _ in range(parties - 1)),
        coins=SMALL,
        threshold=draw.randrange(1, 12),
        words=Words(
            coins=tuple(tuple(draw.randrange(1 << bits) for _ in range(cells)) for _, bits in SMALL.all),
            signs=tuple(draw.randrange(2) for _ in range(cells)),
        ),
    )
    agrees(run(job, parties=parties, style=style), in_the_clear(job))


@pytest.mark.parametrize("style", STYLES)
def test_every_value_below_the_threshold_and_none_above_is_suppressed(style: str) -> None:
    # G = 2^K - 1 in every cell: v runs from -2^K, the least it can be, to beyond the threshold.
    counts = tuple(range(2 * SMALL.limit + 12))
    extreme = Words(tuple((0,) * len(counts) for _ in SMALL.all), (1,) * len(counts))
    expected = [v if v >= 5 else None for v in (c - SMALL.limit for c in counts)]
    agrees(run(Job((counts,), coins=SMALL, words=extreme), style=style), expected)


def test_all_cells_suppressed() -> None:
    words = Words(tuple(((1 << bits) - 1,) * 2 for _, bits in TABLE_A.all), (0, 0))
    agrees(run(Job(((0, 1), (1, 3)), words=words)), [None, None])


def test_own_randomness_differs_from_run_to_run_and_stays_in_range() -> None:
    job = Job(((500,) * 40, (400,) * 40), coins=SMALL)
    first, second = run(job), run(job)
    assert first.values != second.values
    for outcome in (first, second):
        assert all(v is not None and abs(v - 900) <= SMALL.limit for v in outcome.values)
        assert len(outcome.cpu_s) == 3 and all(cost > 0 for cost in outcome.cpu_s)
        assert all(cost > 40 for cost in outcome.bytes_sent)
        assert all(rounds > 3 for rounds in outcome.messages)


def test_command_line_prints_one_object(tmp_path: Path) -> None:
    files = {
        "counts": [[7, 0], [8, 1]],
        "coins": {"magnitude": [[1, 1]], "nonzero": [1, 1]},
        "coin-bits": {"coins": [[0, 1], [0, 1]], "signs": [1, 0]},
    }
    command = [sys.executable, str(ROOT / "tests/oracle/mpyc_release.py"), "-M3", "--threshold=2"]
    for name, content in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        command.append(f"--{name}={path}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    outcome = json.loads(done.stdout)
    assert outcome["values"] == [13, None]
    assert outcome["suppressed"] == [False, True]


def test_a_party_that_fails_ends_all_of_them() -> None:
    # One word per coin for two cells: the dealer of the words cannot shape its array.
    words = Words(tuple((0,) for _ in SMALL.all), (0, 0))
    with pytest.raises(RuntimeError, match="party"):
        run(Job(((1, 2),), coins=SMALL, words=words), timeout_s=30)


def test_more_silos_than_parties_is_refused() -> None:
    with pytest.raises(ValueError, match="silo"):
        run(Job(((1,), (1,), (1,), (1,))))
