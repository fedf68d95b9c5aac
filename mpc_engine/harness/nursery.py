"""The process from which a scenario's parties are forked, so that each starts with all its libraries.

Run as a program it takes orders as lines of JSON on standard input and answers each with a line. A party is a
process like any other: it has its own memory, files, ports, network and end. Only what it would
spend on importing is saved; and all of them run, and declare, the same source, even if it changes meanwhile.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWNET: Final = 0x40000000


def main() -> None:
    """Fork and reap on order, until standard input ends; what still runs is killed then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it by closing its input
    from mpc_engine.party.source import source_digest

    _import_all()
    source_digest()
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if order["order"] == "start":
            pid = os.fork()
            if pid == 0:
                live(order)
            running.add(pid)
            say({"pid": pid})
        else:
            say(_poll(int(order["pid"]), running))
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os._exit(0)  # nothing of the libraries is worth an orderly end


def say(answer: dict[str, Any]) -> None:
    """Answer an order."""
    print(json.dumps(answer), flush=True)


def _poll(pid: int, running: set[int]) -> dict[str, Any]:
    """Return whether a party has ended, told once, and what it used in all."""
    if pid not in running:
        return {"status": None}
    ended, status, used = os.wait4(pid, os.WNOHANG)
    if not ended:
        return {"status": None}
    running.discard(pid)
    return {"status": os.waitstatus_to_exitcode(status), "cpu_s": used.ru_utime + used.ru_stime}


def _import_all() -> None:
    import mpc_engine.harness.actor
    import mpc_engine.party.serve
    import mpc_engine.silo.register
    import mpc_engine.silo.tabulate  # noqa: F401


def enter_network(namespace: str) -> None:
    """Move this process, which has one thread, into a network namespace by the file that stands for it.

    Raises OSError.
    """
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), namespace)
    finally:
        os.close(handle)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def live(order: dict[str, Any]) -> NoReturn:
    """Be a party's process from here on."""
    status = 70
    end_with_parent()
    try:
        null = os.open(os.devnull, os.O_RDWR)
        err = os.open(order["errors"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for source, target in ((null, 0), (null, 1), (err, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(err)
        os.chdir(order["home"])
        os.environ.update(order["env"])
        if order["namespace"]:
            enter_network(order["namespace"])
        from mpc_engine.harness.actor import serve

        status = serve(Path(order["home"]))
    except BaseException as error:
        print(f"the party's process fell over: {error!r}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
