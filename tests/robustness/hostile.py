"""Messages as nobody sends them: values drawn by Hypothesis, put where they do not belong.

Hypothesis draws the values once for a seed; where they go is drawn by a generator of the same seed, so that
ten thousand messages cost little more than their handling.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_TEXT = st.text(max_size=12) | st.sampled_from(
    (
        "",
        "\0",
        "\x1b[2J",
        "‮",
        "\ud800",
        "NaN",
        "-0",
        "1e999",
        "../../x",
        "'; DROP TABLE requests;--",
        "💥" * 40,
    )
)
_NUMBERS = (
    st.sampled_from(
        (0, 1, -1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**40, 10**400)
    )
    | st.integers()
    | st.floats()
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_RAW = (b"", b"null", b"[]", b'""', b"0", b"{", b'{"a":1,"a":2}', b"\xff\xfe{}", b"NaN", b'{"a":-Infinity}')
MUTATIONS = ("value", "drop", "extra", "swap", "nest", "twice", "number", "bytes", "cut", "raw", "none")


@cache
def values(number: int, count: int = 400) -> tuple[Any, ...]:
    """Return `count` values that JSON can write, or almost; the same for the same seed."""
    return tuple(drawn(_VALUES, number, count))


def drawn(strategy: st.SearchStrategy[Any], number: int, count: int) -> list[Any]:
    """Return what a strategy draws with a seed."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


class Mutator:
    """Spoils JSON documents and bytes; all that it does follows from its seed."""

    def __init__(self, number: int) -> None:
        self.rng = random.Random(number)
        self._values = values(number)

    def value(self) -> Any:
        """Return any value."""
        return self.rng.choice(self._values)

    def document(self, valid: Any) -> bytes:
        """Return a document as bytes, spoiled in one way or two, or hardly ever as it was."""
        fields = deepcopy(valid)
        content: bytes | None = None
        for kind in self.rng.choices(MUTATIONS, k=self.rng.choice((1, 1, 1, 2))):
            if kind in ("twice", "number", "bytes", "cut", "raw"):
                content = self._spoil(kind, _dumps(fields) if content is None else content)
            elif content is None and kind != "none":
                fields = self._change(kind, fields)
        return _dumps(fields) if content is None else content

    def data(self, valid: bytes) -> bytes:
        """Return bytes with some changed, cut off, put in or added."""
        content = bytearray(valid)
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            place = self.rng.randrange(len(content) + 1)
            match self.rng.randrange(5):
                case 0 if place < len(content):
                    content[place] ^= 1 << self.rng.randrange(8)
                case 1:
                    del content[place:]
                case 2:
                    content[place:place] = self.rng.randbytes(self.rng.choice((1, 4, 32)))
                case 3 if place < len(content):
                    content[place : place + 8] = self.rng.choice((b"\xff" * 8, bytes(8), bytes(7) + b"\x80"))
                case _:
                    content += content[place:]
        return bytes(content)

    # --- within -------------------------------------------------------------------------------------

    def _change(self, kind: str, fields: Any) -> Any:
        places = list(_places(fields))
        if not places:
            return self.value()
        holder, key = self.rng.choice(places)
        match kind:
            case "value":
                holder[key] = self.value()
            case "drop" if isinstance(holder, dict):
                del holder[key]
            case "extra" if isinstance(holder, dict):
                holder[self.rng.choice(("__class__", "id", "ticket", "", "\x00", "ε"))] = self.value()
            case "swap":
                other, name = self.rng.choice(places)
                holder[key] = json.loads(_dumps(other[name]))
            case "nest":
                inner = holder[key]
                for _ in range(self.rng.choice((1, 20, 200))):
                    inner = [inner] if self.rng.random() < 0.5 else {"a": inner}
                holder[key] = inner
            case _:
                holder[key] = None
        return fields

    def _spoil(self, kind: str, content: bytes) -> bytes:
        place = self.rng.randrange(len(content) + 1)
        match kind:
            case "twice":
                return content.replace(b"{", b'{"id":1,"id":2,', 1)
            case "number":
                huge = self.rng.choice((b"NaN", b"Infinity", b"1e400", b"9" * 5000, b"-0.0", b"1.5"))
                return content.replace(b":", b":" + huge + b',"z":', 1)
            case "bytes":
                return (
                    content[:place]
                    + self.rng.choice((b"\xff", b"\xc0\x80", b"\0", b"\xed\xa0\x80"))
                    + content[place:]
                )
            case "cut":
                return content[:place]
        return self.rng.choice((*_RAW, b"[" * 200 + b"]" * 200, b"[" * 100_000, b'{"a":' * 5000))


def _dumps(fields: Any) -> bytes:
    try:
        return json.dumps(fields, allow_nan=True).encode()
    except RecursionError:
        return b'{"a":' * 2000 + b"1" + b"}" * 2000


def _places(fields: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Give every place of a document, as what holds it and the key or index there."""
    pairs: Sequence[tuple[Any, Any]] = ()
    if isinstance(fields, dict):
        pairs = list(fields.items())
    elif isinstance(fields, list):
        pairs = list(enumerate(fields))
    for key, value in pairs:
        yield fields, key
        if depth < 8:
            yield from _places(value, depth + 1)
