"""A composition, as `POST /v1/renders` takes it (framelane_api.md §5).

Checked here is only what the server surely refuses. The catalogues of effects, motions and transitions grow, and pass
through as strings. Duplicate element ids pass too: the docs call them an error and use them in a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from framelane_celery.models.estimate import output_seconds
from framelane_celery.models.request import Dimension, MarkedRequest, Number, Url, WireModel, wrong


def _hex(colour: str) -> str:
    if not re.fullmatch(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})", colour):
        raise ValueError("must look like '#rrggbb' or '#rrggbbaa'")
    return colour


Hex = Annotated[str, AfterValidator(_hex)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Percent = Annotated[Number, Field(ge=0, le=100)]
Share = Annotated[Number, Field(ge=0, le=1)]

_VIDEO_EXTENSIONS = (".mp4", ".mov", ".webm")


class Motion(WireModel):
    """An animation of an element. `time` is in seconds of the whole timeline, not of the element."""

    type: str
    time: NotNegative | None = None
    duration: Positive | None = None
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

    type: str
    intensity: Percent | None = None
    chroma_settings: ChromaSettings | None = None


class Word(WireModel):
    """A word of an animated caption; `start` and `end` are seconds of the whole timeline."""

    text: str
    start: Number
    end: Number


class WordAnimation(WireModel):
    """How the words of a text element come in."""

    style: Literal["glow", "box", "scale_pop", "slide_up", "fly_in", "color"]
    words: Annotated[list[Word], Field(min_length=1)]


class Transition(WireModel):
    """How one element gives way to another."""

    type: str
    duration: Positive
    from_id: str | None = None
    to_id: str | None = None
    z_index: int | None = None

    @model_validator(mode="after")
    def _joins_two(self) -> Transition:
        if self.from_id is not None and self.from_id == self.to_id:
            raise wrong("from_id and to_id must be two elements", "to_id")
        return self


class _Element(WireModel):
    id: str = ""
    time: NotNegative = 0
    visible: bool = True
    name: str | None = None
    track: Annotated[int, Field(ge=0, le=255)] | None = None


class _Played(_Element):
    """What plays from in_point to out_point of a source."""

    source_url: Url
    in_point: NotNegative = 0
    out_point: Positive | None = None
    speed: Annotated[Number, Field(ge=0.25, le=4)] = 1
    fade_in_duration: Number = 0
    fade_out_duration: Number = 0

    instead_of: ClassVar[Mapping[str, str]] = {"duration": "set 'out_point': what is played has no duration of its own"}

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> _Played:
        if self.out_point is not None and self.out_point <= self.in_point:
            raise wrong("out_point must be greater than in_point", "out_point")
        return self


class _Visual(_Element):
    x: Dimension = "50%"
    y: Dimension = "50%"
    width: Dimension = "100%"
    height: Dimension = "100%"
    aspect_ratio: Dimension | None = None
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
    z_index: int | None = None
    blend_mode: (
        Literal[
            "none", "multiply", "screen", "overlay", "darken", "lighten", "color_dodge", "color_burn", "hard_light",
            "soft_light",
        ]
        | None
    ) = None  # fmt: skip
    clip: bool | None = None
    color_overlay: str | None = None

    border_radius: Dimension | None = None
    border_color: str | None = None
    border_width: Dimension | None = None
    shadow_color: str | None = None
    shadow_blur: Dimension | None = None
    shadow_x: Dimension | None = None
    shadow_y: Dimension | None = None

    effects: list[Effect] = Field(default_factory=list)
    motion: list[Motion] = Field(default_factory=list)


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
    volume: Percent = 100

    @model_validator(mode="after")
    def _source_is_a_video(self) -> VideoElement:
        path = re.split(r"[?#]", self.source_url, maxsplit=1)[0]
        if not path.lower().endswith(_VIDEO_EXTENSIONS):
            raise wrong("source_url must end in .mp4, .mov or .webm, its query apart", "source_url")
        return self


class AudioElement(_Played):
    """A sound. The renderer drops one of volume 0 in silence. Source: docs.framelane.io/renders/examples/audio."""

    type: Literal["audio"] = "audio"
    volume: Annotated[Number, Field(gt=0, le=100)] | None = None


class ImageElement(_Picture):
    """A picture; set z_index to 1 or more to have it above a video.

    Source: docs.framelane.io/renders/examples/image.
    """

    type: Literal["image"] = "image"
    id: Annotated[str, Field(min_length=1)]
    duration: Positive
    source_url: Url


class TextElement(_Visual):
    """A text. Source: docs.framelane.io/renders/examples/text."""

    type: Literal["text"] = "text"
    text: Annotated[str, Field(min_length=1)]
    duration: Positive
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
    background: bool = False
    stroke: bool = False
    shadow: bool = False

    @model_validator(mode="after")
    def _has_one_decoration(self) -> TextElement:
        if self.background + self.stroke + self.shadow > 1:
            raise wrong("only one of background, stroke and shadow may be true", "background")
        return self


Element = Annotated[VideoElement | AudioElement | TextElement | ImageElement, Field(discriminator="type")]


class RenderRequest(MarkedRequest):
    """A composition to render.

    Units:  duration in seconds, width and height in pixels.
    Source: docs.framelane.io/api-reference/renders/submit-a-render-job.
    """

    kind: ClassVar[Literal["render", "task", "import"]] = "render"
    path: ClassVar[str] = "/v1/renders"

    width: Annotated[int, Field(ge=16, le=8192)] | None = None
    height: Annotated[int, Field(ge=16, le=8192)] | None = None
    duration: Positive | None = None
    frame_rate: Annotated[int, Field(ge=1, le=240)] = 30
    output_format: Literal["mp4", "webm", "mov", "gif", "png", "jpg"] = "mp4"
    output_filename: str | None = None
    background_color: Hex = "#000000ff"
    background_image_url: Url | None = None
    alpha: bool = False
    elements: list[Element] = Field(default_factory=list)
    transitions: list[Transition] = Field(default_factory=list)
    ingest_external: bool | None = None

    @model_validator(mode="after")
    def _has_both_sides(self) -> RenderRequest:
        if (self.width is None) != (self.height is None) and not {"width", "height"} & self.extra.keys():
            raise wrong(
                "width and height go together: give both or neither", "height" if self.height is None else "width"
            )
        return self

    @model_validator(mode="after")
    def _alpha_fits_the_format(self) -> RenderRequest:
        if self.alpha and self.output_format not in ("webm", "mov") and "output_format" not in self.extra:
            raise wrong("alpha needs output_format 'webm' or 'mov'", "output_format")
        return self

    @model_validator(mode="after")
    def _transitions_join_elements(self) -> RenderRequest:
        ids = {element.extra.get("id", element.id) for element in self.elements}
        for at, transition in enumerate(self.transitions):
            for end in ("from_id", "to_id"):
                if (named := getattr(transition, end)) and named not in ids and "elements" not in self.extra:
                    field = f"transitions[{at}].{end}"
                    raise wrong(f"{field} names no element's id", field)
        return self

    def estimated_output_s(self) -> float | None:
        """Estimate how many seconds of output this makes; None where the composition does not tell.

        Its own `duration`, if it has one; else the latest end of its elements, which is

        * `time + duration` for text and images,
        * `time + (out_point - in_point) / speed` for video and audio with an `out_point`,
        * unknown for video and audio without one: they have no `duration` and play to the end of their source, whose
          length only the server knows. Beside elements that do tell, the estimate may then be too low; where no
          element tells, and where there are none, it is None.

        It reads what goes on the wire, `extra` included. Nothing else tells: motions, caption words and transitions
        lie within their elements' time. A picture (`png`, `jpg`) has no seconds: 0.0.

        An estimate it stays: an `out_point` may lie beyond the end of its source, and these are INFER: that audio
        and invisible elements make the output longer (so that the estimate is rather too high), that `speed` makes
        it shorter, that a picture counts as no minutes, and that a GIF counts as a video.

        Source: framelane_api.md §5; one rendered minute is one minute of output, §12.
        """
        return output_seconds(self.wire({}))
