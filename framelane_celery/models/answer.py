"""Reading what the API answers: what is missing, null or of an unknown shape becomes None, and stops nobody."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

_instant = TypeAdapter(datetime)


def text_of(value: object) -> str | None:
    return value if isinstance(value, str) else None


def number_of(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # JSON has integers that no float can hold
        return None


def whole_of(value: object) -> int | None:
    number = number_of(value)
    return None if number is None else math.floor(number)


def instant_of(value: object) -> datetime | None:
    """Read an ISO instant as aware UTC; one without a zone is UTC, since the API writes nothing else."""
    try:
        at = _instant.validate_python(value)
        return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except (ValidationError, OverflowError):  # the second: the year 9999 in a zone west of UTC
        return None


def object_of(value: object) -> object:
    return value if isinstance(value, (Mapping, BaseModel)) else None


Text = Annotated[str | None, BeforeValidator(text_of)]
Number = Annotated[float | None, BeforeValidator(number_of)]
Whole = Annotated[int | None, BeforeValidator(whole_of)]
Instant = Annotated[datetime | None, BeforeValidator(instant_of)]


class Answer(BaseModel):
    """An answer, or a part of one. Unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, defer_build=True)
