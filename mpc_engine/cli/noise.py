"""`mpc-engine noise-table`: the noise of a release and its bounds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import out
from mpc_engine.dp import NoiseTable, parse_epsilon, table_for_counts
from mpc_engine.dp.rationals import ceil_log2
from mpc_engine.errors import DocumentError

_LISTED = 12
"""Values of the noise whose probabilities are printed, from 0."""


def noise_table(
    epsilon: Annotated[str, typer.Option(help="ε of a release, a decimal number.")],
    cap: Annotated[int, typer.Option(help="Most records of one patient.")] = 1,
    mantissa_bits: Annotated[int | None, typer.Option(help="Precision of the coins.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Print the noise of a release: its coins, probabilities and bounds, verified in exact arithmetic."""
    try:
        made = table_for_counts(parse_epsilon(epsilon), cap, mantissa_bits)
    except DocumentError as error:
        raise typer.BadParameter(str(error)) from None
    made.verify()
    if as_json:
        typer.echo(json.dumps(made.as_fields() | {"digest": made.digest()}, indent=1))
        return
    say(f"X = sign · nonzero · (1 + G), |X| ≤ {made.limit}; sign is a fair coin")
    named = [(f"bit {i} of G", coin) for i, coin in enumerate(made.magnitude)] + [("nonzero", made.nonzero)]
    show(
        "Coins",
        ("coin", "probability", "about"),
        [
            (name, f"{coin.numerator} / 2^{coin.bits}", f"{float(coin.probability):.6g}")
            for name, coin in named
        ],
        left=("coin",),
    )
    show(
        "Probabilities; the table is symmetric",
        ("x", "P(X = x)", "P(X ≥ x)"),
        [_probabilities(made, x) for x in _values(made)],
    )
    out.print(f"ε per unit           {made.epsilon}")
    out.print(
        f"largest ratio        {float(made.max_ratio()):.9f} ≤ e^ε, verified in exact rational arithmetic"
    )
    out.print(f"δ of a release       ≤ 2^{ceil_log2(made.truncation_delta)}, from truncation")
    out.print(f"standard deviation   {float(made.variance) ** 0.5:.6f}")
    out.print(f"random bits per cell {made.random_bits}")
    out.print(f"digest               {made.digest()}", soft_wrap=True)


def _values(made: NoiseTable) -> list[int]:
    return [*range(min(made.limit, _LISTED) + 1), *([made.limit] if made.limit > _LISTED else [])]


def _probabilities(made: NoiseTable, x: int) -> tuple[str, str, str]:
    form = ".9f" if x <= _LISTED else ".3e"
    return str(x), f"{float(made.probability(x)):{form}}", f"{float(made.tail(x)):{form}}"
