"""A page of the docs as its reader follows it: sections, and in each the blocks with the words before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_HEADING = re.compile(r"^## (?P<title>.+)$")
_FENCE = re.compile(r"^(?P<margin> *)```(?P<language>\w*)$")
_FILE = re.compile(r"^`(?P<path>[^`]+)`, (?P<how>a new file|at the end|in place of what is there)\b.*:$")
_TERMINAL = re.compile(r"\b(first|second|third|fourth) terminal\b")


class FileEdit(NamedTuple):
    """What a block does to the file that is named before it."""

    path: str
    how: str


class Block(NamedTuple):
    """A fenced block."""

    line: int
    section: str
    language: str
    lead: str
    """The paragraph before it, if nothing else is between."""
    text: str

    @property
    def edit(self) -> FileEdit | None:
        found = _FILE.match(self.lead)
        return FileEdit(found["path"], found["how"]) if found else None

    @property
    def terminal(self) -> str:
        found = _TERMINAL.search(self.lead)
        return found[1] if found else "first"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    return list(_blocks(page.read_text().splitlines()))


def sections_of(page: Path) -> list[str]:
    return [found["title"] for line in page.read_text().splitlines() if (found := _HEADING.match(line))]


def _blocks(lines: list[str]) -> Iterator[Block]:
    section, paragraph, lead, begun = "", [], "", 0
    language, margin, text = "", "", None
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if text is not None:  # within a block
            if line == f"{margin}```":
                yield Block(begun, section, language, lead, "".join(f"{one}\n" for one in text))
                text, paragraph, lead = None, [], ""
            else:
                text.append(line.removeprefix(margin))
        elif fence:
            language, margin, text, begun = fence["language"], fence["margin"], [], number
            lead = " ".join(paragraph) or lead
        elif heading := _HEADING.match(line):
            section, paragraph, lead = heading["title"], [], ""
        elif line.strip():
            paragraph.append(line)
        else:
            paragraph, lead = [], " ".join(paragraph)
