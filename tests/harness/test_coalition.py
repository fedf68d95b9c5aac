"""What parties saw is read as the protocols wrote it, and what is wrong with it is found."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from scipy import stats

from mpc_engine.dp.accounting import Rule
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.harness.coalition import (
    NOTHING,
    Finding,
    Secret,
    _classes,
    _contingency,
    across,
    findings,
    splits,
    together,
)
from mpc_engine.harness.record import Seen
from mpc_engine.harness.transcripts import View, read_view
from mpc_engine.protocols import signs, threshold
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.scenario.expectations import P_LEAST
from mpc_engine.sharing.streams import StreamKey
from tests.harness.broken_engines import broken, no_zero_sharing, noise_known_to_one_party, stream_used_twice
from tests.world import Outcome, release, tally

CELLS = 1_200
RECORDED = {"record_payloads": True}


def counts_of(cells: int = CELLS, seed: int = 1) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 8, cells) for _ in range(2)]


def seen_by(outcome: Outcome, me: int) -> list[Seen]:
    found = []
    for sent in outcome.network.transcript:
        content = sent.payload or b""
        if sent.receiver == me:
            found.append(Seen(b"s", "received", sent.sender, sent.key, content))
        elif sent.sender == me:
            found.append(Seen(b"s", "sent", sent.receiver, sent.key, content))
    return found


def views_of(outcome: Outcome, drawn: dict[int, list[Seen]] | None = None) -> list[View]:
    first = outcome.releases[0]
    return [
        read_view(
            first.plan, me, [*seen_by(outcome, me), *(drawn or {}).get(me, [])], first.published.pattern
        )
        for me in range(1, len(first.plan.members) + 1)
    ]


def secrets_of(outcome: Outcome, counts: Sequence[np.ndarray | None], members: Sequence[int]) -> list[Secret]:
    held = {i: each for i, each in enumerate(counts, start=1) if each is not None}
    whole = np.sum(list(held.values()), axis=0)
    others = np.sum([each for i, each in held.items() if i not in members] or [0 * whole], axis=0)
    published = outcome.releases[0].published
    noise = np.where(published.pattern[0], published.values[0] - whole, NOTHING)
    return [Secret("the others' counts", 0, others), Secret("noise", 0, noise)]


def found_by(
    outcome: Outcome,
    counts: Sequence[np.ndarray | None],
    *members: int,
    drawn: dict[int, list[Seen]] | None = None,
) -> dict[str, Finding]:
    views = [view for view in views_of(outcome, drawn) if view.me in members]
    assert sum(view.unread for view in views) == 0
    return {each.family: each for each in findings(views, secrets_of(outcome, counts, members))}


def least(found: dict[str, Finding]) -> float:
    return min(each.p for each in found.values())


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("seed", [1, 2])
def test_a_right_session_shows_nothing(rule: Rule, seed: int) -> None:
    counts = [*(each * (1 + 4 * (rule is Rule.STRICT)) for each in counts_of()), None]
    outcome = release(counts, seed=seed, network=RECORDED, rule=rule)
    for me in (1, 2, 3):
        found = found_by(outcome, counts, me)
        assert least(found) > 1e-4
        assert all(found[family].tests > 100 for family in ("uniformity", "independence", "streams"))
        assert found["discriminant"].tests == found["repeats"].tests == 1


def test_coalitions_of_two_of_five_and_a_silo_outside() -> None:
    counts = [*counts_of(600), None, None, None, counts_of(600)[0]]
    outcome = release(counts, 5, seed=4, network=RECORDED)
    for members in ((1, 2), (3, 5), (2, 4), (6,)):
        found = found_by(outcome, counts, *members)
        assert least(found) > 1e-4
        assert found["uniformity"].tests > 2
        assert "discriminant" not in found


def test_groups_with_wide_members_are_read() -> None:
    """Members summed in the wider field; names of rows with their own block."""
    from mpc_engine.release.groups import Groups

    groups = (Groups("g", tally("n", 300), (tally("m", 300, 2, step=14400, signed=True),)),)
    mine = [np.full(300, 9), np.zeros(600, np.int64)]
    outcome = release([mine, mine, None], seed=5, groups=groups, network=RECORDED, epsilon="9")
    views = views_of(outcome)
    assert sum(view.unread for view in views) == 0
    orders = {row.order.bit_length() for view in views for row in view.rows}
    assert orders == {2, 31, 61}
    assert least({each.family: each for each in findings(views[:1], [])}) > 1e-4


def test_products_opened_without_a_sharing_of_zero() -> None:
    counts = [*counts_of(), None]
    with broken(no_zero_sharing()):
        outcome = release(counts, seed=6, network=RECORDED)
    found = found_by(outcome, counts, 2)
    assert found.pop("discriminant").p < 1e-100
    assert least(found) > 1e-4


def test_a_stream_used_twice() -> None:
    counts = [*counts_of(), None]
    with broken(stream_used_twice()):
        outcome = release(counts, seed=7, network=RECORDED)
    who = {me: found_by(outcome, counts, me)["streams"].p for me in (1, 2, 3)}
    assert min(who.values()) < 1e-100


def test_noise_that_one_party_knows() -> None:
    """Party 1 finds the noise in what it drew; nobody else does."""
    counts = [*counts_of(), None]
    drawn: dict[int, list[Seen]] = {}

    def watched(random_bits):  # type: ignore[no-untyped-def]
        def watch(keys, *given):  # type: ignore[no-untyped-def]
            shares, parts = random_bits(keys, *given)
            key = MessageKey(0, Section.PREPARE, 0)
            content = np.stack(list(parts.values())).tobytes()
            drawn.setdefault(keys.me, []).append(Seen(b"s", "drawn", 0, key, content))
            return shares, parts

        return watch

    with mock.patch.object(signs, "random_bits", watched(signs.random_bits)):
        right = release(counts, seed=8, network=RECORDED)
        assert min(found_by(right, counts, me, drawn=drawn)["drawn"].p for me in (1, 2, 3)) > 1e-4
        assert found_by(right, counts, 1, drawn=drawn)["drawn"].tests > 20
    drawn.clear()
    with (
        broken(noise_known_to_one_party()),
        mock.patch.object(signs, "random_bits", watched(signs.random_bits)),
    ):
        outcome = release(counts, seed=8, network=RECORDED)
    assert found_by(outcome, counts, 1, drawn=drawn)["drawn"].p < 1e-50


def test_pads_that_are_not_uniform() -> None:
    counts = [*counts_of(), None]
    uniform = StreamKey.uniform

    def coarse(self, *given):  # type: ignore[no-untyped-def]
        return uniform(self, *given) & np.uint64(7)

    with mock.patch.object(StreamKey, "uniform", coarse):
        outcome = release(counts, seed=9, network=RECORDED)
    found = found_by(outcome, counts, 3)
    assert found["uniformity"].p < 1e-100


def test_masks_that_are_not_there() -> None:
    """Products opened without their mask tell the value, and with it the noise."""
    counts = [*counts_of(), None]

    def ones(keys, n, name, field, shape):  # type: ignore[no-untyped-def]
        return np.ones(shape, np.uint64)

    with mock.patch.object(threshold, "random_elements", ones):
        outcome = release(counts, seed=10, network=RECORDED)
    found = found_by(outcome, counts, 3)
    assert min(found["uniformity"].p, found["independence"].p) < P_LEAST


def test_a_share_that_follows_the_data() -> None:
    """One row of a message is replaced by uniform numbers whose size goes with the other silos' counts."""
    counts = [*counts_of(), None]
    outcome = release(counts, seed=11, network=RECORDED)
    view = views_of(outcome)[2]
    secrets = secrets_of(outcome, counts, [3])
    place = next(
        i for i, row in enumerate(view.rows) if row.key.section is Section.TEST and row.what == "received"
    )
    row = view.rows[place]
    order = np.argsort(np.random.default_rng(1).random(CELLS) + 0.3 * secrets[0].values)
    follows = np.empty(CELLS, np.uint64)
    follows[order] = np.sort(np.asarray(row.values))
    view.rows[place] = type(row)(**{**vars(row), "values": follows})
    found = {each.family: each for each in findings([view], secrets)}
    assert found["uniformity"].p > 1e-4
    assert found["independence"].p < P_LEAST
    assert found["independence"].worst.startswith("TEST")


def test_messages_that_repeat_in_and_between_sessions() -> None:
    counts = [*counts_of(), None]
    outcome = release(counts, seed=12, network=RECORDED)
    view = views_of(outcome)[0]
    other = views_of(release(counts, seed=13, network=RECORDED))[0]
    assert across([[view], [other]]).p == 1
    again = views_of(release(counts, seed=12, network=RECORDED))[0]
    assert across([[view], [again]]).p < 1e-100
    what, peer, key, content = next(each for each in view.contents if each[0] == "received")
    view.contents.append((what, peer, MessageKey(key.chunk, key.section, 99), content[:64]))
    assert {each.family: each for each in findings([view], [])}["repeats"].p < P_LEAST


def test_messages_that_are_not_as_planned_are_counted() -> None:
    outcome = release([*counts_of(), None], seed=14, network=RECORDED)
    first = outcome.releases[0]
    seen = seen_by(outcome, 1)
    for change in (lambda each: each.content[:-4], lambda each: each.content + bytes(4)):
        odd = [
            Seen(
                b"s", each.what, each.peer, each.key, change(each) if each.key.section == 2 else each.content
            )
            for each in seen
        ]
        assert read_view(first.plan, 1, odd, first.published.pattern).unread > 0
    beyond = [Seen(b"s", "received", 2, MessageKey(9, Section.INPUT, 0), bytes(4))]
    assert read_view(first.plan, 1, beyond, first.published.pattern).unread == 1


def test_what_is_published_again_is_read_once() -> None:
    outcome = release([*counts_of(), None], seed=15, network=RECORDED)
    first = outcome.releases[0]
    seen = seen_by(outcome, 1)
    once = read_view(first.plan, 1, seen, first.published.pattern)
    twice = read_view(first.plan, 1, seen * 2, first.published.pattern)
    assert len(twice.rows) == len(once.rows)
    assert {each.family: each.p for each in findings([twice], [])}["repeats"] == 1


def test_polynomials_split_where_their_roots_are_in_the_field() -> None:
    """Oracle: products of linear polynomials split; x² − n for a non-square n, moved and scaled, does not."""
    p, generator = COUNTS.p, np.random.default_rng(16)
    nonsquare = next(n for n in range(2, 50) if pow(n, (p - 1) // 2, p) == p - 1)
    draws = generator.integers(1, p, (200, 3)).tolist()
    reducible = [[c * (x - a) * (x - b) % p for x in (1, 2, 3)] for a, b, c in draws]
    prime = [[c * ((x - a) ** 2 - nonsquare * b * b) % p for x in (1, 2, 3)] for a, b, c in draws]
    squares = [[c * (x - a) ** 2 % p for x in (1, 2, 3)] for a, _, c in draws]
    for points, answer in ((reducible, True), (prime, False), (squares, True)):
        assert (splits(list(np.array(points, np.uint64).T)) == answer).all()
    free = generator.integers(0, p, (3, 100_000), dtype=np.uint64)
    assert stats.binomtest(int(splits(list(free)).sum()), 100_000).pvalue > 1e-4


def test_classes_are_large_enough_and_in_order() -> None:
    values = np.concatenate([np.repeat([0, 1, 2, 3], [900, 40, 300, 100]), [NOTHING] * 50])
    known, classes = _classes(values)
    assert known.sum() == 1_340
    assert np.bincount(classes).min() >= 256
    assert (np.diff(classes) >= 0).all()
    assert _classes(values[-50:])[1].size == 0
    assert _classes(np.zeros(100, np.int64))[1].max() == 0


def test_contingency_tables_keep_their_level_far_out() -> None:
    """χ² at the fewest cells per class: p-values below 10⁻⁴ come at most about as often as that."""
    generator = np.random.default_rng(17)
    tables = generator.multinomial(2_048, np.full(64, 1 / 64), 100_000).reshape(-1, 8, 8).astype(float)
    expected = tables.sum(2, keepdims=True) * tables.sum(1, keepdims=True) / 2_048
    statistic = ((tables - expected) ** 2 / expected).sum((1, 2))
    few = int((stats.chi2.sf(statistic, 49) < 1e-4).sum())
    assert few <= stats.binom.isf(1e-6, 100_000, 2e-4)
    rows, columns = np.nonzero(np.ones((8, 8)))
    flat = tables[0].astype(int).reshape(-1)
    assert _contingency(np.repeat(rows, flat), np.repeat(columns, flat)) == pytest.approx(
        float(stats.chi2.sf(statistic[0], 49))
    )


def test_findings_of_several_are_joined() -> None:
    found = [
        Finding("a", 10, 0.01, "x"),
        Finding("a", 5, 0.5, "y"),
        Finding("a", 0, 1.0, ""),
        Finding("b", 0, 1, ""),
    ]
    one, two = together(found)
    assert (one.family, one.tests, one.worst) == ("a", 15, "x")
    assert one.p == pytest.approx(0.02)
    assert (two.tests, two.p) == (0, 1)
