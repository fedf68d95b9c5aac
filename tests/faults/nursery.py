"""The process from which the parties of these tests are forked, so that each starts with all its libraries.

Run as a program it takes orders as lines of JSON on standard input and answers each with one line. A party is
a process like any other: it has its own memory, files, ports and end, and is killed or traced like one. Only
what it would spend on importing is saved, and what it would read from a source that changes meanwhile.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Fork and reap on order, until standard input ends; what still runs is killed then."""
    from mpc_engine.party.source import source_digest

    _import_all()
    source_digest()
    gc.collect()
    gc.freeze()
    children: dict[int, int | None] = {}
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if order["order"] == "start":
            pid = os.fork()
            if pid == 0:
                live(order)
            children[pid] = None
            say({"pid": pid})
        else:
            pid = int(order["pid"])
            if children[pid] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                children[pid] = os.waitstatus_to_exitcode(status) if ended else None
            say({"status": children[pid]})
    for child, exit_status in children.items():
        if exit_status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    os._exit(0)  # nothing of the libraries is worth an orderly end


def say(answer: dict[str, Any]) -> None:
    """Answer an order."""
    print(json.dumps(answer), flush=True)


def _import_all() -> None:
    import mpc_engine.cli.main
    import mpc_engine.party.serve
    import mpc_engine.silo.register
    import mpc_engine.silo.tabulate  # noqa: F401
    from tests.faults import traps  # noqa: F401


def live(order: dict[str, Any]) -> NoReturn:
    """Be a party's process from here on."""
    status = 70
    # Whatever becomes of the nursery, no party stays behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        null = os.open(os.devnull, os.O_RDWR)
        err = os.open(order["err"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for source, target in ((null, 0), (null, 1), (err, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(err)
        os.chdir(order["folder"])
        os.environ.update(order["env"])
        from mpc_engine.cli.main import app
        from tests.faults import traps

        traps.lay(Path(order["home"]))
        exec(order["prelude"], {"home": Path(order["home"])})
        sys.argv = ["mpc-engine", "party", "serve", "--config", order["config"]]
        try:
            app()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        print(f"the party's process fell over: {error!r}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
