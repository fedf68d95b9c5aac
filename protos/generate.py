"""Write the Python modules of the protocol buffers, or with --check say whether they are up to date."""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "mpc_engine" / "transport" / "pb"


def generate(target: Path) -> None:
    """Compile every .proto file into `target`: a module and its type stub each."""
    sources = sorted(str(path) for path in PROTOS.glob("*.proto"))
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    options = [f"-I{PROTOS}", f"-I{well_known}", f"--python_out={target}", f"--pyi_out={target}"]
    if protoc.main(["protoc", *options, *sources]) != 0:
        raise SystemExit("protoc failed")


def drift() -> list[str]:
    """Return the names of generated files that differ from what the .proto files give now."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        expected = {path.name: path.read_bytes() for path in fresh.iterdir()}
    present = {path.name: path.read_bytes() for path in GENERATED.glob("*_pb2.py*")}
    return sorted(name for name in expected | present if expected.get(name) != present.get(name))


def main() -> int:
    """Return 0, or 1 if --check found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 on a difference")
    if not parser.parse_args().check:
        generate(GENERATED)
        return 0
    names = drift()
    for name in names:
        print(f"{GENERATED.relative_to(ROOT) / name} does not match protos/; run protos/generate.py")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
