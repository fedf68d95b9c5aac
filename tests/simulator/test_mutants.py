"""The promises of the simulator can fail: parties that get the protocol wrong are caught by some seed."""

from __future__ import annotations

import pytest

from tests.simulator.mutants import MUTANTS, mutated
from tests.simulator.operations import Op
from tests.simulator.registry import registries
from tests.simulator.seeds import failure

SEEDS = tuple(seed for seed in range(60) if seed % 20 != 19)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_party_is_caught(name: str) -> None:
    plain = [Op(1.0, "submit", 1 + number, number=number) for number in range(3)] + [Op(60.0, "wait")]
    with mutated(name):
        for seed, ops in [(1, plain), *((seed, None) for seed in SEEDS)]:
            words = failure(registries, seed, ops)
            if words is not None:
                print(f"{name}: SEED={seed}{' (plain)' if ops else ''}: {words}")
                return
    pytest.fail(f"no seed among the first {len(SEEDS)} catches {name}")
