"""How the operator's commands reach the running daemon: a socket in its state folder, for its owner only.

One connection carries one command: a line of JSON, ``{"command": …, "fields": {…}}``, and one line back,
``{"answer": {…}}`` or ``{"error": {"reason", "message", "next_step"}}``. Whoever may open the socket, file
mode 0600 in a folder of mode 0700, is the operator; there is no other password.

======== ===================== ===================================================================
command  fields                answer
======== ===================== ===================================================================
status   –                     ``party``, ``engine`` (version), ``source`` (digest), ``dev`` (bool),
                               ``started`` (time), ``snapshot`` ("" at a helper), ``open`` (requests
                               not ended), ``waiting`` (requests for this operator), ``sessions``
                               (running), ``ready`` (bool), ``missing``: what keeps it from being
                               ready, as :mod:`~mpc_engine.party.readiness` names it, ``records``
                               (None at a helper): {``words``, ``fault``, ``newer`` (list)}, as in
                               :class:`~mpc_engine.party.counting.Standing`, ``not_after``
                               (time), ``ports``: {``peers``, ``analysts``, ``health``, ``metrics``},
                               0 for none, ``peers``: list of {``name``, ``up``, ``since`` (time),
                               ``rtt_s``, ``clock_skew_s`` (None if not known), ``trouble`` (text)}
list     ``all`` (bool)        ``requests``: list of fields of
                               :class:`~mpc_engine.party.overview.Summary`, latest last; ended ones
                               too if ``all``
show     ``id``                ``request``: Summary fields; ``lines``: list of [style, text] as
                               :func:`~mpc_engine.party.explain.explain_request` returns them
approve  ``id``, ``operator``  ``request``: Summary fields after it
reject   ``id``, ``operator``, ``request``: Summary fields after it
         ``reason`` (text)
withdraw ``id``, ``operator``, ``request``: Summary fields after it; on behalf of an analyst whom
         ``reason`` (text)     this party enrolled
budget   –                     ``scopes``: list of {``kind``, ``name``, ``spent``, ``held``,
                               ``remaining``, ``limit``}, the last four being {``micro_epsilon``
                               (int), ``delta`` (text, in units of 2^-100)}, None in place of what is
                               not limited; ``rows``: list of {``time``, ``ticket``, ``request``,
                               ``query``, ``analyst``, ``project``, ``decided`` ("policy" or an
                               operator), ``state``, ``micro_epsilon``, ``delta``}, latest last; see
                               :func:`~mpc_engine.party.overview.budget_fields`
recover  –                     ``adopted``: list of {``request``, ``analyst``, ``micro_epsilon``,
                               ``peer``}, one for each debit taken over; ``peers``: names of those who
                               answered; ``missing``: names of those who did not
policy   –                     ``policy``: the published policy in force; ``digest``: its digest
======== ===================== ===================================================================

``id`` is a request's id or its first characters, eight or more, as long as they are those of one request
only; the daemon raises :class:`~mpc_engine.errors.UnknownRequestError` for none and for several. Times are
written ``YYYY-MM-DDThh:mm:ssZ``. The audit chain is not asked for here: whoever may open the socket may
read the ledger itself, beside the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mpc_engine.errors import (
    DeadlineError,
    DocumentError,
    EngineError,
    InUseError,
    NotRunningError,
    PeerError,
    TooLargeError,
    catalogue,
)

SOCKET_NAME: Final = "control.sock"
"""Name of the socket in the state folder."""
MAX_COMMAND_BYTES: Final = 1 << 16
"""Longest command."""
MAX_ANSWER_BYTES: Final = 1 << 24
"""Longest answer."""
COMMANDS: Final = frozenset(
    ("status", "list", "show", "approve", "reject", "withdraw", "budget", "recover", "policy")
)
"""Commands that a daemon knows."""
_READ_S: Final = 10.0
_MOST_CALLERS: Final = 16
_LONGEST_PATH: Final = 100

Handle = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Answers a command with fields; raises EngineError."""

_log = logging.getLogger(__name__)


class ControlServer:
    """Serves the socket; an asynchronous context manager.

    Only the holder of the state folder's lock may start one: a socket left by a daemon that was killed is
    replaced. Raises InUseError for a file in its place that is no socket, DocumentError where none can be
    made.
    """

    def __init__(self, path: Path, handle: Handle) -> None:
        self.path, self._handle = path, handle
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ControlServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to serve."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise InUseError(f"{self.path}: is in the place of the control socket")
            self.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            with _short(self.path) as address:
                listener.bind(address)
            # Nobody can connect before listening begins, so there is no moment at which others may.
            self.path.chmod(0o600)
            self._server = await asyncio.start_unix_server(
                self._called, sock=listener, limit=MAX_COMMAND_BYTES
            )
        except OSError as error:
            listener.close()
            raise DocumentError(
                f"{self.path}: the control socket cannot be made ({error.strerror})"
            ) from None

    async def close(self) -> None:
        """Stop serving, end the calls under way and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._callers:
            task.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._callers) >= _MOST_CALLERS:
            writer.close()
            return
        self._callers.add(task)
        try:
            answer = await self._answer(reader)
            writer.write(answer + b"\n")
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # who asked is gone, or the daemon stops: there is nobody to tell
        finally:
            self._callers.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            command, fields = _command(await asyncio.wait_for(_line(reader), _READ_S))
            answer = json.dumps({"answer": dict(await self._handle(command, fields))}, ensure_ascii=False)
            if len(encoded := answer.encode()) >= MAX_ANSWER_BYTES:
                raise TooLargeError(f"the answer to {command} has more than {MAX_ANSWER_BYTES} bytes")
            return encoded
        except EngineError as error:
            return _failure(error.reason, str(error), error.next_step)
        except TimeoutError:
            return _failure(DeadlineError.reason, "no whole command came", DeadlineError.next_step)
        except Exception as error:
            # As everywhere, the text of an unforeseen failure may quote data: only its kind is told.
            _log.error("control: a command failed: %s", type(error).__name__)
            return _failure(EngineError.reason, f"failed: {type(error).__name__}", EngineError.next_step)


async def ask(
    path: Path, command: str, fields: Mapping[str, Any] | None = None, timeout_s: float = 30.0
) -> dict[str, Any]:
    """Return the daemon's answer to a command.

    Raises the failure that it answered with, NotRunningError if none runs, DocumentError if it is another
    user's, PeerError if it ends without an answer, DeadlineError if it takes too long.
    """
    line = json.dumps({"command": command, "fields": dict(fields or {})}, ensure_ascii=False).encode()
    if len(line) >= MAX_COMMAND_BYTES:
        raise TooLargeError(f"the command has {len(line)} bytes; at most {MAX_COMMAND_BYTES} are taken")
    try:
        async with asyncio.timeout(timeout_s):
            received = await _exchange(path, line)
    except TimeoutError:
        raise DeadlineError(f"the party did not answer `{command}` within {timeout_s:g} seconds") from None
    return _read(received)


async def served(path: Path) -> bool:
    """Return whether a daemon listens at the socket."""
    try:
        with _short(path) as address:
            _, writer = await asyncio.open_unix_connection(address)
    except OSError:
        return False
    writer.close()
    return True


async def _exchange(path: Path, line: bytes) -> bytes:
    try:
        with _short(path) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=MAX_ANSWER_BYTES)
    except PermissionError:
        raise DocumentError(
            f"{path} may be used only by the user whom this party runs as; run the command as that user"
        ) from None
    except OSError:
        raise NotRunningError(f"this party is not running: nothing listens at {path}") from None
    try:
        writer.write(line + b"\n")
        await writer.drain()
        return await reader.readline()
    except ValueError:
        raise TooLargeError(f"the party's answer has more than {MAX_ANSWER_BYTES} bytes") from None
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _read(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise PeerError("the party ended without an answer; see its log")
    try:
        said = json.loads(line)
        if "answer" in said:
            return dict(said["answer"])
        reason, message = str(said["error"]["reason"]), str(said["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PeerError("the party's answer is none; are both of one version?") from None
    raise known_failures().get(reason, EngineError)(message)


def known_failures() -> dict[str, type[EngineError]]:
    """Return the classes of failures by reason; of two with one reason, the general one."""
    found: dict[str, type[EngineError]] = {}
    for cls in catalogue():
        found.setdefault(cls.reason, cls)
    return found


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise TooLargeError(f"the command has more than {MAX_COMMAND_BYTES} bytes") from None
    except asyncio.IncompleteReadError:
        raise DocumentError("the command is not whole") from None


def _command(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        said = json.loads(line)
        command, fields = said["command"], said["fields"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DocumentError("a command is a line of JSON with `command` and `fields`") from None
    if not isinstance(command, str) or command not in COMMANDS:
        raise DocumentError(f"there is no such command; commands: {', '.join(sorted(COMMANDS))}")
    if not isinstance(fields, dict):
        raise DocumentError(f"the fields of {command} are a table")
    return command, fields


def _failure(reason: str, message: str, next_step: str) -> bytes:
    told = {"reason": reason, "message": message, "next_step": next_step}
    return json.dumps({"error": told}, ensure_ascii=False).encode()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a path by which the socket can be reached: names of sockets have 107 bytes at most."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
