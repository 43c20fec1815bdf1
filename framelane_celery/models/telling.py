"""Pydantic's errors in the caller's words: where, what, and what to change. No value is ever quoted."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from framelane_celery.errors import InvalidArguments, clean_text

MOST_SHOWN = 5
Loc = tuple[int | str, ...]


def wrong(*problems: tuple[Loc, str]) -> ValidationError:
    """Make the error of a check that looks at a whole model; each problem has its own place below it."""
    lines = [
        InitErrorDetails(type=PydanticCustomError("wrong", "{what}", {"what": what}), loc=loc, input=None)
        for loc, what in problems
    ]
    return ValidationError.from_exception_data("request", lines, hide_input=True)


def invalid_arguments(error: ValidationError) -> InvalidArguments:
    """Turn pydantic's error, also one of a model built by the user's own code, into ours."""
    details = error.errors(include_url=False)
    told = [(_path(detail), _what(detail)) for detail in details]
    lines = [f"{path}: {what}" if path else what for path, what in told[:MOST_SHOWN]]
    more = f"; and {len(told) - MOST_SHOWN} more" if len(told) > MOST_SHOWN else ""
    return InvalidArguments(f"{error.title}: {'; '.join(lines)}{more}", told[0][0] or None)


def _path(detail: ErrorDetails) -> str:
    """Write ('elements', 0, 'video', 'effects', 1, 'type') as elements[0].effects[1].type.

    Pydantic puts the element's type between its index and the field; nobody wrote that. What it cannot place, it
    places at the element: that is then about its type.
    """
    loc = detail["loc"]
    steps = [step for at, step in enumerate(loc) if not (at == 2 and loc[0] == "elements")]
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
        steps.append("type")
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{clean_text(step, 60)}" for step in steps)
    return text.removeprefix(".")


def _what(detail: ErrorDetails) -> str:
    say = _SAID.get(detail["type"])
    if say is None:
        return clean_text(detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be"), 400)
    return say(detail.get("ctx", {}), detail["input"]) if callable(say) else say


def _one_of(words: str, given: object) -> str:
    """Name the words that may stand there, and which of them was meant. `given` is read, and not quoted."""
    near = difflib.get_close_matches(given.lower(), words.replace("'", "").replace(" or ", ", ").split(", "), n=1) \
        if isinstance(given, str) else []  # fmt: skip
    return f"must be {words}" + (f"; did you mean '{near[0]}'?" if near else "")


def _tag(_: Mapping[str, Any], element: object) -> str:
    return _one_of("'video', 'audio', 'text' or 'image'", element.get("type") if isinstance(element, Mapping) else None)


def _at_least(things: str) -> Callable[[Mapping[str, Any], object], str]:
    return lambda ctx, _: (
        "must not be empty" if ctx["min_length"] == 1 else f"must have at least {ctx['min_length']} {things}"
    )


# By pydantic's name of the error: the text, or what makes it of the error's context and of what was given.
_SAID: dict[str, str | Callable[[Mapping[str, Any], object], str]] = {
    "missing": "is required",
    "union_tag_not_found": _tag,
    "union_tag_invalid": _tag,
    "literal_error": lambda ctx, given: _one_of(str(ctx["expected"]), given),
    "greater_than": lambda ctx, _: f"must be greater than {ctx['gt']:g}",
    "greater_than_equal": lambda ctx, _: f"must be {ctx['ge']:g} or more",
    "less_than_equal": lambda ctx, _: f"must be {ctx['le']:g} or less",
    "finite_number": "must be a finite number",
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be True or False"),
    **dict.fromkeys(("string_type", "string_unicode"), "must be a string"),
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a dict"),
    "string_too_short": _at_least("characters"),
    "too_short": _at_least("items"),
    "string_too_long": lambda ctx, _: f"must have at most {ctx['max_length']} characters",
    "too_long": lambda ctx, _: f"must have at most {ctx['max_length']} items",
}
