"""The control socket: one line each way, for its owner only, whatever comes in."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc_engine.errors import (
    BudgetError,
    DeadlineError,
    DocumentError,
    EngineError,
    InUseError,
    NotRunningError,
    PeerAbortedError,
    PeerError,
    TooLargeError,
    UnknownRequestError,
    catalogue,
)
from mpc_engine.party import control
from mpc_engine.party.control import MAX_COMMAND_BYTES, ControlServer, ask, known_failures, served


async def echo(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer with what was asked."""
    return {"command": command, "fields": dict(fields)}


def answered(path: Path, handle: control.Handle, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run `work` while a server with this handle runs, and return its result."""

    async def both() -> Any:
        async with ControlServer(path, handle):
            return await work()

    return asyncio.run(asyncio.wait_for(both(), 20))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is."""
    return tmp_path / "control.sock"


def test_a_command_and_its_answer(path: Path) -> None:
    async def work() -> None:
        assert await served(path)
        answer = await ask(path, "show", {"id": "ab", "words": "ε ≤ 1\n", "flag": True})
        assert answer == {"command": "show", "fields": {"id": "ab", "words": "ε ≤ 1\n", "flag": True}}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        many = await asyncio.gather(*(ask(path, "status", {"n": n}) for n in range(8)))
        assert [each["fields"]["n"] for each in many] == list(range(8))

    answered(path, echo, work)
    assert not path.exists()


def test_without_a_daemon_it_says_so(path: Path) -> None:
    async def work() -> None:
        assert not await served(path)
        with pytest.raises(NotRunningError, match="not running"):
            await ask(path, "status")

    asyncio.run(work())
    with socket.socket(socket.AF_UNIX) as stale:  # what a killed daemon leaves
        stale.bind(str(path))
    asyncio.run(work())
    answered(path, echo, lambda: ask(path, "status"))


def test_a_file_in_the_way_is_not_removed(path: Path) -> None:
    path.write_text("kept")
    with pytest.raises(InUseError, match="in the place of the control socket"):
        answered(path, echo, lambda: ask(path, "status"))
    assert path.read_text() == "kept"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "control.sock"
    with pytest.raises(DocumentError, match="cannot be made"):
        answered(missing, echo, lambda: ask(missing, "status"))


def test_a_path_longer_than_sockets_take(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120) / ("b" * 120)
    folder.mkdir(parents=True)
    deep = folder / "control.sock"
    assert answered(deep, echo, lambda: ask(deep, "status"))["command"] == "status"
    assert not deep.exists()


@pytest.mark.parametrize("cls", catalogue())
def test_every_failure_comes_back_as_what_it_was(path: Path, cls: type[EngineError]) -> None:
    async def fails(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        raise cls("what happened")

    with pytest.raises(EngineError) as failure:
        answered(path, fails, lambda: ask(path, "approve", {"id": "ab"}))
    assert type(failure.value).reason == cls.reason
    assert str(failure.value) == "what happened"
    assert failure.value.exit_status == known_failures()[cls.reason].exit_status


def test_an_unforeseen_failure_tells_its_kind_only(path: Path) -> None:
    async def fails(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        raise KeyError("a value of a record")

    with pytest.raises(EngineError) as failure:
        answered(path, fails, lambda: ask(path, "status"))
    assert str(failure.value) == "failed: KeyError"
    assert type(failure.value) is EngineError


def test_an_answer_that_takes_too_long(path: Path) -> None:
    async def never(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    with pytest.raises(DeadlineError, match=r"within 0\.05 seconds"):
        answered(path, never, lambda: ask(path, "recover", timeout_s=0.05))


def test_closing_ends_the_calls_under_way(path: Path) -> None:
    async def both() -> None:
        begun = asyncio.Event()

        async def never(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
            begun.set()
            await asyncio.Event().wait()
            return {}

        async with ControlServer(path, never):
            asked = asyncio.create_task(ask(path, "status"))
            await begun.wait()
        with pytest.raises(PeerError, match="without an answer"):
            await asked

    asyncio.run(asyncio.wait_for(both(), 20))


def test_sizes_are_limited_both_ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError, match="at most 65536"):
        answered(path, echo, lambda: ask(path, "reject", {"reason": "x" * MAX_COMMAND_BYTES}))
    monkeypatch.setattr(control, "MAX_ANSWER_BYTES", 1 << 12)

    async def much(command: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"lines": ["x" * 100] * 100}

    with pytest.raises(TooLargeError, match="the answer to list"):
        answered(path, much, lambda: ask(path, "list"))


async def _raw(path: Path, content: bytes) -> dict[str, Any]:
    """Send bytes as they are and return the answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(content)
    writer.write_eof()
    try:
        return dict(json.loads(await reader.read()))
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not whole"),
        (b'{"command": "status", "fields": {}}', "not whole"),
        (b"\n", "line of JSON"),
        (b"\xff\xfe\n", "line of JSON"),
        (b"[]\n", "line of JSON"),
        (b'{"command": "status"}\n', "line of JSON"),
        (b'{"command": "shutdown", "fields": {}}\n', "no such command"),
        (b'{"command": 7, "fields": {}}\n', "no such command"),
        (b'{"command": "status", "fields": []}\n', "are a table"),
        (b"[" * 60_000 + b"\n", "line of JSON"),
        (b"x" * (MAX_COMMAND_BYTES + 2) + b"\n", "more than 65536"),
    ],
)
def test_what_is_no_command_is_refused(path: Path, content: bytes, words: str) -> None:
    said = answered(path, echo, lambda: _raw(path, content))
    assert words in said["error"]["message"]
    assert said["error"]["reason"] in ("DOCUMENT", "TOO_LARGE")
    assert said["error"]["next_step"]


def test_a_caller_who_says_nothing_does_not_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_READ_S", 0.05)

    async def silent() -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            return dict(json.loads(await reader.readline()))
        finally:
            writer.close()

    assert answered(path, echo, silent)["error"]["reason"] == "ROUND_TIMEOUT"


def test_callers_are_limited(path: Path) -> None:
    async def work() -> None:
        held = [await asyncio.open_unix_connection(str(path)) for _ in range(16)]
        while len(server._callers) < 16:
            await asyncio.sleep(0)
        with pytest.raises(PeerError, match="without an answer"):
            await ask(path, "status")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        while server._callers:
            await asyncio.sleep(0)
        assert (await ask(path, "status"))["command"] == "status"

    async def both() -> None:
        async with server:
            await work()

    server = ControlServer(path, echo)
    asyncio.run(asyncio.wait_for(both(), 20))


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]\n", b"7\n", b"{}\n", b'{"error": 7}\n', b'{"answer": 7}\n', b"[" * 100_000 + b"\n"],
)
def test_an_answer_that_is_none_is_a_failure(path: Path, line: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        writer.close()

    async def both() -> None:
        async with await asyncio.start_unix_server(serve, str(path)):
            with pytest.raises(PeerError):
                await ask(path, "status")

    asyncio.run(asyncio.wait_for(both(), 20))


def test_a_reason_of_a_newer_engine_is_a_failure_all_the_same() -> None:
    with pytest.raises(EngineError, match="what happened") as failure:
        control._read(b'{"error": {"reason": "BRAND_NEW", "message": "what happened"}}\n')
    assert type(failure.value) is EngineError
    for cls in (BudgetError, UnknownRequestError, PeerAbortedError):
        with pytest.raises(cls):
            control._read(json.dumps({"error": {"reason": cls.reason, "message": "m"}}).encode() + b"\n")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_get_a_documented_answer(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{os.getpid()}.sock"
    said = answered(path, echo, lambda: _raw(path, content.replace(b"\n", b"") + b"\n"))
    assert "answer" in said or said["error"]["reason"] == "DOCUMENT"
