"""The fault matrix: each fault, what comes of it, the tests that show that it does, and where they run.

`python -m tests.faults.matrix > docs/faults.md` makes the page; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from tests.faults.rows_parties import PARTIES
from tests.faults.rows_sessions import SESSIONS

ROWS: Final = (*SESSIONS, *PARTIES)

HEAD: Final = """\
# Faults, what becomes of them, and the tests

Every row is a fault that a party must survive. After each of them, whatever else the row says:

**U1** who called gets a documented reason, and none waits beyond a deadline; **U2** no party has spent less
than the ε of what anybody could have opened; **U3** a session has at most one release, and none unless all
committed; **U4** the party serves, and answers a fresh question; **U5** nothing secret is in a log
(`tests/robustness/test_canaries.py`); **U6** the audit chain verifies; **U7** nothing is left behind: no
task, stream, file descriptor or memory of a session.

`tests/docs/test_named_tests.py` checks that each row is here and that each test exists. Those under
`tests/faults/` pass in `make faults`, which kills at every named place, at every party and at every sync
call, in four minutes; `make test` has the others, and every sixth case of those that take long, without the
two that wait longest. Those marked *strace* or *mount* are skipped, with the reason, where tracing or
mounting is not permitted.

`tests/faults/` looks for U after each fault (`tests/faults/universal.py`). Where a test runs: *processes*,
real parties as processes with TLS on this machine; *one process*, whole parties with real ledgers and
protocols in one event loop; *simulator*, the same on virtual time with a seeded network that drops, repeats,
reorders and delays, and crashes at every named place; *search*, every interleaving of the model; *wire*, gRPC
on this machine without a whole party; *ledger*, the ledger alone on a real file; *network*, processes in
network namespaces with a relay below TCP. `scenarios/…` are played by `mpc-engine scenario run`; those with
`ci = false` are not in `make test`.

`make test PYTEST_ARGS=tests/simulator` runs a thousand seeds of the simulator, or as many as
`SIMULATOR_SEEDS` says. A seed that fails prints itself and the shortest list of operations, which
`tests/simulator/reproductions/` keeps as a test for ever.

| row | fault | what happens | tests | where |
|---|---|---|---|---|
"""

TAIL: Final = """\

## The budget protocol

What the rows above show by example, a search shows for all interleavings of three parties, two tickets,
crashes, losses, repetitions and delays without bound. It finds no fault in the protocol, and the fault in
each of ten others.

```sh
make test PYTEST_ARGS="-n 0 -s tests/ledger_model"
```
"""


def page() -> str:
    """Return the page about faults."""
    lines = []
    for row in ROWS:
        tests = ", ".join(f"`{test}`" for test in row.tests)
        lines.append(f"| {row.name} | {row.fault} | {row.outcome} | {tests} | {row.where} |\n")
    return HEAD + "".join(lines) + TAIL


if __name__ == "__main__":
    print(page(), end="")
