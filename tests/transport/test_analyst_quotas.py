"""The port of analysts: quotas, floods, cancelled calls, deadlines and repeats."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from mpc_engine.errors import (
    BudgetError,
    DeadlineError,
    PeerError,
    RateLimitError,
    StoppedError,
)
from mpc_engine.transport.analyst_channel import ATTEMPTS
from mpc_engine.transport.analyst_methods import METHODS
from mpc_engine.transport.analyst_port import Quota
from mpc_engine.transport.failures import error_info
from tests.transport.analysts import run, serving

# --- quotas -------------------------------------------------------------------------------------------


def test_a_bucket_fills_up_with_time_and_never_over_its_size() -> None:
    quota = Quota(100.0, burst=3, per_s=2.0, most=8)
    method = METHODS["Status"]

    def calls(now: float) -> int:
        done = 0
        while True:
            try:
                with quota.taken(method, now):
                    done += 1
            except Exception:
                return done

    assert calls(100.0) == 3
    assert calls(100.4) == 0
    assert calls(100.5) == 1
    assert calls(99.0) == 0  # a clock that goes back gives nothing
    assert calls(1000.0) == 3


def test_a_flood_is_refused_with_the_time_to_wait_and_reaches_nobody_else() -> None:
    async def main() -> None:
        now = [0.0]
        async with serving(clock=lambda: now[0]) as port:
            flooder, other = port.channel(jitter=lambda most: 0.0), port.channel("bob")
            ends = await asyncio.gather(
                *(flooder.call("Status", b"", 20) for _ in range(200)), return_exceptions=True
            )
            served = [end for end in ends if isinstance(end, bytes)]
            refused = [end for end in ends if isinstance(end, RateLimitError)]
            others = [end for end in ends if not isinstance(end, bytes | RateLimitError)]
            # Beyond its limit of streams on a connection HTTP/2 itself refuses some, as unavailable.
            assert all(isinstance(end, PeerError) and "RST_STREAM" in str(end) for end in others)
            assert 1 <= len(served) <= 20 and len(refused) > 50
            assert all("try again in 1 s" in str(end) for end in refused)
            for _ in range(20):
                await other.call("Status", b"", 10)
            async with port.raw() as channel:
                while True:  # whatever the flood has left
                    try:
                        async for _ in channel.unary_stream(METHODS["Status"].path)(b""):
                            pass
                    except grpc.aio.AioRpcError as error:
                        info = error_info(error)
                        break
            assert info is not None
            assert (info["reason"], info["retry_after_s"]) == ("RATE_LIMITED", "1")
            now[0] = 1.0
            await flooder.call("Status", b"", 10)

    run(main())


def test_only_so_many_calls_of_one_analyst_are_under_way() -> None:
    go, entered = asyncio.Event(), asyncio.Semaphore(0)

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        entered.release()
        await go.wait()
        return b"done"

    async def main() -> None:
        async with serving(handle) as port:
            mine = port.channel()
            waits = [asyncio.create_task(mine.call("Wait", b"", 30)) for _ in range(6)]
            waits += [asyncio.create_task(mine.call("Result", b"", 30)) for _ in range(2)]
            for _ in range(8):
                await entered.acquire()
            with pytest.raises(RateLimitError, match="more than 8 calls at a time"):
                await mine.call("Status", b"", 10)
            other = asyncio.create_task(port.channel("bob").call("Status", b"", 10))
            await entered.acquire()
            waits[0].cancel()
            await asyncio.wait(waits[:1])
            with pytest.raises(RateLimitError, match=r"more than (2 calls of Result|8 calls) at a time"):
                await mine.call("Result", b"", 10)
            go.set()
            assert set(await asyncio.gather(other, *waits[1:])) == {b"done"}
            assert await mine.call("Status", b"", 10) == b"done"

    run(main())


# --- time ---------------------------------------------------------------------------------------------


def test_a_client_that_goes_away_ends_its_wait_but_not_what_it_began() -> None:
    log: list[str] = []
    begun, go = asyncio.Event(), asyncio.Event()
    ended = asyncio.Event()

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        begun.set()
        try:
            await go.wait()
            log.append(f"{method} finished")
        except asyncio.CancelledError:
            log.append(f"{method} cancelled")
            raise
        finally:
            ended.set()
        return b""

    async def main() -> None:
        async with serving(handle) as port:
            for method in ("Wait", "Submit"):
                begun.clear()
                ended.clear()
                call = asyncio.create_task(port.channel().call(method, b"", 30))
                await begun.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                if method == "Submit":
                    go.set()
                await ended.wait()
            assert log == ["Wait cancelled", "Submit finished"]

    run(main())


def test_stopping_finishes_what_changes_something() -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    done = []

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        begun.set()
        await go.wait()
        done.append(method)
        return b""

    async def main() -> None:
        async with serving(handle) as port:
            call = asyncio.create_task(port.channel(jitter=lambda most: 0.0).call("Submit", b"", 5))
            await begun.wait()
            stop = asyncio.create_task(port.server.stop(0))
            with pytest.raises(PeerError):
                await call
            assert not stop.done()
            go.set()
            await stop
            assert done == ["Submit"]

    run(main())


def test_the_deadline_of_a_call_is_the_clients() -> None:
    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def main() -> None:
        async with serving(handle) as port:
            with pytest.raises(DeadlineError, match="did not answer in time"):
                await port.channel().call("Status", b"", 0.3)

    run(main())


# --- repeats ------------------------------------------------------------------------------------------


def test_what_was_unavailable_is_tried_again_with_growing_pauses() -> None:
    tries: list[str] = []
    pauses: list[float] = []

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        tries.append(method)
        if len(tries) < 4:
            raise StoppedError("this party is being stopped")
        return b"done"

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> None:
        async with serving(handle, burst=100) as port:
            channel = port.channel(sleep=sleep, jitter=lambda most: most)
            assert await channel.call("Submit", b"", 60) == b"done"
            assert tries == ["Submit"] * 4
            assert pauses == [0.2, 0.4, 0.8]
            tries.clear()
            with pytest.raises(StoppedError):
                await channel.call("Withdraw", b"", 60)  # not to be repeated
            assert tries == ["Withdraw"]
            tries.clear()
            with pytest.raises(StoppedError):
                await channel.call("Status", b"", 0.25)  # the second pause would outlast the call
            assert len(tries) == 2

    run(main())


def test_other_failures_are_not_tried_again_and_repeats_end() -> None:
    tries: list[str] = []

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        tries.append(method)
        raise BudgetError("spent") if method == "Cost" else PeerError("away")

    async def sleep(seconds: float) -> None:
        return

    async def main() -> None:
        async with serving(handle, burst=100) as port:
            channel = port.channel(sleep=sleep)
            with pytest.raises(BudgetError):
                await channel.call("Cost", b"", 60)
            assert len(tries) == 1
            with pytest.raises(PeerError, match="away"):
                await channel.call("Status", b"", 60)
            assert len(tries) == 1 + ATTEMPTS

    run(main())


def test_another_server_in_the_process_is_not_held_up_by_a_flood() -> None:
    async def main() -> None:
        async with serving() as port, serving(burst=10_000, per_s=1e6) as peers:
            flooder = port.channel()
            flood = asyncio.gather(
                *(flooder.call("Status", b"", 30) for _ in range(300)), return_exceptions=True
            )
            other = peers.channel("bob")
            for _ in range(20):
                await other.call("Status", b"", 10)
            assert len(await flood) == 300

    run(main())
