"""What travels: its shape does not depend on private data, and a suppressed value is never in it."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_engine.dp.accounting import Rule
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.release.groups import Groups
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.sharing.shared import Shared
from tests.world import Outcome, release, reveal, tally

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
        assert (outcome.releases[0].published.pattern[0] == pattern).all()
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
    shown = outcome.releases[0].published.pattern[0]
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
    opened = {int(v) for v in outcome.releases[0].published.values[0][shown]}
    assert opened == {int(v) for v in truth[shown]}
    ((_, _, listed),) = outcome.releases[0].tallies()
    assert [value is not None for value in listed] == shown.tolist()


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("outside", [0, 2])
def test_only_members_of_shown_groups_are_ever_sent(rule: Rule, outside: int) -> None:
    """Sums in both fields: what travels are the shares of members whose guard is shown, and no others."""
    groups = (
        Groups("g", tally("n", 40), (tally("m", 40, 5, step=120, signed=True), tally("d", 40, step=14400))),
        Groups("total", tally("n")),
    )
    draw = np.random.default_rng(6)
    mine = [draw.integers(0, 20, 40), draw.integers(-9, 9, 200), draw.integers(0, 9, 40), np.array([9])]
    outcome = release(
        [mine, mine, None, *[mine] * outside],
        groups=groups,
        rule=rule,
        epsilon="9",
        network={"record_payloads": True},
        threshold=20,
    )
    plan, pattern = outcome.releases[0].plan, outcome.releases[0].published.pattern
    assert 5 < pattern[0].sum() < 35
    sent = {key: m for m in outcome.network.transcript if (key := (m.sender, m.receiver, m.key))}
    assert len(sent) == len(outcome.network.transcript)
    usual = {i: outcome.computed[i].outputs for i in (1, 2, 3)}
    for block in plan.blocks:
        line = plan.lines[block.line]
        visible = np.repeat(pattern[line.group], line.per_group)
        for sender in usual:
            share = usual[sender][block.number].values
            for receiver in {1, 2, 3, *range(4, 4 + outside)} - {sender}:
                message = sent.pop((sender, receiver, MessageKey(block.number, Section.VALUES, 0)), None)
                if message is None:
                    assert not visible.any()
                else:
                    assert message.payload == line.field.encode(share[:, visible]).tobytes()
            # A hidden share occurs in no other message of the block, at any place.
            hidden = {int(v).to_bytes(line.field.element_bytes, "little") for v in share[0, ~visible]}
            others = [m.payload for m in sent.values() if m.sender == sender and m.key.chunk == block.number]
            for payload in others:
                assert payload is not None
                usable = len(payload) // line.field.element_bytes * line.field.element_bytes
                size = line.field.element_bytes
                found = hidden & {payload[i : i + size] for i in range(0, usable, size)}
                assert len(found) <= 1, "more suppressed shares in a message than chance explains"
    assert not [m for m in sent.values() if m.key.section is Section.VALUES]


def test_which_members_are_sent_depends_only_on_the_guards() -> None:
    """Other members and other guards of the same pattern: the same messages, to the byte count."""
    groups = (Groups("g", tally("n", 40), (tally("m", 40, 5, step=14400, signed=True),)),)
    pattern = np.arange(40) % 3 > 0
    shapes = []
    for low, high, member in ((0, 5, 0), (4, 1 << 20, 14400 << 20), (1, 77, -14400 << 20)):
        mine = [np.where(pattern, high, low), np.full(200, member)]
        nothing = [0 * each for each in mine]
        outcome = release([mine, nothing, None], groups=groups, rule=Rule.EXACT)
        assert (outcome.releases[0].published.pattern[0] == pattern).all()
        shapes.append(shape(outcome, *Section))
    assert shapes[0] == shapes[1] == shapes[2]


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
    shown = outcome.releases[0].published.pattern[0]
    np.testing.assert_array_equal(opened != 0, shown)
    assert len(set(opened[shown].tolist())) == shown.sum()


def test_public_results_hold_no_true_count_and_no_share() -> None:
    """A release names sizes, hashes and noisy values; a count unlike any other does not occur in it."""
    sentinel = 987_654
    outcome = release([np.array([sentinel, 3]), np.array([0, 1]), None])
    value = next(outcome.releases[0].tallies())[2][0]
    text = str(outcome.releases[0].as_fields()).replace(str(value), "", 1)
    assert str(sentinel) not in text or value == sentinel
    for share in (outcome.computed[i].outputs[0].values[0, 0] for i in (1, 2, 3)):
        assert str(int(share)) not in text
