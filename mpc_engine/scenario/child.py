"""One party as a process of its own; it reports to whoever started it, one JSON object a line.

Events: {"event": "phase", "name"}, {"event": "progress", "section", "done", "of"},
{"event": "done", "usage"}, {"event": "error", "reason", "message", "next_step", "exit_status"}.
SIGTERM stops it in good order. Ctrl-C is left to whoever started it, who hears of it as well.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path

from mpc_engine.errors import EngineError
from mpc_engine.party.config import load_config
from mpc_engine.party.process import harden, run_until_stopped, stop_on_signals, unexpected
from mpc_engine.party.service import Show, Usage, prepare, take_part
from mpc_engine.release.files import write_release
from mpc_engine.runtime.link import Section


def report(event: str, **fields: object) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **fields}), flush=True)


def _progress(section: Section, done: int, of: int) -> None:
    report("progress", section=section.name, done=done, of=of)


def _failed(error: EngineError) -> int:
    report(
        "error",
        reason=error.reason,
        message=str(error),
        next_step=error.next_step,
        exit_status=error.exit_status,
    )
    return error.exit_status


def main(config_path: str, query_path: str, out: str) -> int:
    """Register this party's data, if any, take part in one release, write it. Returns the exit status."""
    show = Show(lambda phase: report("phase", name=phase), _progress)
    usage = Usage()
    harden()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop_on_signals()
    try:
        config, _ = load_config(config_path)
        if config.mapping is not None and config.data is not None:
            # Imported here, for a helper need not load the table libraries.
            from mpc_engine.silo.register import register

            report("phase", name="register")
            register(config.path(config.mapping), config.path(config.data))
        ready = prepare(config_path, query_path, show)
        finished = run_until_stopped(take_part(ready, show, usage))
        write_release(finished.release, finished.receipt, Path(out))
    except EngineError as error:
        return _failed(error)
    except Exception as error:
        return _failed(unexpected(error))
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("done", usage={**usage.as_fields(), "rss_mib": round(rss_mib, 1)})
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
