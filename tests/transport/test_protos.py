"""The committed protocol-buffer modules are those of the .proto files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mpc_engine.transport.options import SERVICE, SESSION_METHOD
from mpc_engine.transport.pb import peer_pb2

GENERATE = Path(__file__).parents[2] / "protos" / "generate.py"


def test_no_drift() -> None:
    done = subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_drift_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "protos"
    copy.mkdir()
    (copy / "generate.py").write_bytes(GENERATE.read_bytes())
    changed = (GENERATE.parent / "peer.proto").read_text().replace("snapshot_id = 7", "snapshot_id = 8")
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
    assert f"/{service.full_name}/{service.methods[0].name}" == SESSION_METHOD
