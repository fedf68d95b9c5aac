"""Joint noise from a published table: X = sign·nonzero·(1 + G), known to nobody.

G's bits and `nonzero` are independent biased coins, the sign is uniform. Coins are masked by random bits
whose signs are shared in F_p, opened, and thereby turned into public flips of those signs: with
s_i = (−1)^{g_i} the noise is A·B with

    A = sign − sign·s_nonzero            (= 2·sign·nonzero)
    B = (2^K + 1 − Σ 2^i·s_i) / 4       (= (1 + G) / 2)

two linear combinations of signs, hence one resharing, and one more product. That product is left to
the round in which the silos share their counts, so that it costs no round of its own. Source:
[DKMMN06] for the decomposition of geometric noise into independent bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.field.binary import BinaryField
from mpc_engine.field.mersenne import MersenneField
from mpc_engine.protocols.circuit import Circuit, comparison_circuit
from mpc_engine.protocols.coins import coins, cost_of_coins
from mpc_engine.protocols.multiplication import cost_of_multiplication, multiply
from mpc_engine.protocols.opening import cost_of_opening, open_masked_bits
from mpc_engine.protocols.signs import (
    SignSum,
    cost_of_sign_sums,
    cost_of_signed_bits,
    signed_bits,
    sum_signs,
)
from mpc_engine.runtime.context import Context, gather
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.shared import Shared, SharedBits


@dataclass(frozen=True)
class NoiseFactors:
    """Two shared vectors whose product is the noise, one value per cell."""

    a: Shared
    b: Shared
    opened: bytes = field(repr=False)


def circuit_for(table: NoiseTable) -> Circuit:
    """Return the circuit of a noise table's coins: magnitude bits, least significant first, then nonzero."""
    return comparison_circuit(
        tuple((coin.numerator, coin.bits) for coin in (*table.magnitude, table.nonzero))
    )


def _parities(magnitude_bits: int) -> list[tuple[int, ...]]:
    """Return which parities of random bits need a sign: each magnitude bit, the sign, sign with nonzero."""
    nonzero, sign = magnitude_bits, magnitude_bits + 1
    return [*((i,) for i in range(magnitude_bits)), (sign,), (sign, nonzero)]


async def prepare_noise(ctx: Context, field: MersenneField, table: NoiseTable) -> NoiseFactors:
    """Prepare one noise value per cell, as two factors in F_p; needs no data.

    p must exceed twice the largest value to which the noise is ever added, noise included; the plan
    checks it. Noise for two fields in one block needs two steps: streams are named by step, not field.
    Rounds: the circuit's levels (6 at ε = 1), one opening, one resharing. The only openings are coins
    masked by uniform bits, and the zero of the check. Raises IntegrityError when a check fails.
    """
    k = len(table.magnitude)
    tossed, signs = await gather(
        coins(ctx.step("coins"), circuit_for(table)),
        signed_bits(ctx.step("signs"), field, k + 2, _parities(k)),
    )
    mask = SharedBits(ctx.binary, signs.bits.planes[:, : k + 1])
    flips = await open_masked_bits(ctx.step("flips"), tossed + mask)
    quarter = field.scalars.inverse(4)
    a = SignSum((k, k + 1), (1, -1), (None, flips[k]), 0)
    b = SignSum(
        tuple(range(k)),
        tuple(-(1 << i) * quarter for i in range(k)),
        tuple(flips[i] for i in range(k)),
        ((1 << k) + 1) * quarter,
    )
    factors = await sum_signs(ctx.step("factors"), signs, [a, b])
    return NoiseFactors(Shared(field, factors.values[:1]), Shared(field, factors.values[1:]), flips.tobytes())


async def finish_noise(ctx: Context, factors: NoiseFactors) -> Shared:
    """Return the shares of the noise, shape (1, cells); one product."""
    return await multiply(ctx, factors.a, factors.b)


def cost_of_preparing(
    field: MersenneField, binary: BinaryField, computing: int, table: NoiseTable, cells: int
) -> Cost:
    """Return the cost of `prepare_noise` in F_p with coins in GF(2^d)."""
    k = len(table.magnitude)
    tossed = cost_of_coins(binary, computing, circuit_for(table), cells)
    signs = cost_of_signed_bits(field, computing, k + 2, cells)
    opening = cost_of_opening(binary, computing, k + 1, cells)
    return tossed.beside(signs).then(opening).then(cost_of_sign_sums(field, computing, 2, cells))


def cost_of_finishing(field: MersenneField, computing: int, cells: int) -> Cost:
    """Return the cost of `finish_noise`."""
    return cost_of_multiplication(field, computing, 1, cells)
