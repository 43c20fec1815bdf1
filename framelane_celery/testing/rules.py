"""Rules about single values: each takes a value and says what is wrong with it, or None."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from framelane_celery.testing.refusals import Path, Problem

Rule = Callable[[Any], "str | None"]

_HEX = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})")
_ANY_HEX = re.compile(r"#([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")
_DIMENSION = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(%|°|deg|px)?")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/]+\S*")


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _is_integer(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool)
    return _is_number(value) and int(value) == value


def number(low: float | None = None, high: float | None = None, *, above: float | None = None) -> Rule:
    """A number, from low to high, or above a bound it must not touch.

    Strict on purpose: the real server may read "12" as 12 (INFER, Pydantic's lax mode).
    """

    def check(value: Any) -> str | None:
        if not _is_number(value):
            return "must be a number"
        if (low is not None and value < low) or (high is not None and value > high):
            return f"must be a number {_span(low, high)}"
        return f"must be greater than {above:g}" if above is not None and value <= above else None

    return check


def integer(low: int | None = None, high: int | None = None) -> Rule:
    """An integer from low to high."""

    def check(value: Any) -> str | None:
        is_integer = _is_integer(value)
        if is_integer and (low is None or value >= low) and (high is None or value <= high):
            return None
        return f"must be an integer {_span(low, high)}".strip()

    return check


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "" if low is None and high is None else f"of at least {low:g}" if low is not None else f"up to {high:g}"
    return f"from {low:g} to {high:g}"


def text(least: int = 0) -> Rule:
    """A string of at least so many characters."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        return f"must have at least {least} character{'s' * (least > 1)}" if len(value) < least else None

    return check


def url(value: Any) -> str | None:
    """An absolute URL of 1 to 2083 characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= 2083 or not _URL.fullmatch(value):
        return "must be a URL of 1 to 2083 characters"
    return None


def one_of(*values: str) -> Rule:
    """One of a closed list of words."""

    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and value in values else f"must be one of {', '.join(values)}"

    return check


def flag(value: Any) -> str | None:
    """True or false."""
    return None if isinstance(value, bool) else "must be true or false"


def hex_color(value: Any) -> str | None:
    """A colour: `#rrggbb` or `#rrggbbaa`."""
    return None if isinstance(value, str) and _HEX.fullmatch(value) else "must be a colour like #rrggbb or #rrggbbaa"


def any_hex_color(value: Any) -> str | None:
    """A colour of which only "hex" is said: the short forms may pass too (INFER)."""
    return None if isinstance(value, str) and _ANY_HEX.fullmatch(value) else hex_color(value)


def dimension(value: Any) -> str | None:
    """Pixels as a number, or a percentage or an angle as a string: `50%`, `90°`, `90deg`.

    Source: docs.framelane.io/renders/elements; a bare or `px` number in a string is let through (INFER).
    """
    if _is_number(value) or (isinstance(value, str) and _DIMENSION.fullmatch(value)):
        return None
    return 'must be a number of pixels, or a string like "50%" or "90deg"'


def an_object(value: Any) -> str | None:
    """An object, whatever is in it."""
    return None if isinstance(value, dict) else "must be an object"


def array(value: Any) -> str | None:
    """A list."""
    return None if isinstance(value, list) else "must be an array"


def strings(most: int) -> Rule:
    """A list of at most so many strings."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, str) for item in value):
            return f"must be an array of at most {most} strings"
        return None

    return check


def nullable(rule: Rule) -> Rule:
    """The rule, or null."""
    return lambda value: None if value is None else rule(value)


def check_object(value: Any, path: Path, rules: Mapping[str, Rule], required: tuple[str, ...] = ()) -> list[Problem]:
    """Hold an object against rules by name.

    A field without a rule passes: the server ignores what it does not know, so a misspelt name is no error
    (site src/lib/renderRequestSchema.ts).
    """
    if not isinstance(value, dict):
        return [Problem(path, "must be an object")]
    problems = [Problem((*path, name), "is required") for name in required if name not in value]
    for name, content in value.items():
        wrong = rules[name](content) if name in rules else None
        if wrong is not None:
            problems.append(Problem((*path, name), wrong))
    return problems


def check_items(value: Any, path: Path, rules: Mapping[str, Rule], required: tuple[str, ...] = ()) -> list[Problem]:
    """Hold every object of a list against the same rules; null and absent are an empty list."""
    if value is None:
        return []
    if not isinstance(value, list):
        return [Problem(path, "must be an array")]
    return [problem for at, item in enumerate(value) for problem in check_object(item, (*path, at), rules, required)]


def check_pairs(value: Any, path: Path) -> list[Problem]:
    """Find the values of an object that are no strings."""
    pairs = value.items() if isinstance(value, dict) else ()
    return [Problem((*path, name), "must be a string") for name, content in pairs if not isinstance(content, str)]
