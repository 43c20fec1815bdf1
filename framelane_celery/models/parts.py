"""What elements are decorated with and joined by: motions, effects, transitions.

The catalogues of the three grow, and pass through as strings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from framelane_celery.models.fields import Length, Number, Percent, Seconds, Word
from framelane_celery.models.request import WireModel
from framelane_celery.models.telling import wrong


class Motion(WireModel):
    """An animation of an element. `time` is in seconds of the whole timeline, not of the element."""

    type: Word
    time: Seconds | None = None
    duration: Length | None = None
    easing: Literal["linear", "ease_in", "ease_out", "ease_in_out"] = "ease_in_out"
    reversed: bool = False
    scope: Literal["element", "character"] | None = None
    delay: Number | None = None
    loop: JsonValue = None


class ChromaSettings(WireModel):
    """Which colours a chroma key takes out."""

    hue_min: Number | None = None
    hue_max: Number | None = None
    sat_min: Number | None = None
    sat_max: Number | None = None
    lum_min: Number | None = None
    lum_max: Number | None = None


class Effect(WireModel):
    """A filter over an element."""

    type: Word
    intensity: Percent | None = None
    chroma_settings: ChromaSettings | None = None


class Transition(WireModel):
    """How one element gives way to another; the two are named by their `id`."""

    type: Word
    duration: Length
    from_id: str | None = Field(default=None, description="The id of an element of this composition.")
    to_id: str | None = Field(default=None, description="The id of another element of this composition.")
    z_index: int | None = None

    @model_validator(mode="after")
    def _joins_two(self) -> Transition:
        if self.from_id and self.from_id == self.to_id:
            raise wrong((("to_id",), "must be another element than from_id"))
        return self
