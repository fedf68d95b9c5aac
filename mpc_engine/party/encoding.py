"""Messages of the analyst port as bytes: JSON tables, read without trusting anything about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from mpc_engine.documents import Document, parse
from mpc_engine.errors import DocumentError

M = TypeVar("M", bound=Document)


def write_message(message: Document) -> bytes:
    """Return a message as bytes."""
    return json.dumps(message.model_dump(by_alias=True), ensure_ascii=False, separators=(",", ":")).encode()


def read_message(content: bytes, model: type[M], origin: str = "request") -> M:
    """Return the message in ``content``. Raises DocumentError unless it is exactly one of its kind."""
    return parse(read_table(content, origin), model, origin)


def write_result(release: Mapping[str, Any], receipt: Mapping[str, Any] | None) -> bytes:
    """Return a release document and its receipt, None while that is not complete, as one message."""
    fields = {"release": release, "receipt": receipt}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def read_result(content: bytes, origin: str = "result") -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return release document and receipt. Raises DocumentError unless both are tables; that is all."""
    fields = read_table(content, origin)
    release, receipt = fields.get("release"), fields.get("receipt")
    if set(fields) != {"release", "receipt"} or not isinstance(release, dict):
        raise DocumentError(f"{origin}: holds no release")
    if receipt is not None and not isinstance(receipt, dict):
        raise DocumentError(f"{origin}: the receipt is no table of keys")
    return release, receipt


def read_table(content: bytes, origin: str) -> dict[str, Any]:
    """Return the JSON table in ``content``: UTF-8, no key twice, no number that JSON does not have."""
    try:
        fields = json.loads(content.decode(), object_pairs_hook=_table, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{origin}: is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"{origin}: not valid JSON: {error.msg} (byte {error.pos})") from None
    except _TwiceError:
        raise DocumentError(f"{origin}: a key occurs twice in one table") from None
    except ValueError:  # a number of thousands of digits, or one that JSON does not have
        raise DocumentError(f"{origin}: holds a number that is too long, or none of JSON") from None
    except RecursionError:
        raise DocumentError(f"{origin}: is nested too deeply") from None
    if not isinstance(fields, dict):
        raise DocumentError(f"{origin}: must be a table of keys")
    return fields


class _TwiceError(ValueError):
    pass


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


def _no_number(_: str) -> Any:
    raise ValueError
