"""`mpc-engine dev up`: three parties that one can ask at once, and that leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from mpc_engine.client import connect
from mpc_engine.errors import DocumentError, PeerError
from mpc_engine.identity import load_card
from mpc_engine.party.control import SOCKET_NAME
from mpc_engine.scenario.trial import NAMES, Trial, make_trial
from tests.cli.conftest import Run
from tests.party.machines import LONGEST_S, Command, start
from tests.party.services import Services


def up(folder: Path, *options: str) -> tuple[Command, Trial]:
    """Start the command and return it once it has said how to ask."""
    command = start(folder, "dev", "up", "--dir", str(folder / "trial"), *options)
    while "Ctrl-C stops the parties." not in command.out:
        assert command.process.poll() is None, command.err
        assert time.monotonic() - command.started < LONGEST_S, command.err
        time.sleep(0.02)
    return command, Trial(folder / "trial")


def test_parties_answer_and_are_gone_after_ctrl_c(tmp_path: Path) -> None:
    command, trial = up(tmp_path)
    try:
        services = Services(trial)
        assert all(services.status(name)["ready"] and services.status(name)["dev"] for name in NAMES)
        for line in command.out.splitlines():
            assert len(line) <= 80 or line.startswith("  mpc-engine ")
        assert f"mpc-engine query submit {trial.query} --profile {trial.profile} --wait" in command.out
        with connect(trial.profile) as client:
            request = client.ask(trial.query).submit("k")
            request.wait(LONGEST_S)
            assert len(request.result().table) == 16
        assert all(load_card(card).dev for card in (trial.folder / "cards").glob("*.json"))
        command.process.send_signal(signal.SIGINT)
        assert command.end() == 0, command.err
        assert not trial.folder.exists()
        assert "Traceback" not in command.err
    finally:
        command.process.kill()


def test_a_party_that_ends_ends_the_trial_and_keep_keeps_it(tmp_path: Path) -> None:
    command, trial = up(tmp_path, "--keep")
    try:
        os.kill(_process_of(trial, "helper"), signal.SIGKILL)
        assert command.end() == PeerError.exit_status
        assert "the party helper ended" in command.said
        assert trial.profile.exists() and "party serve --config" in command.out
    finally:
        command.process.kill()


def _process_of(trial: Trial, name: str) -> int:
    """Return the process that serves a party's control socket."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(trial.folder / name / "state" / SOCKET_NAME))
        found = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[0])


def test_a_folder_that_holds_something_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    run("dev", "up", "--dir", tmp_path).failed_with(DocumentError.exit_status, "is not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(DocumentError):
        make_trial(tmp_path)
