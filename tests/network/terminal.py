"""A process that has the engine loaded and forks once for each command of a terminal.

Loading takes over a second of each command, and a guide has a hundred of them: this is how they are run in
the time of one. A command is the same as on its own: its arguments, folder, network, input and output are
those of the shell that runs `mpc-engine`, which is the small program `SHIM`.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpc_engine.harness.namespaces import enter, path_of
from mpc_engine.harness.nursery import end_with_parent
from tests.party.nursery import ROOT, environment

SHIM = """#!{python} -IS
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    asked = json.dumps({{"arguments": sys.argv[1:], "folder": os.getcwd(), "network": {network!r}}})
    fds = array.array("i", (0, 1, 2))
    line.sendmsg([asked.encode() + b"\\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    answer = line.makefile().readline()
sys.exit(int(answer or 99))
"""
LARGEST = 65_536


def serve(address: str) -> None:
    """Listen at a socket, and fork for every connection, until the process is ended."""
    import grpc  # noqa: F401
    import matplotlib.figure  # noqa: F401

    import mpc_engine.cli.query
    import mpc_engine.client.released
    import mpc_engine.result
    import mpc_engine.silo.register  # noqa: F401

    end_with_parent()  # no test is left that would end it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            line, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(_watch(line))
            line.close()


def _watch(line: socket.socket) -> int:
    """Run one command in a process of its own and report its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, rights, _, _ = line.recvmsg(LARGEST, socket.CMSG_LEN(3 * 4))
    fds = array.array("i", rights[0][2])
    child = os.fork()
    if child == 0:
        line.close()
        os._exit(_run(json.loads(data), list(fds)))
    for fd in fds:
        os.close(fd)
    _, status = os.waitpid(child, 0)
    line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def _run(asked: dict[str, object], fds: list[int]) -> int:
    from mpc_engine.cli.main import app

    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    if asked["network"]:
        enter(path_of(str(asked["network"])))
    os.chdir(str(asked["folder"]))
    os.umask(0o022)
    sys.argv = ["mpc-engine", *asked["arguments"]]  # type: ignore[misc]
    try:
        app()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status


@contextmanager
def loaded(address: str) -> Iterator[Callable[[], None]]:
    """Run the process, at a socket of this path; yields what waits until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.network.terminal", address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", COLUMNS="80"),
        start_new_session=True,
    )
    out = process.stdout

    def wait() -> None:
        assert out is not None and out.readline() == b"ready\n"

    try:
        yield wait
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, with all that it forked
        process.wait(30)
        if out is not None:
            out.close()


def write_shim(path: Path, address: str, network: str = "") -> None:
    """Write `mpc-engine` as the commands of one host find it, in its network namespace if it has one."""
    path.write_text(SHIM.format(python=sys.executable, address=address, network=network))
    path.chmod(0o755)


if __name__ == "__main__":
    serve(sys.argv[1])
