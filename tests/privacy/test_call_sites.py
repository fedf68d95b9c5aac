"""Who may open what, read off the source: openings, declassification, randomness, and floats."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpc_engine

ROOT = Path(mpc_engine.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))
PRIVATE = ("field", "sharing", "runtime", "protocols", "dp", "release")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def uses(path: Path, prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield each use of a name that begins so, and whether it is a call; imports and definitions apart."""
    tree = tree_of(path)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name.startswith(prefix):
            yield name, id(node) in called


def places(prefix: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in FILES:
        for name, called in uses(path, prefix):
            assert called, f"{name_of(path)} passes {name} on, where its call sites cannot be read off"
            found.setdefault(name, set()).add(name_of(path))
    return found


def test_masked_openings_are_called_by_protocols_only() -> None:
    assert places("open_masked") == {
        "open_masked": {"protocols/checks.py"},
        "open_masked_bits": {"protocols/noise.py"},
        "open_masked_product": {"protocols/checks.py"},
    }


def test_declassification_has_one_caller() -> None:
    assert places("declassify_") == {
        "declassify_pattern": {"release/publication.py"},
        "declassify_values": {"release/publication.py"},
    }


def test_reconstruction_happens_in_openings_only() -> None:
    assert places("reconstruct_") == {
        "reconstruct_bits": {"protocols/opening.py", "harness/coalition.py"},  # the harness as an attacker
        "reconstruct_counts": {"protocols/opening.py", "release/declassify.py"},
    }
    assert places("exchange_all") == {"exchange_all": {"protocols/opening.py"}}


def modules_used(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_generator_with_a_seed(path: Path) -> None:
    banned = {"random", "numpy.random", "np.random", "pickle"}
    if not name_of(path).startswith(("estimators/", "harness/")):  # formulas on what is published already
        banned.add("scipy")
    # Made-up records for trying things out, schedules and attackers' coins, the same every time.
    if name_of(path).startswith(("silo/dummy/", "harness/")):
        banned -= {"random", "numpy.random", "np.random"}
    used = {
        m for m in modules_used(tree_of(path)) if m in banned or m.startswith(tuple(b + "." for b in banned))
    }
    assert not used


def test_made_up_records_are_made_for_people_only() -> None:
    """Commands, previews and trials use the generator of dummy records; nothing in a release does."""
    users = {
        name_of(path)
        for path in FILES
        if any(module.startswith("mpc_engine.silo.dummy") for module in modules_used(tree_of(path)))
    }
    people = ("silo/dummy/", "cli/", "client/preview.py", "scenario/trial/", "harness/")
    assert all(name.startswith(people) for name in users), users


ENTROPY = {"os.urandom", "secrets"}


def test_randomness_enters_in_few_places() -> None:
    drawing = {
        name_of(path)
        for path in FILES
        if any(m in ENTROPY or m.startswith("secrets.") for m in modules_used(tree_of(path)))
        and name_of(path).split("/")[0] in (*PRIVATE, "party")
    }
    # Masks of checks, keys, nonces; and the sequencer's tickets, which are public.
    assert drawing == {
        "protocols/checks.py",
        "sharing/keys.py",
        "party/session.py",
        "party/sequencer.py",
    }, drawing


def test_the_engine_knows_nothing_of_the_harness() -> None:
    """Its seeds, taps and faults are out of reach of whatever runs in a registry."""
    users = {
        name_of(path)
        for path in FILES
        if any(module.startswith("mpc_engine.harness") for module in modules_used(tree_of(path)))
    }
    assert all(name.startswith(("harness/", "cli/scenario.py", "cli/catalogue.py")) for name in users), users


def floats(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield f"line {node.lineno}: {node.value}"
        elif isinstance(node, ast.Name) and node.id in ("float", "complex"):
            yield f"line {node.lineno}: {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr.startswith(("float", "double", "complex")):
            yield f"line {node.lineno}: {ast.unparse(node)}"


# OpenDP's second opinion is asked in floats; what is opened is read as such; waits are clock time.
WITH_FLOATS = {
    "dp/calibrate.py",
    "release/opened.py",
    "runtime/link.py",
    "runtime/memory.py",
    "runtime/mailbox.py",
    "runtime/memory_lines.py",
    "runtime/memory_switchboard.py",
    "runtime/switchboard.py",
}
PRINTED = {("release/table.py", "as_fields")}
"""Functions in other files that write a float as text, for readers, and give none to anybody."""
INTEGER_ONLY = [
    path for path in FILES if name_of(path).split("/")[0] in PRIVATE and name_of(path) not in WITH_FLOATS
]


@pytest.mark.parametrize("path", INTEGER_ONLY, ids=name_of)
def test_no_floats_where_privacy_is_decided(path: Path) -> None:
    tree = tree_of(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (name_of(path), node.name) in PRINTED:
            node.body = []
    assert list(floats(tree)) == []


@pytest.mark.parametrize(
    "path",
    [p for p in INTEGER_ONLY if name_of(p).split("/")[0] in ("field", "sharing", "protocols")],
    ids=name_of,
)
def test_no_true_division_of_integers(path: Path) -> None:
    """`/` is a float in Python, except between field elements, which live in one module."""
    divisions = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
    ]
    assert not divisions or name_of(path) == "field/algebra.py"


def test_the_reader_finds_what_it_looks_for() -> None:
    tree = ast.parse(
        "import numpy as np\nx = 0.5 + float(1)\ny = np.random.default_rng(1)\nz = np.float64(3)"
    )
    assert len(list(floats(tree))) == 3
    assert "np.random" in set(modules_used(tree))
