"""Checks of utility on releases of whole sessions in memory, right ones and broken ones."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc_engine.errors import EngineError
from mpc_engine.harness.answers import opened_of, pool, question_of, sums_of
from mpc_engine.harness.checks import utility
from mpc_engine.harness.record import Run
from mpc_engine.scenario.expectations import Curator, Noise, Published
from tests.harness import played

SEED = 20
CELLS = 150


def counts(seed: int = SEED) -> dict[str, np.ndarray]:
    """Counts of three silos, of which about every third is small at each and large together."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    whole = rng.choice([0, 2, 4, 5, 7, 12, 30, 200], CELLS)
    parts = np.array([rng.multinomial(each, [0.6, 0.25, 0.15]) for each in whole]).T
    return dict(zip("abc", parts.astype(np.int64), strict=True))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A right engine's release of a made-up table."""
    sums = counts()
    run, query = played.table(tmp_path_factory.mktemp("table"), sums)
    played.answer(run, "query", query, {name: played.rows(each) for name, each in sums.items()}, SEED)
    return run


def doctored(run: Run, values: list[int | None]) -> Run:
    return replace(run, asked=[played.doctored(run.asked[0], values)], _sums=run._sums)


def as_published(noisy: np.ndarray, least: int = 5) -> list[int | None]:
    return [int(each) if each >= least else None for each in noisy]


def held(run: Run) -> list[bool]:
    """Whether errors and publication hold; that errors could have shown more is the third."""
    return [each.holds for each in utility.noise(run, Noise(kind="noise"))][:2]


def true(run: Run) -> np.ndarray:
    return pool(sums_of(run, run.asked[0])).records[0]


def test_a_right_engine_errs_and_publishes_as_its_table_says(session: Run) -> None:
    verdicts = utility.noise(session, Noise(kind="noise"))
    assert [each.holds for each in verdicts] == [True, True, True], verdicts


@pytest.mark.parametrize("rule", ["noisy", "strict", "exact"])
def test_it_holds_under_each_rule_and_shows_what_the_rule_says(rule: str, tmp_path: Path) -> None:
    sums = counts(3)
    terms = {"rule": rule, **({"delta": "1e-6"} if rule == "strict" else {})}
    run, query = played.table(tmp_path, sums, **terms)
    played.answer(run, "query", query, {name: played.rows(each) for name, each in sums.items()}, 3)
    assert held(run) == [True, True]
    (least,) = utility.published(run, Published(kind="published", most_below_threshold=0))
    below = np.nansum(sum(sums.values())[~np.isnan(opened_of(run.asked[0]).groups["cells"].guard.values)] < 5)
    assert least.holds == (below == 0) and (rule == "noisy" or least.holds)


def test_no_noise_at_all_is_found(session: Run) -> None:
    bare = doctored(session, as_published(true(session)))
    assert held(bare)[0] is False
    # Adding noise to decide, and publishing without it, is found by the values alone.
    release = session.asked[0].release
    assert release is not None
    shown = release["groups"][0]["tallies"][0]["values"]
    half = doctored(
        session,
        [None if each is None else max(5, int(c)) for each, c in zip(shown, true(session), strict=True)],
    )
    assert held(half) == [False, True]


@pytest.mark.parametrize("factor", [Fraction(1, 2), Fraction(2)])
def test_noise_of_another_size_is_found(session: Run, factor: Fraction) -> None:
    c = true(session)
    noisy = c + played.noise(factor, c.size, np.random.default_rng(5))
    assert held(doctored(session, as_published(noisy)))[0] is False


def test_the_right_noise_drawn_in_another_way_is_not_found(session: Run) -> None:
    c = true(session)
    for seed in range(5):
        noisy = c + played.noise(Fraction(1), c.size, np.random.default_rng(seed))
        assert held(doctored(session, as_published(noisy))) == [True, True]


def test_a_threshold_at_one_site_before_pooling_is_found(tmp_path: Path) -> None:
    sums = counts()
    masked = dict(sums, c=np.where(sums["c"] < 5, 0, sums["c"]))
    run, query = played.table(tmp_path, sums)
    brought = {name: played.rows(each) for name, each in masked.items()}
    played.answer(
        run, "query", query, {name: played.rows(each) for name, each in sums.items()}, 1, counted=brought
    )
    assert held(run)[0] is False


def test_a_cell_shown_against_the_rule_is_found(session: Run) -> None:
    c = true(session)
    noisy = c + played.noise(Fraction(1), c.size, np.random.default_rng(1))
    values = as_published(noisy)
    values[int(np.argmin(c))] = 2  # below k
    found = utility.noise(doctored(session, values), Noise(kind="noise"))
    assert not found[0].holds and "exclude" in found[0].found
    values[int(np.argmax(c))] = int(c.max()) + 100  # beyond the noise's range
    assert not held(doctored(session, values))[0]


def test_other_noise_tables_than_the_querys_are_found(session: Run) -> None:
    release = session.asked[0].release
    assert release is not None
    parameters = dict(release["parameters"])
    parameters["split"] = [{**each, "noise_table": "00" * 32} for each in parameters["split"]]
    asked = replace(session.asked[0], release={**release, "parameters": parameters})
    run = replace(session, asked=[asked], _sums=session._sums)
    with pytest.raises(EngineError, match="noise tables"):
        utility.noise(run, Noise(kind="noise"))


def test_p_values_are_spread_evenly_over_right_releases(session: Run) -> None:
    """Of 60 right releases no test finds too few or too many small p-values."""
    from mpc_engine.harness.noise_tests import Shown, error_tests, publication_tests

    c, question = true(session), question_of(session, session.asked[0])
    rng = np.random.default_rng(11)
    found: dict[str, list[float]] = {}
    for _ in range(60):
        noisy = c + played.noise(Fraction(1), c.size, rng)
        values = np.where(noisy >= 5, noisy, np.nan)
        release = [Shown(question, pool(sums_of(session, session.asked[0])), [values])]
        for tests in (error_tests(release), publication_tests(release)):
            for name, p in tests.p.items():
                found.setdefault(name, []).append(p)
    assert len(found) == 5
    for name, p in found.items():
        assert 2 <= sum(each < 0.25 for each in p) <= 30, (name, p)


def test_a_curator_errs_as_the_engine_and_noise_at_each_site_more(session: Run) -> None:
    alike, worse = utility.curator(session, Curator(kind="curator"))
    assert alike.holds and "0.000203" in alike.found, alike
    assert worse.holds and "√3 = 1.7321" in worse.claim, worse


@pytest.mark.parametrize("times", [0, 3])
def test_errors_unlike_a_curators_are_found(session: Run, times: int) -> None:
    c = true(session)
    rng = np.random.default_rng(2)
    noisy = c + sum(
        (played.noise(Fraction(1), c.size, rng) for _ in range(times)), np.zeros(c.size, np.int64)
    )
    alike, _ = utility.curator(doctored(session, as_published(noisy)), Curator(kind="curator"))
    assert not alike.holds


def test_noise_at_sites_that_is_not_theirs_is_found(session: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """If OpenDP's draws were the same at every site, they would add up to more than theory says."""
    from mpc_engine.harness import noise_tests

    fixed = played.noise(Fraction(1), noise_tests.COMPARED * 2, np.random.default_rng(4))
    monkeypatch.setattr(noise_tests, "curator_noise", lambda epsilon, size: fixed[:size])
    _, worse = utility.curator(replace(session, _sums=session._sums), Curator(kind="curator"))
    assert not worse.holds


def test_published_cells_are_counted(session: Run) -> None:
    values = session.asked[0].release["groups"][0]["tallies"][0]["values"]  # type: ignore[index]
    shown = sum(each is not None for each in values)
    below = sum(bool(each is not None and c < 5) for each, c in zip(values, true(session), strict=True))
    for fields, holds in (
        ({"least": shown, "most": shown, "most_below_threshold": below}, [True] * 3),
        ({"least": shown + 1}, [False]),
        ({"most": shown - 1}, [False]),
    ):
        verdicts = utility.published(session, Published(kind="published", **fields))
        assert [each.holds for each in verdicts] == holds


def test_nothing_released_is_said(session: Run) -> None:
    run = replace(session, asked=[replace(session.asked[0], release=None)])
    with pytest.raises(LookupError, match="no release of query"):
        utility.noise(run, Noise(kind="noise"))
    with pytest.raises(LookupError, match="no release of query"):
        utility.curator(run, Curator(kind="curator"))
