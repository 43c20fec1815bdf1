"""The kept file: a line per name; one that is no more as it was begins with "- " and stays, so that it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FILE = Path(__file__).with_name("names.txt")
GONE = "- "


def read() -> list[str]:
    return FILE.read_text("utf-8").splitlines()


def merged(kept: Iterable[str], now: Iterable[str]) -> list[str]:
    """The file's lines, once the names are as they are now: nothing vanishes from it."""
    now = set(now)
    gone = {line.removeprefix(GONE) for line in kept} - now
    return sorted(now) + sorted(GONE + line for line in gone)


def untold(kept: Iterable[str], changelog: str) -> list[str]:
    """Names that were removed or changed, and that the changelog does not name in backticks."""
    words = set(re.findall(r"`([^`]+)`", changelog))
    return [line for line in kept if line.startswith(GONE) and not words & spellings(line.removeprefix(GONE))]


def spellings(line: str) -> set[str]:
    """How the changelog may name it: ``setting deadline_s = 21600`` is `deadline_s`."""
    name = line.partition(" ")[2].partition(" = ")[0]
    return {name, name.partition("(")[0], name.rpartition(".")[2], name.rpartition(" ")[2], name.partition(" is ")[0]}
