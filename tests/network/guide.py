"""The operator's guide as something that can be followed: its blocks of commands and documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operate.md"
_FENCE = re.compile(r"^```(sh|toml)\n(.*?)^```$", re.M | re.S)


@dataclass
class Guide:
    """The blocks of docs/operate.md; `taken` are those that a test has followed."""

    sh: list[str]
    toml: list[str]
    taken: set[str] = field(default_factory=set)

    @classmethod
    def read(cls) -> Guide:
        """Read the page."""
        found = _FENCE.findall(PAGE.read_text(encoding="utf-8"))
        sh, toml = ([text for kind, text in found if kind == wanted] for wanted in ("sh", "toml"))
        return cls(sh, toml)

    def commands(self, words: str) -> str:
        """Return the one block of commands that has these words in it."""
        return self._take(self.sh, words)

    def document(self, words: str) -> str:
        """Return the one document that is these words, or has them in it."""
        return self._take(self.toml, words)

    def left(self) -> list[str]:
        """Return the blocks that were not followed."""
        return [text for text in (*self.sh, *self.toml) if text not in self.taken]

    def _take(self, blocks: list[str], words: str) -> str:
        found = [text for text in blocks if text == words] or [text for text in blocks if words in text]
        assert len(found) == 1, f"{len(found)} blocks of the guide have {words!r}"
        self.taken.add(found[0])
        return found[0]


def replaced(text: str, words: Mapping[str, str]) -> str:
    """Return a text with words replaced, all at once, the longest first."""
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(pattern, lambda match: words[match[0]], text)
