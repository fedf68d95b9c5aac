"""The noise table: its constants, its exact bounds, and that a wrong constant is noticed."""

from __future__ import annotations

import ast
import dataclasses
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mpc_engine.dp
from mpc_engine.dp import TRUNCATION_LIMIT, Coin, NoiseTable, generate
from mpc_engine.dp.rationals import ceil_log2, exponential_bounds
from mpc_engine.errors import DocumentError, IntegrityError

ONE = Fraction(1)


def test_constants_at_epsilon_1_with_12_bits() -> None:
    """The design's constants. The taper was chosen to reproduce them; the bounds are what proves them."""
    table = generate(ONE)
    assert table.mantissa_bits == 12
    assert [(c.numerator, c.bits) for c in table.magnitude] == [
        (551, 11),
        (977, 13),
        (2361, 17),
        (353, 20),
        (61, 29),
        (29, 51),
    ]
    assert table.nonzero == Coin(551, 10)
    assert (table.K, table.limit, table.random_bits, table.widest_coin) == (6, 64, 151, 51)
    assert ceil_log2(table.truncation_delta) == -93
    assert Fraction(10004, 10000) ** 2 < table.variance / Fraction("1.8413471884155848")
    assert table.variance / Fraction("1.8413471884155848") < Fraction(10005, 10000) ** 2


def test_constants_at_epsilon_1_with_20_bits() -> None:
    table = generate(ONE, 1, 20)
    assert [(c.numerator, c.bits) for c in (*table.magnitude, table.nonzero)] == [
        (141003, 19),
        (999949, 23),
        (603521, 25),
        (90021, 28),
        (61869, 39),
        (7301, 59),
        (141003, 18),
    ]
    assert table.random_bits == 211


# P(X = 0) and variance of discrete Laplace, from the closed forms (1-a)/(1+a) and 2a/(1-a)^2, a = e^-epsilon,
# in floating point; diffprivlib's geometric mechanism states the same variances at 2, 1, 0.5 and 0.1.
IDEAL = {
    "2": ("0.7615941559557649", "0.36203083048315526"),
    "1": ("0.46211715726000974", "1.8413471884155848"),
    "0.5": ("0.24491866240370913", "7.835396178065527"),
    "0.2": ("0.09966799462495585", "49.833666138305894"),
    "0.1": ("0.049958374957880004", "199.8334166336092"),
}


@pytest.mark.parametrize("epsilon", IDEAL)
def test_close_to_discrete_laplace(epsilon: str) -> None:
    """Not needed for privacy; for accuracy, variance within 0.1 % of the ideal and never below it."""
    table = generate(Fraction(epsilon))
    p0, variance = (Fraction(text) for text in IDEAL[epsilon])
    assert abs(table.probability(0) / p0 - 1) < Fraction(1, 1000)
    assert 1 < table.variance / variance < Fraction(1001, 1000)


def outcomes(table: NoiseTable) -> dict[int, Fraction]:
    """The pmf by enumerating sign, nonzero and every setting of the bits of G."""
    magnitudes = {0: ONE}
    for i, coin in enumerate(table.magnitude):
        p = Fraction(coin.numerator, 2**coin.bits)
        magnitudes = {
            g + (bit << i): mass * (p if bit else 1 - p) for g, mass in magnitudes.items() for bit in (0, 1)
        }
    q = Fraction(table.nonzero.numerator, 2**table.nonzero.bits)
    pmf = {sign * (1 + g): q * mass / 2 for g, mass in magnitudes.items() for sign in (-1, 1)}
    return pmf | {0: 1 - q}


@pytest.mark.parametrize(("epsilon", "change"), [("1", 1), ("1", 3), ("2.5", 1), ("20", 1), ("0.3", 2)])
def test_bit_recursions_equal_enumeration(epsilon: str, change: int) -> None:
    table = generate(Fraction(epsilon), change)
    pmf = outcomes(table)
    limit = table.limit
    assert sum(pmf.values()) == 1
    assert max(pmf) == limit and min(pmf) == -limit
    assert all(table.probability(x) == p for x, p in pmf.items())
    assert table.probability(limit + 1) == table.probability(-limit - 1) == 0
    total = Fraction(0)
    for x in range(limit + 2, -limit - 3, -1):
        total += pmf.get(x, Fraction(0))
        assert table.tail(x) == total
    assert table.variance == sum(x * x * p for x, p in pmf.items())
    assert table.truncation_delta == sum(p for x, p in pmf.items() if x > limit - change)
    neighbours = [pmf[x + 1] / pmf[x] for x in range(-limit, limit)]
    assert table.max_ratio() == max(max(r, 1 / r) for r in neighbours)
    assert set(table.ratios) == set(neighbours[limit:])
    lower = exponential_bounds(Fraction(epsilon))[0]
    assert all(1 / lower <= r <= lower for r in neighbours)


epsilons = st.one_of(
    st.decimals("0.001", "20", places=3).map(Fraction),
    st.fractions(Fraction(1, 10**7), 20, max_denominator=10**8),
)


@settings(deadline=None, max_examples=120)
@given(epsilon=epsilons, change=st.sampled_from([1, 2, 3, 10, 100, 10_000]))
@example(epsilon=Fraction(1), change=1)
@example(epsilon=Fraction(1, 10**7), change=10_000)
@example(epsilon=Fraction(20), change=1)
@example(epsilon=Fraction("0.999"), change=100)
def test_every_table_keeps_its_bounds(epsilon: Fraction, change: int) -> None:
    per_unit = epsilon / change if epsilon * change > 100 else epsilon
    table = generate(per_unit, change)
    lower, upper = exponential_bounds(per_unit)
    assert 1 / lower <= min(table.ratios) and max(table.ratios) <= 1
    assert table.max_ratio() <= lower < upper
    # No accuracy is given away at 0 either: that ratio is within e^(epsilon / 16) of the least allowed.
    assert table.ratios[0] ** 16 * lower**15 < 1
    assert table.truncation_delta <= TRUNCATION_LIMIT
    assert change < table.limit
    assert table.random_bits == table.nonzero.bits + sum(c.bits for c in table.magnitude)
    bound = table.mantissa_bits + 64 + Fraction(145, 100) * per_unit * change + 4
    assert table.widest_coin <= bound
    assert table.tail(0) + table.tail(1) == 1


@settings(deadline=None, max_examples=60)
@given(epsilon=epsilons, x=st.integers(-(10**9), 10**9))
def test_tail_steps_by_the_probability(epsilon: Fraction, x: int) -> None:
    table = generate(epsilon)
    for near in (x % (2 * table.limit + 3) - table.limit - 1, x):
        assert table.tail(near) - table.tail(near + 1) == table.probability(near) >= 0


def test_fewest_bits_that_reach_the_limit() -> None:
    """One bit less leaves too much beyond the range."""
    table = generate(ONE)
    shorter = dataclasses.replace(table, magnitude=table.magnitude[:-1])
    assert shorter.truncation_delta > TRUNCATION_LIMIT
    with pytest.raises(IntegrityError):
        shorter.verify()
    assert generate(ONE, truncation_limit=Fraction(1, 2**40)).K == 5


@pytest.mark.parametrize("change", [2, 7, 40])
def test_one_cell_changed_by_the_cap_is_the_worst_case(change: int) -> None:
    """Truncation summed over any way a patient's records spread over cells is at most that of one cell."""
    table = generate(ONE / change, change)

    def beyond(d: int) -> Fraction:
        return table.tail(table.limit - d + 1)

    worst = [Fraction(0)] * (change + 1)  # worst[m]: over all ways to split m records into cells
    for m in range(1, change + 1):
        worst[m] = max(beyond(d) + worst[m - d] for d in range(1, m + 1))
    assert worst[change] == table.truncation_delta <= TRUNCATION_LIMIT


def planted(table: NoiseTable, position: int, step: int) -> NoiseTable:
    coins = [*table.magnitude, table.nonzero]
    coins[position] = Coin.reduced(coins[position].numerator + step, coins[position].bits)
    return dataclasses.replace(table, magnitude=tuple(coins[:-1]), nonzero=coins[-1])


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("mantissa", [12, 20])
def test_a_constant_one_too_small_is_refused(position: int, mantissa: int) -> None:
    table = generate(ONE, 1, mantissa)
    with pytest.raises(IntegrityError, match="faster"):
        planted(table, position, -1).verify()


def test_other_planted_tables_are_refused() -> None:
    table = generate(ONE)
    with pytest.raises(IntegrityError, match=re.escape("P(1)/P(0)")):
        dataclasses.replace(table, nonzero=Coin(1, 2)).verify()
    with pytest.raises(IntegrityError, match="rise"):
        dataclasses.replace(table, nonzero=Coin(7, 3)).verify()
    with pytest.raises(IntegrityError, match="faster"):  # half the scale: the table of epsilon = 2
        dataclasses.replace(generate(Fraction(2)), epsilon=ONE).verify()
    with pytest.raises(IntegrityError, match="range"):
        dataclasses.replace(table, largest_change=40).verify()
    with pytest.raises(IntegrityError, match="range"):
        dataclasses.replace(table, largest_change=64).verify(Fraction(1))
    table.verify()


@pytest.mark.parametrize(("epsilon", "mantissa"), [("0.1", 9), ("0.1", 4), ("0.001", 15), ("0.2", 2)])
def test_a_mantissa_too_short_for_epsilon_is_refused(epsilon: str, mantissa: int) -> None:
    """Coarse rounding up overshoots: the generator checks its result instead of trusting the rule."""
    with pytest.raises(DocumentError, match=f"{mantissa} bits"):
        generate(Fraction(epsilon), 1, mantissa)
    generate(Fraction(epsilon), 1, mantissa + 10)


def test_a_fault_in_the_construction_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding to the nearest instead of up: the generator refuses its own table."""

    def nearest(p: Fraction, bits: int) -> Coin:
        return Coin.reduced(round(p * 2 ** (bits + 60)), bits + 60)

    monkeypatch.setattr("mpc_engine.dp.noise_table._coin_at_least", nearest)
    with pytest.raises(IntegrityError, match="faster"):
        generate(ONE)


@pytest.mark.parametrize(
    ("epsilon", "change", "mantissa"),
    [
        (Fraction(0), 1, None),
        (Fraction(-1), 1, None),
        (Fraction(101), 1, None),
        (Fraction(1), 101, None),
        (Fraction(1), 0, None),
        (Fraction(1), 1, 1),
        (Fraction(1), 1, 65),
        (Fraction(1, 10**14), 1, None),
        (Fraction(1, 10**14), 1, 64),
    ],
)
def test_arguments_outside_the_bounds(epsilon: Fraction, change: int, mantissa: int | None) -> None:
    with pytest.raises(DocumentError, match="noise table"):
        generate(epsilon, change, mantissa)


def test_truncation_limit_outside_0_1() -> None:
    with pytest.raises(DocumentError):
        generate(ONE, truncation_limit=Fraction(0))


@pytest.mark.parametrize(("numerator", "bits"), [(2, 2), (0, 3), (8, 3), (9, 3), (-1, 3)])
def test_coin_in_lowest_terms(numerator: int, bits: int) -> None:
    with pytest.raises(IntegrityError):
        Coin(numerator, bits)


def test_coin_reduced() -> None:
    assert Coin.reduced(12, 5) == Coin(3, 3)
    assert Coin(3, 3).odds == Fraction(3, 5)
    with pytest.raises(IntegrityError):
        Coin.reduced(0, 5)


def test_digest_covers_every_constant() -> None:
    table = generate(ONE)
    fields = table.as_fields()
    assert fields["nonzero"] == {"numerator": "227", "bits": 10}
    assert table.digest() == generate(ONE).digest()
    changed = [planted(table, position, 2) for position in range(7)]
    changed += [dataclasses.replace(table, epsilon=Fraction(2)), dataclasses.replace(table, largest_change=2)]
    assert len({t.digest() for t in (table, *changed)}) == 10


def test_no_floating_point_in_privacy_code() -> None:
    """Apart from ``calibrate``, which quotes OpenDP, no module of the package has a float in it.

    What prints the parameters of a release, ``as_fields``, rounds there, and gives nobody a float.
    """
    folder = Path(mpc_engine.dp.__file__).parent
    modules = [path for path in folder.glob("*.py") if path.name != "calibrate.py"]
    assert len(modules) >= 4
    for path in modules:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (path.name, node.name) == ("accounting.py", "as_fields"):
                node.body = []
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), path
            assert not (isinstance(node, ast.Name) and node.id == "float"), path
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"math", "random", "numpy", "decimal"} & set(names), path
