"""A finding: what a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from framelane_celery.doctor.facts import Facts

Level = Literal["problem", "warning", "ok"]

LEVELS: Final[tuple[Level, ...]] = ("problem", "warning", "ok")
"""Worst first. A problem loses or doubles work, or stops it; a warning may."""


class Finding(NamedTuple):
    """What is wrong, why it matters in one line, and exactly what to change."""

    level: Level
    check: str
    """What was looked at, in a word or two."""
    what: str
    why: str = ""
    change: str = ""


Check = Callable[["Facts"], Iterator[Finding]]


def not_checked(check: str, why: str, change: str = "") -> Finding:
    """What could not be asked is not fine."""
    return Finding("warning", check, f"not checked: {why}", "What is not looked at may be wrong.", change)


def listed(names: list[str], most: int = 4) -> str:
    """Names for the eye: ``a, b and 7 more``."""
    shown = names[:most]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def span(seconds: float) -> str:
    """A span for the eye: ``45 s``, ``3 min``, ``2.5 h``, ``35 days``."""
    for unit, size, up_to in (("s", 1, 120), ("min", 60, 3600), ("h", 3600, 172_800)):
        if seconds < up_to:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds / 86400)} days"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
