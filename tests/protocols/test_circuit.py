"""The comparison circuit: exact for every constant, in the clear and on shares, at its stated price."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.dp.noise_table import Coin, NoiseTable, generate
from mpc_engine.field.binary import smallest_field
from mpc_engine.protocols import coins as coins_module
from mpc_engine.protocols.circuit import Circuit, comparison_circuit
from mpc_engine.protocols.coins import coins, cost_of_coins
from mpc_engine.protocols.noise import circuit_for
from mpc_engine.sharing.shamir import SUPPORTED
from tests.world import TABLE, World, reveal_bits, share_bits

Constants = Sequence[tuple[int, int]]


def literals(constants: Constants, draws: np.ndarray) -> np.ndarray:
    """Literals, shape (literals, cells), for draws U (Python integers) of shape (constants, cells)."""
    rows = []
    for (c, bits), row in zip(constants, draws, strict=True):
        trailing = (c & -c).bit_length() - 1
        for place in range(bits - 1, trailing - 1, -1):
            rows.append([u >> place & 1 == c >> place & 1 for u in row])
    return np.array(rows, np.uint8)


def below(constants: Constants, draws: np.ndarray) -> np.ndarray:
    return np.array([[u < c for u in row] for (c, _), row in zip(constants, draws, strict=True)], np.uint8)


def evaluate(circuit: Circuit, bits: np.ndarray) -> np.ndarray:
    """Run the circuit in the clear."""
    wires = np.zeros((circuit.wires, bits.shape[1]), np.uint8)
    wires[0] = 1
    wires[1 : 1 + circuit.literals] = bits
    place = 1 + circuit.literals
    for level in circuit.levels:
        left, right = (np.bitwise_xor.reduce(wires[table], axis=0) for table in (level.left, level.right))
        wires[place : place + level.products] = left & right
        place += level.products
    return np.bitwise_xor.reduce(wires[circuit.outputs], axis=0)


def on_shares(
    monkeypatch: pytest.MonkeyPatch, circuit: Circuit, bits: np.ndarray, n: int = 3
) -> tuple[np.ndarray, World]:
    """Run the shared circuit on literals put in place of the pseudorandom ones."""
    rng = np.random.default_rng(n)

    def injected(keys: Any, parties: int, name: str, field: Any, rows: int, words: int) -> Any:
        assert (rows, words) == (bits.shape[0], -(-bits.shape[1] // 64))
        return shares.setdefault(id(field), share_bits(field, bits, parties, rng))[keys.me - 1].planes, {}

    shares: dict[int, Any] = {}
    monkeypatch.setattr(coins_module, "random_bits", injected)
    world = World(n, seed=n)
    result = world.run(lambda ctx: coins(ctx, circuit), bits.shape[1])
    return reveal_bits(result, bits.shape[1]), world


ALL_8_BITS = [(c, b) for b in range(1, 9) for c in range(1, 1 << b)]


def test_all_constants_up_to_8_bits_on_all_draws() -> None:
    draws = np.array([[u & ((1 << b) - 1) for u in range(256)] for _, b in ALL_8_BITS])
    circuit = comparison_circuit(tuple(ALL_8_BITS))
    np.testing.assert_array_equal(evaluate(circuit, literals(ALL_8_BITS, draws)), below(ALL_8_BITS, draws))
    assert len(circuit.levels) == 3


@pytest.mark.parametrize("n", SUPPORTED)
def test_all_8_bit_constants_on_all_draws_on_shares(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    constants = [(c, 8) for c in range(1, 256, 1 if n == 3 else 9)]
    draws = np.tile(np.arange(256), (len(constants), 1))
    opened, _ = on_shares(monkeypatch, comparison_circuit(tuple(constants)), literals(constants, draws), n)
    np.testing.assert_array_equal(opened, below(constants, draws))
    assert opened.sum(axis=1).tolist() == [c for c, _ in constants]


def probes(c: int, bits: int) -> list[int]:
    """U = c, c ± 1, 0, all ones, and c with every single bit flipped."""
    top = (1 << bits) - 1
    return [c, max(0, c - 1), min(top, c + 1), 0, top, *(c ^ 1 << k for k in range(bits))]


def probe_draws(constants: Constants) -> np.ndarray:
    rows = [probes(c, b) for c, b in constants]
    width = max(map(len, rows))
    return np.array([row + row[:1] * (width - len(row)) for row in rows], object)


@given(
    st.lists(
        st.integers(1, 64).flatmap(lambda b: st.tuples(st.integers(1, (1 << b) - 1), st.just(b))),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=40)
def test_long_constants_at_their_edges(constants: list[tuple[int, int]]) -> None:
    draws = probe_draws(constants)
    circuit = comparison_circuit(tuple(constants))
    np.testing.assert_array_equal(evaluate(circuit, literals(constants, draws)), below(constants, draws))


def constants_of(table: NoiseTable) -> list[tuple[int, int]]:
    return [(coin.numerator, coin.bits) for coin in (*table.magnitude, table.nonzero)]


TABLES = {"1": TABLE, "1 at 20 bits": generate(Fraction(1), 1, 20), "0.5 cap 2": generate(Fraction(1, 4), 2)}


@pytest.mark.parametrize("n", SUPPORTED)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_real_constants_at_their_edges_on_shares(
    monkeypatch: pytest.MonkeyPatch, n: int, table: NoiseTable
) -> None:
    """A coin of the wrong probability passes many statistical tests; it does not pass these."""
    constants, circuit = constants_of(table), circuit_for(table)
    draws = probe_draws(constants)
    opened, world = on_shares(monkeypatch, circuit, literals(constants, draws), n)
    np.testing.assert_array_equal(opened, below(constants, draws))
    cost = cost_of_coins(smallest_field(n), n, circuit, draws.shape[1])
    assert world.spent() == (cost.rounds, cost.sent_bytes) and cost.rounds == len(circuit.levels)


@pytest.mark.parametrize("wrong", range(7))
def test_probes_notice_each_wrong_coin(wrong: int) -> None:
    """The probes of the true constant against a circuit whose constant has one low bit wrong."""
    constants = constants_of(TABLE)
    spoiled = list(constants)
    c, b = spoiled[wrong]
    spoiled[wrong] = (c - 2, b)
    draws = probe_draws(constants)
    got = evaluate(comparison_circuit(tuple(spoiled)), literals(spoiled, draws))
    assert (got != below(constants, draws))[wrong].any()


def test_the_price_at_epsilon_1() -> None:
    circuit = circuit_for(TABLE)
    assert circuit.products <= 144 and len(circuit.levels) == 6
    assert circuit.literals == TABLE.random_bits == 151
    assert [level.products for level in circuit.levels] and all(level.products for level in circuit.levels)


@pytest.mark.parametrize(
    "constant", [(1, 1), (1, 2), (3, 2), (255, 8), (128, 8), (1, 64), ((1 << 64) - 1, 64)]
)
def test_simple_constants_cost_little(constant: tuple[int, int]) -> None:
    """One half costs nothing; runs of zeros or ones cost one product a bit."""
    c, bits = constant
    circuit = comparison_circuit((constant,))
    length = bits - ((c & -c).bit_length() - 1)
    assert circuit.products == length - 1
    assert len(circuit.levels) == (length - 1).bit_length()


def test_coins_have_their_probabilities() -> None:
    """Undisturbed: frequencies of 2^18 tosses; the seed is fixed."""
    table = [Coin(1, 1), Coin(551, 10), Coin(977, 13), Coin(3, 2)]
    circuit = comparison_circuit(tuple((c.numerator, c.bits) for c in table))
    cells = 1 << 18
    tossed = reveal_bits(World(3, seed=11).run(lambda ctx: coins(ctx, circuit), cells), cells)
    for coin, row in zip(table, tossed, strict=True):
        p = float(coin.probability)
        assert abs(row.mean() - p) < 4 * (p * (1 - p) / cells) ** 0.5
    assert abs(np.corrcoef(tossed)[np.triu_indices(4, 1)]).max() < 4.5 / cells**0.5
