"""The elements of a composition. Source: docs.framelane.io/renders/elements (framelane_api.md §5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from framelane_celery.models.fields import (
    AnyHex,
    Dimension,
    Length,
    NotNegative,
    Number,
    Percent,
    Positive,
    Seconds,
    Share,
    Url,
    VideoUrl,
)
from framelane_celery.models.parts import Effect, Motion
from framelane_celery.models.request import WireModel
from framelane_celery.models.telling import wrong
from framelane_celery.models.words import WordAnimation

_DEFAULT_Z = {"text": 1}  # of a video and an image it is 0


_NO_DURATION = "set 'out_point', a second of the source: what is played has no duration of its own"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


class _Element(WireModel):
    id: str = Field(default="", description="What transitions name it by.")
    time: Annotated[Seconds, Field(description="When it begins, in seconds of the output.")] = 0
    visible: bool = True
    name: str | None = None
    track: Annotated[int, Field(ge=0, le=255)] | None = None

    @classmethod
    def _hint(cls, name: str) -> str:
        others = [kind for kind, model in _KINDS.items() if name in model.model_fields]
        if others and name not in cls.instead_of:
            own = next(kind for kind, model in _KINDS.items() if issubclass(cls, model))
            return f"unknown field of {own} elements: only {_listed(others)} elements have it"
        return super()._hint(name)


class _Played(_Element):
    """What plays from in_point to out_point of a source."""

    source_url: Url
    in_point: NotNegative = Field(default=0, description="Where in the source to begin, in seconds.")
    out_point: Positive | None = Field(default=None, description="Where in the source to end; its end, if left out.")
    speed: Annotated[Number, Field(ge=0.25, le=4)] = 1
    fade_in_duration: Number = Field(default=0, description="Seconds; of the sound only.")
    fade_out_duration: Number = Field(default=0, description="Seconds; of the sound only.")

    instead_of: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("duration", "length"), _NO_DURATION),
        **dict.fromkeys(
            ("start", "begin"), "write 'time' for when in the output, or 'in_point' for where in its source"
        ),
    }

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.out_point is not None and self.out_point <= self.in_point:
            raise wrong((("out_point",), "must be greater than in_point"))
        return self

    def lasting(self, seconds: float) -> Self:
        """Make the same element end after so many seconds of output.

        That is `out_point = in_point + seconds * speed`, for there is no `duration` here (INFER: that `speed` changes
        how long it lasts is said by no page).
        """
        fields = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_validate({**fields, "out_point": self.in_point + seconds * self.speed})

    def timeline_s(self, source_s: float) -> float:
        """Say when a second of the source is seen or heard, in seconds of the output."""
        return self.time + (source_s - self.in_point) / self.speed


class _Visual(_Element):
    x: Dimension = "50%"
    y: Dimension = "50%"
    width: Dimension = "100%"
    height: Dimension = "100%"
    aspect_ratio: float | str | None = None
    x_anchor: Dimension | None = None
    y_anchor: Dimension | None = None
    x_rotation: Dimension | None = None
    y_rotation: Dimension | None = None
    z_rotation: Dimension | None = None
    x_scale: Dimension | None = None
    y_scale: Dimension | None = None
    flip_horizontal: bool = False
    flip_vertical: bool = False
    opacity: Percent = 100
    z_index: int | None = Field(
        default=None, description="The highest is on top; of equals, the earlier in the list. Text has 1, the rest 0."
    )
    blend_mode: (
        Literal[
            "none", "multiply", "screen", "overlay", "darken", "lighten", "color_dodge", "color_burn", "hard_light",
            "soft_light",
        ]
        | None
    ) = None  # fmt: skip
    clip: bool | None = None
    color_overlay: AnyHex | None = None

    border_radius: Dimension | None = None
    border_color: str | None = None
    border_width: Dimension | None = None
    shadow_color: str | None = None
    shadow_blur: Dimension | None = None
    shadow_x: Dimension | None = None
    shadow_y: Dimension | None = None

    effects: list[Effect] = Field(default_factory=list)
    motion: list[Motion] = Field(default_factory=list)

    def above(self, *others: VideoElement | ImageElement | TextElement) -> Self:
        """Make the same element lie on top of these.

        An image has z_index 0 as a video has, and of equals the earlier in the list is on top: without a z_index, an
        image that follows its video is hidden by it.

        Source: docs.framelane.io/renders/examples/image; the order of equals is in the site's llms.txt only.
        """
        below = (_DEFAULT_Z.get(other.type, 0) if other.z_index is None else other.z_index for other in others)
        return self.model_copy(update={"z_index": max(below, default=0) + 1})


class _Picture(_Visual):
    """What an image and a video have in common: crop, colour, LUT. Colours are neutral at 0."""

    crop_top: Share = 0
    crop_bottom: Share = 0
    crop_left: Share = 0
    crop_right: Share = 0
    brightness: Number = 0
    contrast: Number = 0
    saturation: Number = 0
    exposure: Number = 0
    sharpness: Number = 0
    blur: Number = 0
    noise: Number = 0
    vignette: Number = 0
    hue_rotate: Number = 0
    lut_url: Url | None = None
    lut_intensity: Percent = 100


class VideoElement(_Picture, _Played):
    """A video, with its sound. Source: docs.framelane.io/renders/examples/video."""

    type: Literal["video"] = "video"
    source_url: VideoUrl
    volume: Percent = 100


class AudioElement(_Played):
    """A sound. The renderer drops one of volume 0 in silence. Source: docs.framelane.io/renders/examples/audio."""

    type: Literal["audio"] = "audio"
    volume: Annotated[Number, Field(gt=0, le=100)] | None = None


class ImageElement(_Picture):
    """A picture; see `above` for having it over a video. Source: docs.framelane.io/renders/examples/image."""

    type: Literal["image"] = "image"
    id: str = Field(min_length=1, description="What transitions name it by; required on an image.")
    duration: Length
    source_url: Url


class TextElement(_Visual):
    """A text. Source: docs.framelane.io/renders/examples/text."""

    type: Literal["text"] = "text"
    text: Annotated[str, Field(min_length=1)]
    duration: Length
    font_family: str = "Inter"
    font_size: Positive | None = None
    font_weight: Annotated[int, Field(ge=100, le=900)] = 400
    font_style: Literal["normal", "italic", "bold", "bolditalic"] = "normal"
    text_color: str = "#ffffff"
    text_align: Literal["left", "center", "right"] = "center"
    text_decoration: Literal["none", "underline", "strikethrough"] = "none"
    tracking: Number = 0
    leading: Number = 1.2
    stroke_color: str | None = None
    stroke_width: Dimension | None = None
    background_color: str | None = None
    background_opacity: Percent | None = None
    x_padding: Dimension | None = None
    y_padding: Dimension | None = None
    text_wrap: Literal["wrap", "nowrap"] | None = None
    word_animation: WordAnimation | None = None
    animation_preset: str | None = None
    background: bool = Field(default=False, description="Only one of background, stroke and shadow may be true.")
    stroke: bool = Field(default=False, description="Only one of background, stroke and shadow may be true.")
    shadow: bool = Field(default=False, description="Only one of background, stroke and shadow may be true.")

    @model_validator(mode="after")
    def _has_one_decoration(self) -> Self:
        if self.background + self.stroke + self.shadow > 1:
            second = [name for name in ("background", "stroke", "shadow") if getattr(self, name)][1]
            raise wrong(((second,), "only one of background, stroke and shadow may be true"))
        return self


Element = Annotated[VideoElement | AudioElement | TextElement | ImageElement, Field(discriminator="type")]

_KINDS: dict[str, type[_Element]] = {
    "video": VideoElement,
    "audio": AudioElement,
    "text": TextElement,
    "image": ImageElement,
}
