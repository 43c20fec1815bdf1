"""The types of single fields: what each takes, what it says when refused, and what the JSON schema says of it.

The patterns are written for both readers: Python here, an editor or a browser from the schema.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

_URL = r"^[hH][tT][tT][pP][sS]?://[^/?#\s]+\S*$"
# The extension counts without the query; whether a fragment is taken off too is not known, and not sent by anyone.
_VIDEO_URL = r"^[hH][tT][tT][pP][sS]?://[^/?#\s]+/[^?#\s]*\.([mM][pP]4|[mM][oO][vV]|[wW][eE][bB][mM])([?#]\S*)?$"
_HEX = r"^#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})$"
# Only "hex" is said of color_overlay: the short forms, which the background's documented pattern rules out, may pass.
_ANY_HEX = r"^#([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})$"
_DIMENSION = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(%|°|deg|px)?$"
_FILENAME = r"^(?!.*\.([mM][pP]4|[wW][eE][bB][mM]|[mM][oO][vV]|[gG][iI][fF]|[pP][nN][gG]|[jJ][pP][gG])$)"


def _short_number(value: float) -> int | float:
    """Write 5.0 as 5: the same number in fewer bytes, whichever of the two the caller gave."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def _matches(pattern: str, what: str) -> Callable[[str], str]:
    found = re.compile(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern).search

    def check(value: str) -> str:
        if found(value) is None:
            raise ValueError(what)
        return value

    return check


_is_dimension = _matches(_DIMENSION, "")


def _dimension(value: object) -> int | float | str:
    try:
        if isinstance(value, str):
            return _is_dimension(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return _short_number(value)
    except (ValueError, OverflowError):  # the second: an integer that no float can hold
        pass
    raise ValueError("must be a number of pixels, a percentage such as '50%' or an angle such as '90deg'")


Number = Annotated[float, PlainSerializer(_short_number)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Percent = Annotated[Number, Field(ge=0, le=100)]
Share = Annotated[Number, Field(ge=0, le=1)]
Seconds = Annotated[Number, Field(ge=0, description="Seconds of the whole timeline, not of the element.")]
Length = Annotated[Number, Field(gt=0, description="Seconds.")]

Word = Annotated[str, Field(min_length=1)]
"""A name from a catalogue that grows, such as the type of an effect: any but the empty one."""

Url = Annotated[
    str,
    Field(min_length=1, max_length=2083, json_schema_extra={"format": "uri", "pattern": _URL}),
    AfterValidator(_matches(_URL, "must be a URL that starts with https://")),
]
VideoUrl = Annotated[
    str,
    Field(min_length=1, max_length=2083, json_schema_extra={"format": "uri", "pattern": _VIDEO_URL}),
    AfterValidator(_matches(_URL, "must be a URL that starts with https://")),
    AfterValidator(_matches(_VIDEO_URL, "must end in .mp4, .mov or .webm, its query apart")),
]
Hex = Annotated[
    str,
    Field(json_schema_extra={"pattern": _HEX}),
    AfterValidator(_matches(_HEX, "must look like '#rrggbb' or '#rrggbbaa'")),
]
AnyHex = Annotated[
    str,
    Field(json_schema_extra={"pattern": _ANY_HEX}),
    AfterValidator(_matches(_ANY_HEX, "must look like '#rrggbb' or '#rrggbbaa'")),
]
Filename = Annotated[
    str,
    Field(json_schema_extra={"pattern": _FILENAME}, description="Without its extension."),
    AfterValidator(_matches(_FILENAME, "must have no extension: output_format says what the file is")),
]
Dimension = Annotated[
    float | str,
    PlainValidator(_dimension),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": _DIMENSION}]}),
]
Metadata = dict[str, str]
