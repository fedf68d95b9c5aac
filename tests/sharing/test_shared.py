"""Shared values cannot be branched on, compared, printed or stored; local operations are linear."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from mpc_engine.field.binary import BinaryField
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.sharing.shared import Shared, SharedBits
from tests.world import reveal, share_vector

SECRET = 1234567
VALUES = [
    Shared(COUNTS, np.full((1, 3), SECRET, np.uint64)),
    SharedBits(BinaryField(2), np.full((2, 1, 1), SECRET, np.uint64)),
]

MISUSES: dict[str, Callable[[Shared | SharedBits], object]] = {
    "bool": bool,
    "if": lambda x: 1 if x else 0,
    "not": lambda x: not x,
    "and": lambda x: x and x,
    "==": lambda x: x == x,
    "!=": lambda x: x != 0,
    "in": lambda x: x in [0],
    "<": lambda x: x < x,  # type: ignore[operator]
    "hash": hash,
    "key": lambda x: {x: 1},
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "int": int,  # type: ignore[dict-item]
    "index": lambda x: [0, 1][x],  # type: ignore[index]
    "iterate": list,  # type: ignore[dict-item]
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
@pytest.mark.parametrize("value", VALUES, ids=["field", "bits"])
def test_a_shared_value_refuses(value: Shared | SharedBits, misuse: Callable[..., object]) -> None:
    with pytest.raises(TypeError):
        misuse(value)


@pytest.mark.parametrize("value", VALUES, ids=["field", "bits"])
def test_printing_shows_no_content(value: Shared | SharedBits) -> None:
    for text in (repr(value), str(value), f"{value}", repr([value]), f"{value!r}"):
        assert str(SECRET) not in text and "shared" in text.lower()
    assert not hasattr(value, "__dict__")


def test_linear_operations_are_those_of_the_secrets() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(-1000, 1000, (2, 2, 5))
    xs, ys = (share_vector(COUNTS, v, 5, rng) for v in (x, y))
    np.testing.assert_array_equal(reveal([a + b for a, b in zip(xs, ys, strict=True)]), x + y)
    np.testing.assert_array_equal(reveal([a.affine(-3, 7) for a in xs]), 7 - 3 * x)
