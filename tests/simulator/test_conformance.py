"""Real parties make only steps that the model of the budget protocol knows."""

from __future__ import annotations

import pytest

from tests.simulator.conformance import Chronicle, foreign_step, run
from tests.simulator.operations import Op

SEEDS = [seed for seed in range(80) if seed % 20 != 19]
"""The model has three parties that all compute."""


@pytest.mark.parametrize("start", range(0, len(SEEDS), 20))
def test_real_parties_keep_to_the_model(start: int) -> None:
    seen = 0
    for seed in SEEDS[start : start + 20]:
        world, chronicle = run(seed)
        if world.ever_set_back:
            continue  # a disk that comes back older than it was is not in the model
        for request in chronicle.requests:
            seen += 1
            assert foreign_step(chronicle, request) is None, f"SEED={seed}"
    assert seen > 10


def test_a_step_left_out_or_moved_is_foreign() -> None:
    _, chronicle = run(1, [Op(1.0, "submit", 2), Op(60.0, "wait")])
    (request,) = chronicle.requests
    assert foreign_step(chronicle, request) is None
    for action in ("join", "commit", "send commit", "open pattern", "learn pattern", "open values"):
        wrong = Chronicle()
        wrong.requests = chronicle.requests
        left_out = next(step for step in chronicle.steps if step[0] == action)
        wrong.steps = [step for step in chronicle.steps if step != left_out]
        assert foreign_step(wrong, request) is not None, action
