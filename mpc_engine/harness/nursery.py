"""A process from which others are forked, so that each starts with all its libraries.

Run as a program, with the modules to import as arguments, it takes orders as lines of JSON on standard input
and answers each with a line that has its ``number``, if it had one. What it forks is a process like any
other: it has its own memory, files, ports, network and end. Only what it would spend on importing is saved;
and all of them run, and declare, the same source, even if it changes meanwhile.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any, Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_FELL_OVER: Final = 70


def main(*modules: str) -> None:
    """Fork and reap on order, until standard input ends; what still runs is killed then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it by closing its input
    from mpc_engine.party.source import source_digest

    for module in modules:
        import_module(module)
    source_digest()
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    _say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if order["order"] == "start":
            pid = os.fork()
            if pid == 0:
                _live(order)
            running.add(pid)
            answer: dict[str, Any] = {"pid": pid}
        else:
            answer = _poll(int(order["pid"]), running)
        _say({"number": order.get("number"), **answer})
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os._exit(0)  # nothing of the libraries is worth an orderly end


def start_order(
    call: str,
    *arguments: str,
    folder: str,
    errors: str,
    output: str = os.devnull,
    env: dict[str, str] | None = None,
    namespace: str = "",
) -> dict[str, Any]:
    """Return the order to fork a process, which is answered by its `pid`.

    Args:
        call: what it runs, as ``module:function``; its exit status is what that returns or exits with.
        arguments: what the function is called with.
        folder: its working directory.
        errors: file to whose end its standard error goes.
        output: the same for standard output.
        env: variables to add to its environment.
        namespace: file of the network namespace it is in, "" for that of the nursery.
    """
    where = {"folder": folder, "errors": errors, "output": output, "namespace": namespace}
    return {"order": "start", "call": call, "arguments": arguments, "env": env or {}, **where}


def poll_order(pid: int) -> dict[str, Any]:
    """Return the order to look whether a process has ended.

    It is answered by its `status`, negative for a signal, by the CPU time it used, `cpu_s`, and by the most
    memory it held, `peak_mib`; once, for it is reaped then. Before and after, `status` is None.
    """
    return {"order": "poll", "pid": pid}


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _poll(pid: int, running: set[int]) -> dict[str, Any]:
    if pid not in running:
        return {"status": None}
    ended, status, used = os.wait4(pid, os.WNOHANG)
    if not ended:
        return {"status": None}
    running.discard(pid)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }


def _live(order: dict[str, Any]) -> NoReturn:
    """Be the process of an order from here on."""
    status = _FELL_OVER
    end_with_parent()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _redirect(order)
        os.chdir(order["folder"])
        os.environ.update(order["env"])
        if order["namespace"]:
            from mpc_engine.harness.namespaces import enter

            enter(order["namespace"])
        module, _, function = order["call"].partition(":")
        status = _status(getattr(import_module(module), function)(*order["arguments"]))
    except SystemExit as ended:
        status = _status(ended.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _redirect(order: dict[str, Any]) -> None:
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for path, flags, target in (
        (os.devnull, os.O_RDONLY, 0),
        (order["output"], appending, 1),
        (order["errors"], appending, 2),
    ):
        source = os.open(path, flags, 0o600)
        os.dup2(source, target)
        os.close(source)


def _status(code: object) -> int:
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    main(*sys.argv[1:])
