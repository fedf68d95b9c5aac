"""What travels: its shape does not depend on private data, and a suppressed value is never in it."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_engine.dp.accounting import Rule
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.sharing.shared import Shared
from tests.world import Outcome, release, reveal

CELLS = 257
Shape = list[tuple[int, int, MessageKey, int]]

DATA = {
    "nobody": np.zeros((2, CELLS), int),
    "few": np.arange(2 * CELLS).reshape(2, CELLS) % 6,
    "one cell": np.pad([[1 << 19], [1 << 19]], ((0, 0), (100, CELLS - 101))),
    "many": np.full((2, CELLS), (1 << 20) - 1),
}


def shape(outcome: Outcome, *sections: Section) -> Shape:
    """Sender, receiver, place and size of every message."""
    assert len(outcome.releases) == len(outcome.sessions)
    return sorted(
        (m.sender, m.receiver, m.key, m.size) for m in outcome.network.transcript if m.key.section in sections
    )


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize(("n", "outside"), [(3, 0), (5, 0), (3, 2)])
def test_rounds_and_sizes_up_to_the_values_are_the_same_for_all_data(
    rule: Rule, n: int, outside: int
) -> None:
    shapes = []
    for counts in DATA.values():
        outcome = release([*counts, *[None] * (n - 2), *[counts[0]] * outside], n, rule=rule)
        shapes.append(shape(outcome, *(set(Section) - {Section.VALUES})))
        order = [m.key.section for m in outcome.network.transcript if m.sender == 1]
        assert [s for s in order if s is not Section.CONTROL] == sorted(
            s for s in order if s is not Section.CONTROL
        )
    assert all(each == shapes[0] for each in shapes) and shapes[0]


def test_what_follows_depends_only_on_the_pattern() -> None:
    """Under rule exact data give the pattern: other data of the same pattern, the same messages."""
    pattern = np.arange(CELLS) % 3 > 0
    shapes = []
    for low, high in ((0, 5), (4, 1 << 20), (1, 77)):
        outcome = release([np.where(pattern, high, low), np.zeros(CELLS), None], rule=Rule.EXACT)
        assert (outcome.releases[0].published.shown == pattern).all()
        shapes.append(shape(outcome, *Section))
    assert shapes[0] == shapes[1] == shapes[2]
    sizes = {size for *_, key, size in shapes[0] if key.section is Section.VALUES}
    assert sizes == {4 * int(pattern.sum())}


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("outside", [0, 2])
def test_only_shares_of_shown_cells_are_ever_sent(rule: Rule, outside: int) -> None:
    counts = np.random.default_rng(5).integers(0, 15, (2, CELLS))
    outcome = release(
        [*counts, None, *[counts[0] * 0] * outside],
        rule=rule,
        network={"record_payloads": True},
        threshold=5 if rule is Rule.STRICT else 12,
    )
    shown = outcome.releases[0].published.shown
    assert 20 < shown.sum() < CELLS - 20, shown.sum()
    shares = {i: outcome.computed[i].outputs[0].values for i in (1, 2, 3)}
    values = [m for m in outcome.network.transcript if m.key.section is Section.VALUES]
    assert {(m.sender, m.receiver) for m in values} == {
        (s, r) for s in (1, 2, 3) for r in range(1, 4 + outside) if s != r
    }
    for sent in values:
        assert sent.payload == COUNTS.encode(shares[sent.sender][:, shown]).tobytes()

    # A suppressed cell's share occurs in no message at all, wherever one looks for its four bytes.
    hidden = {i: set(COUNTS.encode(shares[i][0, ~shown]).tolist()) for i in shares}
    for sent in outcome.network.transcript:
        assert sent.payload is not None
        if sent.key.section is not Section.CONTROL and sent.sender in hidden:
            usable = sent.payload[: len(sent.payload) // 4 * 4]
            found = hidden[sent.sender] & set(np.frombuffer(usable, "<u4").tolist())
            assert len(found) <= 1, "more suppressed shares in a message than chance explains"

    # Nor does the noisy value itself: the only openings that t + 1 parties' messages allow.
    truth = reveal([Shared(COUNTS, s) for s in shares.values()])[0]
    opened = {int(v) for v in outcome.releases[0].published.values[shown]}
    assert opened == {int(v) for v in truth[shown]}
    for cell in outcome.releases[0].cells():
        assert (cell["value"] is None) == (cell["flag"] == "c")


def test_a_product_opened_for_a_hidden_cell_is_zero_and_for_a_shown_one_random() -> None:
    """What the pattern's opening holds: the sums of the messages in section PATTERN."""
    counts = np.repeat([0, 100], 1 << 10)
    outcome = release([counts, 0 * counts, None], network={"record_payloads": True})
    parts = {
        m.sender: np.frombuffer(m.payload or b"", "<u4").astype(np.uint64)
        for m in outcome.network.transcript
        if m.key.section is Section.PATTERN
    }
    assert sorted(parts) == [1, 2, 3]
    opened = COUNTS.canonical(COUNTS.add(*parts.values()))
    shown = outcome.releases[0].published.shown
    np.testing.assert_array_equal(opened != 0, shown)
    assert len(set(opened[shown].tolist())) == shown.sum()


def test_public_results_hold_no_true_count_and_no_share() -> None:
    """A release names sizes, hashes and noisy values; a count unlike any other does not occur in it."""
    sentinel = 987_654
    outcome = release([np.array([sentinel, 3]), np.array([0, 1]), None])
    value = outcome.releases[0].cells()[0]["value"]
    text = str(outcome.releases[0].as_fields()).replace(str(value), "", 1)
    assert str(sentinel) not in text or value == sentinel
    for share in (outcome.computed[i].outputs[0].values[0, 0] for i in (1, 2, 3)):
        assert str(int(share)) not in text
