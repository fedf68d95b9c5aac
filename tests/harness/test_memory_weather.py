"""What delays messages among parties in one process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.harness import virtual_time
from mpc_engine.harness.weather import LEAST_DELAY_S, PACKET_BYTES, TIMEOUT_S, Weather
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.scenario.document import LinkWeather, Network

KEY = MessageKey(0, Section.VALUES, 0)
SESSION = bytes(16)


def weather(network: Network, seed: int = 1) -> Weather:
    """Return the weather among three parties."""
    return Weather(network, ("a", "b", "c"), np.random.default_rng(seed))


def within(main: Callable[[], None]) -> None:
    """Run something at time 0 of a loop."""

    async def run() -> None:
        main()

    virtual_time.run(run)


def latency(of: Weather, size: int = 0, sender: int = 1, receiver: int = 2) -> float:
    """Return how long a link's message of a size takes."""
    of.link_message(sender, receiver, KEY, SESSION, bytes(size))
    return of.latency_s(sender, receiver)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(0, 200),
    st.floats(0, 50),
    st.floats(0, 0.9),
    st.one_of(st.none(), st.floats(0.1, 1000)),
    st.integers(0, 10**6),
    st.integers(0, 2**32),
)
def test_no_message_is_faster_than_light(
    delay: float, jitter: float, loss: float, rate: float | None, size: int, seed: int
) -> None:
    def main() -> None:
        network = Network(delay_ms=delay, jitter_ms=jitter, loss=loss, rate_mbit=rate)
        took = latency(weather(network, seed), size)
        transfer = 0.0 if rate is None else size * 8 / (rate * 1e6)
        assert took >= max(LEAST_DELAY_S, (delay - jitter) / 1000) + transfer - 1e-9
        if not loss:
            assert took <= max(LEAST_DELAY_S, (delay + jitter) / 1000) + transfer + 1e-9

    within(main)


def test_a_rate_is_shared_by_what_is_sent_one_way() -> None:
    def main() -> None:
        of = weather(Network(delay_ms=10, rate_mbit=8, link=(LinkWeather(between=("a", "c")),)))
        assert latency(of, 1_000_000) == pytest.approx(1.01)
        assert latency(of, 500_000) == pytest.approx(1.51)
        assert latency(of, 500_000, 2, 1) == pytest.approx(0.51)
        assert latency(of, 10**9, 1, 3) == LEAST_DELAY_S
        assert latency(of, 0) == pytest.approx(1.51), "queued behind what is under way"
        assert (of.sent[1], of.received[2], of.received[3]) == (1_001_500_000, 1_500_000, 10**9)

    within(main)


def test_loss_is_a_later_message() -> None:
    """A lone packet that is lost comes after a timeout, one of many after a round trip."""

    def main() -> None:
        loss = 0.1
        of = weather(Network(delay_ms=50, loss=loss), seed=8)
        lone = np.array([latency(of, 100) for _ in range(4_000)]) - 0.05
        many = np.array([latency(of, 20 * PACKET_BYTES) for _ in range(4_000)]) - 0.05
        assert abs((lone > 0).mean() - loss) < 0.02
        assert lone[lone > 0].min() == pytest.approx(TIMEOUT_S)
        assert abs((many > 0).mean() - (1 - (1 - loss) ** 20)) < 0.03
        assert many[many > 0].min() == pytest.approx(0.1)

    within(main)


def test_what_faults_add() -> None:
    def main() -> None:
        of = weather(Network(delay_ms=10))
        ends = [of.slow(1, 10), of.slow(1, 3), of.hold([frozenset((1, 3))], 5.0)]
        assert latency(of) == pytest.approx(0.3) and latency(of, sender=2, receiver=1) == pytest.approx(0.01)
        assert latency(of, receiver=3) == pytest.approx(5) == latency(of, sender=3, receiver=1)
        for end in ends:
            end()
        assert latency(of) == latency(of, receiver=3) == pytest.approx(0.01)

    within(main)


def test_tampering_flips_one_bit_of_one_section() -> None:
    of = weather(Network())
    end = of.tamper(2, Section.VALUES)
    content = bytes(40)
    changed = of.link_message(2, 1, KEY, SESSION, content)
    assert len(changed) == 40 and int.from_bytes(changed).bit_count() == 1
    assert of.link_message(1, 2, KEY, SESSION, content) == content
    assert of.link_message(2, 1, KEY._replace(section=Section.TEST), SESSION, content) == content
    assert of.link_message(2, 1, KEY, SESSION, b"") == b""
    end()
    assert of.link_message(2, 1, KEY, SESSION, content) == content


def test_a_reset_comes_after_so_many_bytes() -> None:
    of, came = weather(Network()), []
    of.reset_after(2, [1], 100, lambda: came.append("first"))
    prevent = of.reset_after(2, [1, 3], 100, lambda: came.append("never"))
    for sender, size in ((1, 60), (3, 39), (1, 40)):
        of.link_message(sender, 2, KEY, SESSION, bytes(size))
        prevent() if sender == 3 else None
    assert not came
    of.link_message(1, 2, KEY, SESSION, bytes(1))
    of.link_message(1, 2, KEY, SESSION, bytes(500))
    assert came == ["first"]
