"""The map of the code in docs/architecture.md shows every module where it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mpc_engine"
LAYERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
ROW = re.compile(r"^\| `(\w+)` \|(.*)$", re.MULTILINE)


def rows() -> dict[str, str]:
    """Return the rows of the table of layers by the layer's name."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.split("## Layers")[1].split("\n## ")[0]
    return {name: rest for name, rest in ROW.findall(table)}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layers_row_names_all_its_modules_and_none_that_is_gone(layer: str) -> None:
    folder = PACKAGE / layer
    files = [path for path in folder.rglob("*.py") if path.parent.name != "pb"]
    there = {path.stem for path in files} - {"__init__"}
    named = set(re.findall(r"`(\w+)`", rows()[layer]))
    assert not (there - named), "modules that the row does not name"
    folders = {path.name for path in folder.rglob("*") if path.is_dir()}
    commands = {"doctor"}
    assert not (named - there - folders - commands), "names of what is not there"


def test_every_layer_has_a_row() -> None:
    single = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert set(rows()) >= {*LAYERS, *single}
