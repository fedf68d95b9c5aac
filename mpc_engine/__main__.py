"""`python -m mpc_engine`: the same as the command `mpc-engine`."""

from __future__ import annotations

from mpc_engine.cli.main import app

if __name__ == "__main__":
    app()
