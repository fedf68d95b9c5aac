"""Loading documents: each failure names the file, the key and what is allowed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.documents import Document, Field, canonical, digest, load, load_json, load_toml, parse
from mpc_engine.errors import DocumentError


class Inner(Document):
    size: int = Field(ge=1, le=9)


class Outer(Document):
    name: str
    inner: tuple[Inner, ...] = ()
    table: dict[str, int] = {}  # noqa: RUF012


def _written(folder: Path, content: str | bytes, name: str = "a.toml") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_toml_and_json_give_the_same(tmp_path: Path) -> None:
    one = load(_written(tmp_path, 'name = "x"\ninner = [{size = 2}]\n'), Outer)
    two = load(_written(tmp_path, '{"name": "x", "inner": [{"size": 2}]}', "a.json"), Outer)
    assert one.model_dump() == two.model_dump() == {"name": "x", "inner": ({"size": 2},), "table": {}}
    assert one.origin.endswith("a.toml")
    with pytest.raises(ValueError):
        one.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "name: is required and missing"),
        ("name = 1", 'name: must be text in quotes, such as "1"'),
        ('name = "x"\ninner = [{size = 2}, {size = 10}]', r"inner\[1\]\.size: must be at most 9"),
        ('name = "x"\ninner = [{size = 2.0}]', r"inner\[0\]\.size: must be a whole number"),
        ('name = "x"\ninner = [{size = true}]', r"inner\[0\]\.size: must be a whole number"),
        ('name = "x"\ninner = 3', "inner: must be a list"),
        (
            'name = "x"\ninner = [{size = 2, sise = 3}]',
            r"inner\[0\]\.sise: is not a key known here; known keys: size",
        ),
        ('name = "x"\ntable = {"a b" = "1"}', r'table\."a b": must be a whole number'),
        ("name = \n", r"not valid TOML.*line 1, column 8"),
        ('name = "x"\nname = "y"', "not valid TOML"),
        ("a = " + "[" * 40 + "]" * 40, "nested"),
        (b"name = '\xff'", r"not UTF-8 text \(byte 8\)"),
        ("#" * ((1 << 20) + 1), "larger than 1048576 bytes"),
        ("a = " + "9" * 5000, "a number with too many digits"),
        ("\n" + ".".join(["a"] * 300) + " = 1", "line 2 has more than 200 points"),
        ('name = "x"\n"\\u001B[2J" = 1', r'"\\u001b\[2J": is not a key known here'),
    ],
)
def test_broken_rules(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = _written(tmp_path, content)
    with pytest.raises(DocumentError, match=message) as error:
        load_toml(path, Outer)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": ', "not valid JSON.*line 1, column"),
        ('{"name": "x", "name": "y"}', "'name' occurs twice"),
        ("[1]", "is a table of keys"),
        ('{"name": NaN}', "name: must be text"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": ' + "9" * 5000 + "}", "a number with too many digits"),
        (r'{"name": "\ud800"}', r"text that is not Unicode: '\\ud800'"),
        (r'{"\ud800": "x"}', r"text that is not Unicode: '\\ud800'"),
        (r'{"name": "x", "table": {"\ud800": 1}}', r"text that is not Unicode: '\\ud800'"),
    ],
)
def test_broken_json(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        load_json(_written(tmp_path, content, "a.json"), Outer)


def test_missing_files_folders_and_suffixes(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"none\.toml: there is no such file"):
        load(tmp_path / "none.toml", Outer)
    with pytest.raises(DocumentError, match="cannot be read"):
        load_toml(tmp_path, Outer)
    with pytest.raises(DocumentError, match=r"a \.toml or a \.json file, not \.yaml"):
        load(tmp_path / "x.yaml", Outer)


def test_several_problems_take_a_line_each_and_ten_at_most() -> None:
    with pytest.raises(DocumentError) as error:
        parse({"name": "x", "inner": [{"size": 0}] * 14}, Outer, "doc")
    lines = str(error.value).splitlines()
    assert lines[0] == "doc: 14 problems"
    assert lines[1] == "  inner[0].size: must be at least 1"
    assert len(lines) == 12 and lines[-1] == "  … and 4 more"


def test_digest_is_canonical() -> None:
    text = '{"a":[1,"é"],"b":null}'
    assert digest({"b": None, "a": [1, "é"]}) == hashlib.sha256(text.encode()).hexdigest()
    for bad in (1.0, [{"x": 0.5}], 2**60, object()):
        with pytest.raises(DocumentError):
            digest({"a": bad})


_TEXT = st.text(max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXT, _VALUES, max_size=4))
def test_canonical_json_is_that_of_rfc_8785(fields: dict[str, Any]) -> None:
    assert canonical(fields) == rfc8785.dumps(fields)


@pytest.mark.parametrize("value", [2**53, -(2**53), 0.5, {1: "a"}, b"a", {"a": {"b": {1}}}, "\ud800"])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(DocumentError):
        canonical({"value": value})
