"""The catalogue of failures as a document: `python -m mpc_engine.cli.catalogue > docs/errors.md`."""

from __future__ import annotations

import importlib
import pkgutil

import mpc_engine
from mpc_engine.errors import EngineError, catalogue

_HEAD = """\
# Failures: what they mean and what to do

Made from the exceptions in the code by `python -m mpc_engine.cli.catalogue > docs/errors.md`; a test
compares the two.

A command that fails prints one message, `error:` with what happened and where, followed by what to do
next, and exits with the status below. It leaves no file behind: those of `--out` are complete or not
there. The reason is what the other parties are told; `simulate` puts the party's name before the message.
Status 2 is also that of a command line that cannot be understood. `party serve` prints its message on a
terminal only; elsewhere standard error is a log, which is told the reason in one line, `party.not_started`,
and `mpc-engine party doctor` tells the rest.

*gRPC* is the status code that a program asking over the network sees, with the reason beside it. *Again*
tells whether asking the same again may succeed without anybody changing anything. *Budget* tells what
happens to the release's ε: `no`, nothing was taken; `held`, it was set aside and is given back when the
session ends; `spent`. Up to the commit nothing that depends on records has been opened, so a failure
before it costs nothing. After the commit the same failures leave ε spent, and the analyst is told
`PUBLICATION_ABORT`. A party that is stopped, or fails as the engine does not foresee, after its commit
has spent ε all the same.

| reason | gRPC | status | again | budget | what happened | what to do |
|---|---|---|---|---|---|---|
"""


def failures() -> list[type[EngineError]]:
    """Return all classes of failures of the engine, wherever they are defined, each once."""
    for module in pkgutil.walk_packages(mpc_engine.__path__, f"{mpc_engine.__name__}."):
        if module.name not in ("mpc_engine.dp.calibrate", "mpc_engine.cli.main"):
            importlib.import_module(module.name)
    return sorted(catalogue(), key=lambda cls: (cls.exit_status, cls.reason))


def document() -> str:
    """Return docs/errors.md."""
    return _HEAD + "".join(f"{_row(cls)}\n" for cls in failures())


def _row(cls: type[EngineError]) -> str:
    happened = "Something that the engine does not foresee." if cls is EngineError else _meaning(cls)
    again = "yes" if cls.retryable else "no"
    return (
        f"| `{cls.reason}` | `{cls.grpc_code}` | {cls.exit_status} | {again} | {cls.budget} | {happened} | "
        f"{cls.next_step} |"
    )


def _meaning(cls: type[EngineError]) -> str:
    return " ".join((cls.__doc__ or "").split())


if __name__ == "__main__":
    print(document(), end="")
