"""How long the output of a composition is: the server's own reading of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE_S = 1.0
"""The length of every source, which nobody fetches here."""


def output_seconds(body: Mapping[str, Any]) -> float:
    """Say how many seconds of output a valid render request makes.

    Source: `duration` is "derived from elements" where it is not given (site src/lib/minimizeRenderRequest.ts), and
            text and image have a `duration`, video and audio an `out_point` (docs.framelane.io/renders/elements).
            INFER: the latest end of all elements counts, `speed` shortens, a picture (png, jpg) has no seconds.
    """
    if body.get("output_format") in ("png", "jpg"):
        return 0.0
    if body.get("duration") is not None:
        return float(body["duration"])
    return max((_end(element) for element in body.get("elements") or ()), default=SOURCE_S)


def _end(element: Mapping[str, Any]) -> float:
    begins: float = element.get("time", 0)
    if element["type"] in ("text", "image"):
        return float(begins + element["duration"])
    in_point = element.get("in_point", 0)
    out_point = element.get("out_point") or in_point + SOURCE_S
    return float(begins + (out_point - in_point) / element.get("speed", 1))
