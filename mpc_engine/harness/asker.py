"""A scenario's analysts as a process of its own, which may so stand in another network than the harness.

It takes lines of JSON on standard input and answers each in its own time with a line that has the same `id`:

========  ====================================  ====================================================
do        fields                                answer
========  ====================================  ====================================================
submit    profile, query, key, wait_s           ``request``
wait      profile, request, wait_s, out         ``state``, ``reason``, ``detail``, ``ticket``, and
                                                ``released``: whether release and receipt were written
                                                to the folder `out`, for they may be large
========  ====================================  ====================================================

A failure is answered with ``failed``: its reason and words. A party that cannot be reached, or asks for
patience, is asked again until `wait_s` seconds are over.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from mpc_engine.harness.namespaces import enter
from mpc_engine.harness.nursery import end_with_parent

_PAUSE_S: Final = 0.3
_STEP_S: Final = 10.0
_FEW: Final = 4
"""So many requests are waited for one by one; of more, all are looked at together."""
_PASSING: Final = frozenset({"PEER_UNAVAILABLE", "RATE_LIMITED", "ROUND_TIMEOUT", "SHUTTING_DOWN"})
"""Reasons for which the same call is made again."""
_LONGEST_LINE: Final = 1 << 22

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]], wait_s: float) -> T:
    """Return what a call returns, made again after failures that pass, until `wait_s` seconds are over."""
    from mpc_engine.errors import EngineError

    ends = time.monotonic() + wait_s
    while True:
        try:
            return await call()
        except EngineError as error:
            passing = error.reason in _PASSING or error.grpc_code == "UNAVAILABLE"
            if not passing or time.monotonic() + _PAUSE_S >= ends:
                raise
        await asyncio.sleep(_PAUSE_S)


class Asker:
    """One analyst at one party."""

    def __init__(self, profile: Path) -> None:
        from mpc_engine.client.desk import PartyDesk
        from mpc_engine.client.profile import load_access

        self.desk = PartyDesk(load_access(profile))
        self._calls = asyncio.Semaphore(_FEW)
        self._waiting = 0
        self._listing = asyncio.Lock()
        self._listed: dict[str, Any] = {}
        self._listed_at = 0.0

    async def submit(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hand a question in; under the same key that can be done again."""
        from mpc_engine.statistics.presets import parse_query

        query = parse_query(order["query"], "query")
        async with self._calls:
            answer = await patiently(lambda: self.desk.submit(query, order["key"]), order["wait_s"])
        return {"request": answer.status.id}

    async def wait(self, order: dict[str, Any]) -> dict[str, Any]:
        """Wait until a request has ended, or time is up, and say how it stands."""
        from mpc_engine.errors import EngineError

        ends = time.monotonic() + order["wait_s"]
        unknown = {"state": "UNKNOWN", "reason": "", "detail": "", "ticket": "", "released": False}
        self._waiting += 1
        status: Any = None
        try:
            while status is None or not status.final:
                left = max(1.0, ends - time.monotonic())
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        look = partial(self._look, order["request"], status, left)
                        status = await patiently(look, left)
                if time.monotonic() >= ends:
                    break
        except EngineError as error:
            unknown |= {"reason": error.reason, "detail": str(error)}
        finally:
            self._waiting -= 1
        if status is None:
            return unknown
        found = {
            "state": status.state,
            "reason": status.reason,
            "detail": status.detail,
            "ticket": status.ticket or "",
            "released": False,
        }
        if status.release_available:
            found["released"] = await self._keep(order)
        return found

    async def _look(self, request: str, seen: Any, left: float) -> Any:
        """Return a request's status, later than the one seen if that comes soon."""
        if self._waiting > _FEW:
            async with self._listing:
                if time.monotonic() - self._listed_at > _PAUSE_S:
                    self._listed = {each.id: each for each in await self.desk.requests()}
                    self._listed_at = time.monotonic()
            if request in self._listed:
                await asyncio.sleep(_PAUSE_S)
                return self._listed[request]
        async with self._calls:
            if seen is None:
                return await self.desk.status(request)
            return await self.desk.wait(request, seen, max(0.0, min(_STEP_S, left)))

    async def _keep(self, order: dict[str, Any]) -> bool:
        from mpc_engine.errors import EngineError

        try:
            async with self._calls:
                fetch = partial(self.desk.result, order["request"])
                release, receipt = await patiently(fetch, order["result_s"])
        except EngineError:
            return False
        out = Path(order["out"])
        out.mkdir(parents=True, exist_ok=True)
        (out / "release.json").write_text(json.dumps(release), encoding="utf-8")
        if receipt is not None:
            (out / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
        return True


async def attend() -> None:
    """Take orders until standard input ends."""
    from mpc_engine.errors import EngineError

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    askers: dict[str, Asker] = {}
    tasks: set[asyncio.Task[None]] = set()

    async def follow(order: dict[str, Any]) -> None:
        try:
            profile = str(order["profile"])
            asker = askers.setdefault(profile, askers.get(profile) or Asker(Path(profile)))
            answer = await (asker.submit(order) if order["do"] == "submit" else asker.wait(order))
        except EngineError as error:
            answer = {"failed": [error.reason, str(error)]}
        except Exception as error:  # the harness waits for an answer, whatever happened here
            answer = {"failed": ["INTERNAL", f"the analyst's process failed: {error!r}"]}
        print(json.dumps({"id": order["id"], **answer}), flush=True)

    print(json.dumps({"id": 0}), flush=True)
    while line := await reader.readline():
        task = loop.create_task(follow(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


def main() -> None:
    """Run in the network namespace given as the first argument, "" for the harness's own."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it by closing its input
    end_with_parent()
    if namespace := sys.argv[1]:
        enter(namespace)
    # Loaded before it says that it is ready, so that the first question does not wait for it.
    import mpc_engine.client
    import mpc_engine.statistics.presets  # noqa: F401

    asyncio.run(attend())


if __name__ == "__main__":
    main()
