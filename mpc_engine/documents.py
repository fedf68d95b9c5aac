"""Documents that people write: strict models, one loader, and the digest that parties compare.

This module is the only door to pydantic. A model built on :class:`Document` refuses unknown keys,
silent conversions and oversized text; the loaders turn every broken rule into a
:class:`~mpc_engine.errors.DocumentError` that names the file, the key and what is allowed there.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import rfc8785
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mpc_engine.errors import DocumentError

__all__ = [
    "AfterValidator",
    "BeforeValidator",
    "Document",
    "Field",
    "PrivateAttr",
    "StringConstraints",
    "broken",
    "canonical",
    "digest",
    "field_validator",
    "load",
    "load_json",
    "load_toml",
    "model_validator",
    "parse",
    "read",
    "refuse",
]

MAX_BYTES: Final = 1 << 20
"""Largest document that is read, in bytes."""
MAX_DEPTH: Final = 16
"""Deepest nesting of tables and lists that is read."""
MAX_POINTS: Final = 200
"""Most points in one line of TOML. Reading a dotted key takes time quadratic in its parts."""
MAX_PROBLEMS: Final = 10
"""Most problems that one message lists."""


_GREATEST: Final = (1 << 53) - 1
"""Largest integer that every reader of JSON keeps exact."""
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
"""Writes RFC 8785 for text, integers, and keys below U+10000, many times faster than `rfc8785` does."""

M = TypeVar("M", bound="Document")


class Document(BaseModel):
    """Base of every model of a document: strict types, no unknown keys, immutable.

    A field that holds a list is declared as a tuple.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        str_max_length=4096,
        hide_input_in_errors=True,
    )

    _origin: str = PrivateAttr(default="")

    @property
    def origin(self) -> str:
        """Return the file this was read from, for messages; the model's name if it came from elsewhere."""
        return self._origin or type(self).__name__.lower()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        """Refuse unknown keys and say which are known; the plain refusal would not tell the latter."""
        if isinstance(data, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            accepted = known | set(cls.model_fields)
            unknown = [str(key) for key in data if key not in accepted]
            if unknown:
                raise broken(
                    _quoted(unknown[0]), f"is not a key known here; known keys: {', '.join(sorted(known))}"
                )
        return data


def broken(path: str, message: str) -> PydanticCustomError:
    """Return the error to raise in a validator when the rule concerns the key ``path`` below the model."""
    # Braces would be taken for placeholders of the template, hence the context.
    return PydanticCustomError("broken_rule", "{message}", {"message": message, "path": path})


def refuse(origin: str, problems: Iterable[tuple[str, str]]) -> DocumentError:
    """Return the error for a document with ``problems``, pairs of key path and message."""
    listed = [f"{path}: {message}" if path else message for path, message in problems]
    if len(listed) == 1:
        return DocumentError(f"{origin}: {listed[0]}")
    shown = [f"  {line}" for line in listed[:MAX_PROBLEMS]]
    if len(listed) > MAX_PROBLEMS:
        shown.append(f"  … and {len(listed) - MAX_PROBLEMS} more")
    return DocumentError("\n".join([f"{origin}: {len(listed)} problems", *shown]))


def load(path: str | Path, model: type[M]) -> M:
    """Read the TOML or JSON document at ``path`` (the suffix decides) as ``model``.

    Raises :class:`DocumentError` if the file is missing, too large, malformed or breaks a rule.
    """
    return parse(read(path), model, str(path))


def load_toml(path: str | Path, model: type[M]) -> M:
    """Read the TOML document at ``path`` as ``model``; errors as :func:`load`."""
    return parse(_read_toml(Path(path)), model, str(path))


def load_json(path: str | Path, model: type[M]) -> M:
    """Read the JSON document at ``path`` as ``model``; errors as :func:`load`."""
    return parse(_read_json(Path(path)), model, str(path))


def read(path: str | Path) -> dict[str, Any]:
    """Return the top-level table of the TOML or JSON document at ``path``, not yet held to a model."""
    path = Path(path)
    match path.suffix.lower():
        case ".toml":
            return _read_toml(path)
        case ".json":
            return _read_json(path)
        case suffix:
            raise DocumentError(
                f"{path}: a document is a .toml or a .json file, not {suffix or 'without suffix'}"
            )


def parse(data: Mapping[str, Any], model: type[M], origin: str = "") -> M:
    """Return ``data`` (plain tables, lists, text, integers, booleans) as ``model``.

    ``origin`` names the document in messages. Raises :class:`DocumentError` if a rule is broken.
    """
    origin = origin or model.__name__.lower()
    _check_shape(data, origin)
    try:
        document = model.model_validate(_immutable(data))
    except ValidationError as error:
        problems = [(_path(detail, data), _message(detail)) for detail in error.errors(include_url=False)]
        raise refuse(origin, dict(problems).items()) from None
    document._origin = origin
    return document


def canonical(fields: Mapping[str, object]) -> bytes:
    """Return the canonical JSON (RFC 8785) of ``fields``, in UTF-8: the same bytes on every machine.

    Fields hold text, integers below 2^53 in size, booleans, null, lists and tables; decimals go in as
    text, because two machines may print a float differently. Raises :class:`DocumentError` otherwise.
    """
    if _check_canonical(fields, 0):
        return _ENCODER.encode(fields).encode()
    return rfc8785.dumps(fields)  # type: ignore[arg-type]


def digest(fields: Mapping[str, object]) -> str:
    """Return the SHA-256, in hexadecimal, of :func:`canonical` JSON of ``fields``; errors as there."""
    return hashlib.sha256(canonical(fields)).hexdigest()


def _immutable(value: Any) -> Any:
    """Return ``value`` with tuples for lists, the only form of a list that a frozen model holds."""
    if isinstance(value, Mapping):
        return {key: _immutable(item) for key, item in value.items()}
    return tuple(_immutable(item) for item in value) if isinstance(value, list | tuple) else value


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DocumentError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise DocumentError(f"{path}: is larger than {MAX_BYTES} bytes, the most a document may have")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def _read_toml(path: Path) -> dict[str, Any]:
    text = _text(path)
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_POINTS:
            raise DocumentError(f"{path}: line {number} has more than {MAX_POINTS} points")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(f"{path}: not valid TOML: {error}") from None
    except ValueError:  # the only other one: Python reads no integer of thousands of digits
        raise DocumentError(f"{path}: holds a number with too many digits") from None
    except RecursionError:
        raise DocumentError(f"{path}: is nested too deeply") from None


def _read_json(path: Path) -> dict[str, Any]:
    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise DocumentError(f"{path}: the key {key!r} occurs twice in one table")
            found[key] = value
        return found

    try:
        data = json.loads(_text(path), object_pairs_hook=table)
    except json.JSONDecodeError as error:
        raise DocumentError(
            f"{path}: not valid JSON: {error.msg} (at line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError:  # as above
        raise DocumentError(f"{path}: holds a number with too many digits") from None
    except RecursionError:
        raise DocumentError(f"{path}: is nested too deeply") from None
    if not isinstance(data, dict):
        raise DocumentError(f"{path}: a document is a table of keys, not a list or a single value")
    return data


def _check_shape(value: object, origin: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise DocumentError(f"{origin}: is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        if value.isascii():
            return
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only JSON's escapes can write
            raise DocumentError(f"{origin}: holds text that is not Unicode: {value[:80]!a}") from None
    elif isinstance(value, dict | Mapping):
        for key, item in value.items():
            _check_shape(key, origin, depth)
            _check_shape(item, origin, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_shape(item, origin, depth + 1)


def _check_canonical(value: object, depth: int) -> bool:
    """Refuse what has no canonical form; tell whether sorting keys by code point sorts them as RFC 8785 does.

    That standard compares UTF-16 units, which differs where a key has characters beyond the first 2^16.
    """
    if depth > MAX_DEPTH:
        raise DocumentError(f"digest: is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        if not value.isascii():
            _check_shape(value, "digest")
        return True
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        if abs(value) > _GREATEST:
            raise DocumentError("a value has no canonical form; write large numbers as text")
        return True
    if isinstance(value, float):
        raise DocumentError("a float has no place in a digest; write decimals as text")
    if isinstance(value, dict):
        plain = True
        for key, item in value.items():
            if not isinstance(key, str):
                raise DocumentError("a value has no canonical form; the keys of a table are text")
            if not key.isascii():
                _check_shape(key, "digest")
                plain = plain and max(key) < "\U00010000"
            plain = _check_canonical(item, depth + 1) and plain
        return plain
    if isinstance(value, list | tuple):
        return all([_check_canonical(item, depth + 1) for item in value])
    raise DocumentError("a value has no canonical form; a digest holds text, whole numbers, lists and tables")


def _path(detail: ErrorDetails, data: Mapping[str, Any]) -> str:
    """Return the dotted path of the key at fault as the writer of ``data`` sees it."""
    keys: list[str | int] = []
    here: Any = data
    last = len(detail["loc"]) - 1
    for position, key in enumerate(detail["loc"]):
        if isinstance(here, Mapping) and key in here:
            here = here[str(key)]
        elif isinstance(here, list) and isinstance(key, int) and key < len(here):
            here = here[key]
        elif not (position == last and detail["type"] == "missing"):
            continue  # the name of a union's branch: not something that was written
        keys.append(key)
    path = ""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}"
    below = detail.get("ctx", {}).get("path", "") if detail["type"] == "broken_rule" else ""
    if below:
        path += below if below.startswith("[") else f".{below}"
    return path.removeprefix(".")


def _quoted(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key, ensure_ascii=False)


_WORDS: Final[dict[str, str]] = {
    "missing": "is required and missing",
    "string_type": 'must be text in quotes, such as "1"',
    "int_type": "must be a whole number, without quotes",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "date_type": "must be a date such as 1960-01-01",
    "date_from_datetime_parsing": "must be a date such as 1960-01-01",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "the key {discriminator}, which says what this is, is missing",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} items",
}


def _message(detail: ErrorDetails) -> str:
    """Return pydantic's finding in the words of the person who wrote the document."""
    words = _WORDS.get(detail["type"])
    return words.format(**detail.get("ctx", {})) if words else detail["msg"].removeprefix("Value error, ")
