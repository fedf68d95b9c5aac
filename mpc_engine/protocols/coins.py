"""Biased coins: shared bits with published probabilities, from shared uniform bits.

A coin of probability c/2^b is a uniform b-bit number compared with c. Its bits come from pseudorandom
sharing and cost nothing; the comparison takes about b − 1 products over GF(2^d), and all coins of all
cells advance together, one round per level of the circuit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.binary import BinaryField, Planes
from mpc_engine.protocols.circuit import Circuit
from mpc_engine.protocols.multiplication import cost_of_multiplication, multiply_bits
from mpc_engine.runtime.context import Context
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.prss import random_bits
from mpc_engine.sharing.shared import SharedBits


def _sums(wires: Planes, table: NDArray[np.intp]) -> Planes:
    """Return the sums of wires that a circuit's table names, shape (d, columns, words)."""
    total: Planes = wires.take(table[0], axis=1)
    for row in table[1:]:
        used = np.flatnonzero(row != wires.shape[1] - 1)  # the last wire is zero
        total[:, used] ^= wires[:, row[used]]
    return total


async def coins(ctx: Context, circuit: Circuit) -> SharedBits:
    """Return one shared coin per output of the circuit and cell, shape (d, coins, words).

    Rounds: the circuit's levels. Nothing is opened. Source: [DKMMN06] for noise from biased coins.
    """
    field = ctx.binary
    literals, _ = random_bits(
        ctx.keys, ctx.computing, ctx.stream("literals"), field, circuit.literals, ctx.words
    )
    wires = np.zeros((field.d, circuit.wires, ctx.words), np.uint64)
    wires[0, 0] = ~np.uint64(0)
    wires[:, 1 : 1 + circuit.literals] = literals
    place = 1 + circuit.literals
    for number, level in enumerate(circuit.levels):
        left = SharedBits(field, _sums(wires, level.left))
        right = SharedBits(field, _sums(wires, level.right))
        product = await multiply_bits(ctx.step(f"level{number}"), left, right)
        wires[:, place : place + level.products] = product.planes
        place += level.products
    return SharedBits(field, _sums(wires, circuit.outputs))


def cost_of_coins(field: BinaryField, computing: int, circuit: Circuit, cells: int) -> Cost:
    """Return the cost of tossing all coins of a circuit for each cell."""
    cost = Cost()
    for level in circuit.levels:
        cost = cost.then(cost_of_multiplication(field, computing, level.products, cells))
    return cost
