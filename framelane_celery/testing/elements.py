"""Which elements, motions, effects and transitions are refused.

Source: docs.framelane.io/renders/elements, …/renders/examples/*, …/api-reference/renders/submit-a-render-job, and the
console's mirror of the backend's schema (site src/lib/renderRequestSchema.ts). Catalogues that grow (motions, effects,
transitions) take any word here: the sources contradict each other about them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from framelane_celery.testing.refusals import Path, Problem
from framelane_celery.testing.rules import (
    Rule,
    any_hex_color,
    check_items,
    check_object,
    dimension,
    flag,
    integer,
    nullable,
    number,
    one_of,
    text,
    url,
)

VIDEO_EXTENSIONS = (".mp4", ".mov", ".webm")

_LENGTH, _ZERO_UP, _PERCENT = number(above=0), number(0), number(0, 100)
_COMMON: dict[str, Rule] = {
    "id": text(),
    "time": number(0),
    "visible": flag,
    "name": nullable(text()),
    "track": nullable(integer(0, 255)),
}
_BLENDS = [
    "none",
    "multiply",
    "screen",
    "overlay",
    "darken",
    "lighten",
    "color_dodge",
    "color_burn",
    "hard_light",
    "soft_light",
]
_VISUAL: dict[str, Rule] = {
    **dict.fromkeys(("x", "y", "width", "height", "x_anchor", "y_anchor"), nullable(dimension)),
    **dict.fromkeys(("x_rotation", "y_rotation", "z_rotation", "x_scale", "y_scale"), nullable(dimension)),
    **dict.fromkeys(("flip_horizontal", "flip_vertical", "clip"), flag),
    "opacity": _PERCENT,
    "z_index": integer(),
    "blend_mode": nullable(one_of(*_BLENDS)),
    "color_overlay": nullable(any_hex_color),
    **dict.fromkeys(("border_color", "shadow_color"), nullable(text())),
    **dict.fromkeys(("border_radius", "border_width", "shadow_blur", "shadow_x", "shadow_y"), nullable(dimension)),
}
_PICTURE: dict[str, Rule] = {
    **dict.fromkeys(("crop_top", "crop_bottom", "crop_left", "crop_right"), number(0, 1)),
    **dict.fromkeys(["brightness", "contrast", "saturation", "exposure", "sharpness"], number()),
    **dict.fromkeys(["blur", "noise", "vignette", "hue_rotate"], number()),
    "lut_url": nullable(url),
    "lut_intensity": _PERCENT,
}
_PLAYED: dict[str, Rule] = {
    "source_url": url,
    "in_point": _ZERO_UP,
    "out_point": nullable(_LENGTH),
    "speed": number(0.25, 4.0),
    **dict.fromkeys(("fade_in_duration", "fade_out_duration"), number()),  # no range is stated
}
_TEXT: dict[str, Rule] = {
    "text": text(1),
    "duration": _LENGTH,
    "font_family": text(),
    "font_size": _LENGTH,
    "font_weight": integer(100, 900),
    "font_style": one_of("normal", "italic", "bold", "bolditalic"),
    "text_color": text(),
    "text_align": one_of("left", "center", "right"),
    "text_decoration": one_of("none", "underline", "strikethrough"),
    "tracking": number(),
    "leading": number(),
    **dict.fromkeys(("stroke_color", "background_color"), nullable(text())),
    **dict.fromkeys(("stroke_width", "x_padding", "y_padding"), nullable(dimension)),
    "background_opacity": _PERCENT,
    "text_wrap": one_of("wrap", "nowrap"),
    "animation_preset": nullable(text()),
    **dict.fromkeys(("background", "stroke", "shadow"), flag),
}
_KINDS: dict[str, tuple[dict[str, Rule], tuple[str, ...]]] = {
    "video": ({**_COMMON, **_VISUAL, **_PICTURE, **_PLAYED, "volume": _PERCENT}, ("source_url",)),
    "audio": ({**_COMMON, **_PLAYED, "volume": number(high=100, above=0)}, ("source_url",)),
    "text": ({**_COMMON, **_VISUAL, **_TEXT}, ("text", "duration")),
    "image": (
        {**_COMMON, **_VISUAL, **_PICTURE, "source_url": url, "duration": _LENGTH, "id": text(1)},
        ("id", "duration", "source_url"),
    ),
}
_MOTION: dict[str, Rule] = {
    "type": text(1),
    "time": _ZERO_UP,
    "duration": _LENGTH,
    "easing": one_of("linear", "ease_in", "ease_out", "ease_in_out"),
    "reversed": flag,
    "scope": nullable(one_of("element", "character")),
}
_EFFECT: dict[str, Rule] = {"type": text(1), "intensity": _PERCENT}
_WORD: dict[str, Rule] = {"text": text(), "start": number(), "end": number()}  # no range is stated
_WORD_STYLES = one_of("glow", "box", "scale_pop", "slide_up", "fly_in", "color")
_TRANSITION: dict[str, Rule] = {
    "type": text(1),
    "duration": _LENGTH,
    "from_id": nullable(text()),
    "to_id": nullable(text()),
    "z_index": nullable(integer()),
}


def check_elements(elements: Any, is_good_source: Callable[[str], bool]) -> list[Problem]:
    """Find what is wrong with `elements`."""
    if elements is None:
        return []
    if not isinstance(elements, list):
        return [Problem(("elements",), "must be an array")]
    problems: list[Problem] = []
    for at, element in enumerate(elements):
        problems += _check_element(element, ("elements", at), is_good_source)
    return problems or _check_ids(elements)


def check_transitions(transitions: Any, elements: Any) -> list[Problem]:
    """Find what is wrong with `transitions`.

    Source: the codes TRANSITION_SELF and DANGLING_TRANSITION, site renderRequestSchema.ts (quotes invariants.py).
    """
    problems = check_items(transitions, ("transitions",), _TRANSITION, ("type", "duration"))
    if problems or not transitions or not (elements is None or isinstance(elements, list)):
        return problems
    named = [element.get("id") for element in elements if isinstance(element, dict)] if elements else []
    known = {name for name in named if isinstance(name, str) and name}
    for at, transition in enumerate(transitions):
        ends = {name: transition[name] for name in ("from_id", "to_id") if transition.get(name)}
        if len(ends) == 2 and ends["from_id"] == ends["to_id"]:
            problems.append(_violation(("transitions", at, "to_id"), "TRANSITION_SELF", "joins an element to itself"))
        for name, wanted in ends.items():
            if wanted not in known:
                text_ = f"names no element: {wanted!r}"
                problems.append(_violation(("transitions", at, name), "DANGLING_TRANSITION", text_))
    return problems


def check_source(value: Any, path: Path, is_good_source: Callable[[str], bool]) -> list[Problem]:
    """Find out whether a source that is a URL is one the engine may fetch."""
    if url(value) is not None or is_good_source(value):
        return []
    return [Problem(path, "must be a publicly reachable HTTPS URL", "invalid_source")]


def _check_element(element: Any, path: Path, is_good_source: Callable[[str], bool]) -> list[Problem]:
    if not isinstance(element, dict):
        return [Problem(path, "must be an object")]
    kind = element.get("type")
    if kind == "composition":  # in the spec, but "rejected by the translator" (site renderRequestSchema.ts)
        return [Problem((*path, "type"), "composition elements are not supported yet", "unsupported_feature")]
    if not isinstance(kind, str) or kind not in _KINDS:
        return [Problem((*path, "type"), f"must be one of {', '.join(_KINDS)}")]
    rules, required = _KINDS[kind]
    problems = check_object(element, path, rules, required)
    problems += check_items(element.get("motion"), (*path, "motion"), _MOTION, ("type",))
    problems += check_items(element.get("effects"), (*path, "effects"), _EFFECT, ("type",))
    if "source_url" in rules:
        problems += check_source(element.get("source_url"), (*path, "source_url"), is_good_source)
    return problems or [*_check_played(element, kind, path), *_check_text(element, kind, path)]


def _check_played(element: dict[str, Any], kind: str, path: Path) -> list[Problem]:
    problems = []
    in_point, out_point = element.get("in_point", 0), element.get("out_point")
    if kind in ("video", "audio") and out_point is not None and out_point <= in_point:
        problems.append(Problem((*path, "out_point"), "must be greater than in_point"))
    address = re.split(r"[?#]", str(element.get("source_url", "")), maxsplit=1)[0].lower()
    if kind == "video" and not address.endswith(VIDEO_EXTENSIONS):
        problems.append(Problem((*path, "source_url"), f"must end in one of {', '.join(VIDEO_EXTENSIONS)}"))
    return problems


def _check_text(element: dict[str, Any], kind: str, path: Path) -> list[Problem]:
    if kind != "text":
        return []
    problems = []
    decorations = [name for name in ("background", "stroke", "shadow") if element.get(name)]
    if len(decorations) > 1:
        problems.append(Problem((*path, decorations[1]), "at most one of background, stroke, shadow may be true"))
    animation = element.get("word_animation")
    if animation is not None:
        place = (*path, "word_animation")
        problems += check_object(animation, place, {"style": _WORD_STYLES}, ("words",))
        words = animation.get("words") if isinstance(animation, dict) else None
        problems += check_items(words, (*place, "words"), _WORD, ("text", "start", "end"))
        if words == []:
            problems.append(Problem((*place, "words"), "must not be empty"))
    return problems


def _check_ids(elements: list[dict[str, Any]]) -> list[Problem]:
    """Source: DUPLICATE_ELEMENT_ID, site renderRequestSchema.ts; an empty id is no id (its default is "")."""
    seen: set[str] = set()
    problems = []
    for at, element in enumerate(elements):
        name = element.get("id") or ""
        if name in seen:
            problems.append(_violation(("elements", at, "id"), "DUPLICATE_ELEMENT_ID", f"{name!r} is used twice"))
        seen |= {name} - {""}
    return problems


def _violation(path: Path, code: str, message: str) -> Problem:
    return Problem(path, f"{code}: {message}", violation=code)
