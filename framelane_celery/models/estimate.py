"""How long the output of a composition will be, as far as the composition itself tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_PICTURES = ("png", "jpg")
_PLAYED = ("video", "audio")


def output_seconds(composition: Mapping[str, Any]) -> float | None:
    """Estimate from the JSON that goes on the wire; see `RenderRequest.estimated_output_s`."""
    if composition.get("output_format") in _PICTURES:
        return 0.0
    duration = _length(composition.get("duration"))
    if duration is not None:
        return duration
    elements = composition.get("elements")
    ends = [_end(element) for element in elements if isinstance(element, Mapping)] if isinstance(elements, list) else []
    return max((end for end in ends if end is not None), default=None)


def _end(element: Mapping[str, Any]) -> float | None:
    """Say when an element ends, in seconds of the timeline; None where that depends on its source."""
    length = _played(element) if element.get("type") in _PLAYED else _length(element.get("duration"))
    begins = _length(element.get("time")) or 0.0
    return None if length is None else begins + length


def _played(element: Mapping[str, Any]) -> float | None:
    out_point = _length(element.get("out_point"))
    if out_point is None:
        return None
    return _length((out_point - (_length(element.get("in_point")) or 0.0)) / (_length(element.get("speed")) or 1.0))


def _length(value: object) -> float | None:
    """Read a number above 0: `extra` is checked by nobody, so anything may be here."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if value > 0 and math.isfinite(value) else None
    except OverflowError:
        return None
