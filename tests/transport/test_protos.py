"""The committed protocol-buffer modules are those of the .proto files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mpc_engine.transport.options import LINE_METHOD, SERVICE, SESSION_METHOD
from mpc_engine.transport.pb import peer_pb2

GENERATE = Path(__file__).parents[2] / "protos" / "generate.py"


def test_no_drift() -> None:
    done = subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_drift_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "protos"
    copy.mkdir()
    (copy / "generate.py").write_bytes(GENERATE.read_bytes())
    for source in GENERATE.parent.glob("*.proto"):
        (copy / source.name).write_bytes(source.read_bytes())
    changed = re.sub(r"snapshot_id = \d+", "snapshot_id = 99", (copy / "peer.proto").read_text())
    (copy / "peer.proto").write_text(changed)
    target = tmp_path / "mpc_engine" / "transport" / "pb"
    target.mkdir(parents=True)
    for committed in (GENERATE.parents[1] / "mpc_engine" / "transport" / "pb").glob("*_pb2.py*"):
        (target / committed.name).write_bytes(committed.read_bytes())
    done = subprocess.run(
        [sys.executable, copy / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "peer_pb2.py does not match" in done.stdout


def test_the_names_on_the_wire_are_those_of_the_proto() -> None:
    service = peer_pb2.DESCRIPTOR.services_by_name["Peer"]
    assert service.full_name == SERVICE
    methods = [f"/{service.full_name}/{method.name}" for method in service.methods]
    assert methods == [SESSION_METHOD, LINE_METHOD]
