"""Which bodies of renders and media tasks are refused.

The rules come from the documentation, not from this package's models: two readings of one text find what one alone
would hide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from framelane_celery.testing.elements import check_elements, check_source, check_transitions
from framelane_celery.testing.refusals import Problem
from framelane_celery.testing.rules import (
    Rule,
    an_object,
    check_object,
    check_pairs,
    flag,
    hex_color,
    integer,
    nullable,
    number,
    one_of,
    strings,
    text,
    url,
)

OUTPUT_FORMATS = ("mp4", "webm", "mov", "gif", "png", "jpg")

_SHARED: dict[str, Rule] = {"metadata": an_object, "webhook_url": nullable(url)}
_RENDER: dict[str, Rule] = {
    **_SHARED,
    "width": nullable(integer(16, 8192)),
    "height": nullable(integer(16, 8192)),
    "duration": nullable(number(above=0)),
    "frame_rate": integer(1, 240),
    "output_format": one_of(*OUTPUT_FORMATS),
    "output_filename": nullable(text()),
    "background_color": hex_color,
    "background_image_url": nullable(url),
    "alpha": flag,
    "ingest_external": nullable(flag),
}
_OWN: dict[str, dict[str, Rule]] = {
    "transcribe": {
        "language": nullable(text(1)),
        "speech_model": one_of("universal-2", "universal-3-pro", "nano"),
        "speakers_expected": nullable(integer(1, 10)),
        "word_boost": strings(200),
        **dict.fromkeys(("word_timings", "speaker_labels", "sentiment_analysis", "entity_detection"), flag),
        **dict.fromkeys(("auto_highlights", "content_safety", "iab_categories"), flag),
    },
    "gaze_redirect": {"intensity": number(0, 1)},
    # The factor's name is unknown: each candidate is held to the range that is known, 1 to 4.
    "super_resolution": dict.fromkeys(("scale", "factor", "scale_factor"), number(1, 4)),
    "remove_background": {},
}


def check_request(
    task_type: str | None, body: Mapping[str, Any], is_good_source: Callable[[str], bool]
) -> list[Problem]:
    """Find what is wrong with the body of a render (no task_type) or of a media task.

    Source: framelane_api.md §5 and §6, from docs.framelane.io/api-reference/renders/submit-a-render-job and
            …/tasks/*-task.
    """
    if task_type is None:
        return _check_render(body, is_good_source)
    rules = {**_SHARED, "source_url": url, **_OWN[task_type]}
    problems = check_object(body, (), rules, ("source_url",)) + check_pairs(body.get("metadata"), ("metadata",))
    return problems + check_source(body.get("source_url"), ("source_url",), is_good_source)


def _check_render(body: Mapping[str, Any], is_good_source: Callable[[str], bool]) -> list[Problem]:
    problems = check_object(body, (), _RENDER) + check_pairs(body.get("metadata"), ("metadata",))
    for present, missing in (("width", "height"), ("height", "width")):
        if body.get(present) is not None and body.get(missing) is None:
            problems.append(Problem((missing,), "width and height go together: give both or neither"))
    if body.get("alpha") is True and body.get("output_format", "mp4") not in ("webm", "mov"):
        problems.append(Problem(("alpha",), "needs output_format webm or mov"))
    # "No extension" (the reference page): of the formats, since "promo.v2" may be meant as a name (INFER).
    if str(body.get("output_filename") or "").lower().endswith(tuple(f".{name}" for name in OUTPUT_FORMATS)):
        problems.append(Problem(("output_filename",), "must have no extension"))
    problems += check_elements(body.get("elements"), is_good_source)
    return problems + check_transitions(body.get("transitions"), body.get("elements"))
