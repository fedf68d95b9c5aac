"""Keyed streams: equal at all holders, never drawn twice, uniform by rejection."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc_engine.errors import StreamReuseError
from mpc_engine.field.binary import BinaryField
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.sharing.streams import KEY_BYTES, StreamKey

FIELDS = pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)
KEY = bytes(range(KEY_BYTES))


def holder(key: bytes = KEY) -> StreamKey:
    return StreamKey(key, "pair:1-2")


DRAWS: dict[str, Callable[[StreamKey, str], Any]] = {
    "bits": lambda key, name: key.bits(name, 2, 5),
    "elements": lambda key, name: key.elements(name, COUNTS, (3, 5)),
    "wide": lambda key, name: key.elements(name, WIDE, (7,)),
    "uniform": lambda key, name: key.uniform(name, BinaryField(3), 2, 65),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_holders_agree_whatever_the_order(draw: Callable[[StreamKey, str], Any]) -> None:
    a, b, stranger = holder(), holder(), holder(bytes(KEY_BYTES))
    first = {name: draw(a, name) for name in ("x", "y", "z")}
    second = {name: draw(b, name) for name in ("z", "x", "y")}
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        assert (draw(stranger, name) != first[name]).any()
    assert (first["x"] != first["y"]).any()


@pytest.mark.parametrize("again", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_name_is_drawn_once(
    draw: Callable[[StreamKey, str], Any], again: Callable[[StreamKey, str], Any]
) -> None:
    key = holder()
    draw(key, "0/a:b")
    with pytest.raises(StreamReuseError, match="0/a:b"):
        again(key, "0/a:b")
    again(key, "0/a:c")


def test_streams_do_not_overlap() -> None:
    """Names that differ in one letter, and long streams: no 16-byte block occurs twice."""
    key = holder()
    drawn = [key.bits(f"{chunk}/noise/coins:literals", 3, 4001) for chunk in range(4)]
    blocks = np.concatenate([d.reshape(-1)[: d.size // 2 * 2].reshape(-1, 2) for d in drawn])
    assert len(np.unique(blocks, axis=0)) == len(blocks)


class Spoiled:
    """A cipher in whose first streams chosen words come out as p: all ones, before the top bits go."""

    def __init__(self, key: StreamKey, words: list[list[int]], size: int) -> None:
        self.inner, self.words, self.size, self.fills = key._cipher, words, size, -1

    def reset_nonce(self, nonce: bytes) -> None:
        self.inner.reset_nonce(nonce)
        self.fills += 1

    def update_into(self, zeros: memoryview, out: memoryview) -> int:
        written = self.inner.update_into(zeros, out)
        for word in self.words[self.fills] if self.fills < len(self.words) else ():
            out[word * self.size : (word + 1) * self.size] = b"\xff" * self.size
        return written


@FIELDS
def test_words_equal_to_p_are_redrawn_alike_at_all_holders(field: MersenneField) -> None:
    """Words 2, 5, 9 of the stream and the second word of its overflow are p; the third draw is clean."""
    clean = holder().elements("x", field, (2, 6))
    holders = [holder(), holder()]
    for key in holders:
        key._cipher = Spoiled(key, [[2, 5, 9], [1]], field.element_bytes)
    one, other = (key.elements("x", field, (2, 6)) for key in holders)
    np.testing.assert_array_equal(one, other)
    assert int(one.max()) < field.p
    kept = [k for k in range(12) if k not in (2, 5, 9)]
    np.testing.assert_array_equal(one.reshape(-1)[kept], clean.reshape(-1)[kept])
    more = holder().elements("x/overflow1", field, (3,)).tolist()
    last = holder().elements("x/overflow2", field, (1,)).tolist()
    assert one.reshape(-1)[[2, 5, 9]].tolist() == [more[0], last[0], more[2]]
    with pytest.raises(StreamReuseError):
        holders[0].elements("x/overflow1", field, (1,))


@FIELDS
def test_only_p_itself_is_redrawn(field: MersenneField) -> None:
    """The other representative of zero would be as biased as a reduction."""
    key = holder()

    class AllBut(Spoiled):
        def update_into(self, zeros: memoryview, out: memoryview) -> int:
            words = np.array([0, 1, field.p - 1], field.wire)
            out[: words.nbytes] = words.tobytes()
            return len(out)

    key._cipher = AllBut(key, [], 0)
    assert key.elements("x", field, (3,)).tolist() == [0, 1, field.p - 1]


@FIELDS
def test_elements_are_uniform(field: MersenneField) -> None:
    """Leading and trailing digits; the key is fixed, so the outcome is."""
    values = holder().elements("uniform", field, (1 << 18,)).astype(object)
    for digits in (values * 256 // field.p, values % 256, values * 97 // field.p):
        assert stats.chisquare(np.bincount(digits.astype(int))).pvalue > 1e-4


def test_bits_are_uniform() -> None:
    bits = np.unpackbits(holder().bits("uniform", 1, 1 << 13).view(np.uint8))
    assert abs(int(bits.sum()) * 2 - bits.size) < 4 * bits.size**0.5


def test_nothing_of_a_key_shows() -> None:
    key = holder(b"0123456789abcdef")
    assert "0123" not in repr(key) + str(key) and not hasattr(key, "__dict__")
    with pytest.raises(TypeError, match="never stored"):
        pickle.dumps(key)
    with pytest.raises(ValueError, match="16 bytes"):
        holder(b"short")


def test_an_empty_draw_takes_no_name() -> None:
    key = holder()
    assert key.bits("x", 0, 5).shape == (0, 5)
    assert key.elements("x", COUNTS, (0, 3)).shape == (0, 3)
    assert key.elements("x", COUNTS, (1, 3)).shape == (1, 3)
