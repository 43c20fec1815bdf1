"""What to say of a field that there is none of: the server would drop it in silence."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# What people write from habit, where the nearest spelling would find nothing or mislead. The first that the model has.
_HABITS: dict[str, tuple[str, ...]] = {
    "align": ("text_align",),
    "animation": ("motion", "word_animation"),
    "animations": ("motion",),
    "at": ("time",),
    "background": ("background_color",),
    "begin": ("time", "start"),
    "callback": ("webhook_url",),
    "callback_url": ("webhook_url",),
    "caption": ("text",),
    "clips": ("elements",),
    "color": ("text_color", "background_color"),
    "colour": ("text_color", "background_color"),
    "content": ("text",),
    "end": ("out_point", "duration"),
    "filter": ("effects",),
    "filters": ("effects",),
    "font": ("font_family",),
    "format": ("output_format",),
    "fps": ("frame_rate",),
    "from": ("from_id",),
    "layers": ("elements",),
    "length": ("duration",),
    "rotate": ("z_rotation",),
    "rotation": ("z_rotation",),
    "size": ("font_size",),
    "src": ("source_url",),
    "start": ("time",),
    "strength": ("intensity",),
    "to": ("to_id",),
    "transparent": ("alpha",),
    "trim_end": ("out_point",),
    "trim_start": ("in_point",),
    "url": ("source_url",),
    "word": ("text",),
    "z": ("z_index",),
}


def nearest(name: str, known: Collection[str]) -> str | None:
    """Find the field that was meant, if one is near enough."""
    wanted = name.lower()
    habit = next((field for field in _HABITS.get(wanted, ()) if field in known), None)
    return habit or next(iter(difflib.get_close_matches(wanted, known, n=1)), None)


def hint(name: str, shown: str, known: Collection[str]) -> str:
    """Say what to write in its place."""
    if (stem := name.lower().removesuffix("_ms")) != name.lower() and stem in known:
        return f"unknown field, write '{stem}', which is in seconds"
    if (near := nearest(name, known)) is not None:
        return f"unknown field, did you mean '{near}'?"
    return f"unknown field (if the API has gained it, write extra={{'{shown}': …}})"
