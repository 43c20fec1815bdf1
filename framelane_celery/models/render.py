"""A composition, as `POST /v1/renders` takes it (framelane_api.md §5).

Checked here is only what the server surely refuses. Duplicate element ids pass: the docs call them an error and use
them in a recipe.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from framelane_celery.models.elements import Element
from framelane_celery.models.estimate import output_seconds
from framelane_celery.models.fields import Filename, Hex, Positive, Url
from framelane_celery.models.parts import Transition
from framelane_celery.models.request import MarkedRequest
from framelane_celery.models.telling import Loc, wrong


class RenderRequest(MarkedRequest):
    """A composition to render.

    Units:  duration in seconds, width and height in pixels.
    Source: docs.framelane.io/api-reference/renders/submit-a-render-job.
    """

    kind: ClassVar[Literal["render", "task", "import"]] = "render"
    path: ClassVar[str] = "/v1/renders"

    width: Annotated[int, Field(ge=16, le=8192, description="Pixels; with height, or neither.")] | None = None
    height: Annotated[int, Field(ge=16, le=8192, description="Pixels; with width, or neither.")] | None = None
    duration: Positive | None = Field(default=None, description="Seconds; where the elements end, if left out.")
    frame_rate: Annotated[int, Field(ge=1, le=240)] = 30
    output_format: Literal["mp4", "webm", "mov", "gif", "png", "jpg"] = "mp4"
    output_filename: Filename | None = None
    background_color: Hex = "#000000ff"
    background_image_url: Url | None = None
    alpha: bool = Field(default=False, description="A transparent background: needs output_format webm or mov.")
    elements: list[Element] = Field(default_factory=list)
    transitions: list[Transition] = Field(default_factory=list)
    ingest_external: bool | None = Field(
        default=None, description="Have sources that are not on Framelane's storage copied there first."
    )

    @model_validator(mode="after")
    def _has_both_sides(self) -> RenderRequest:
        if (self.width is None) != (self.height is None) and not {"width", "height"} & self.extra.keys():
            missing = "height" if self.height is None else "width"
            raise wrong(((missing,), "is missing: width and height go together, give both or neither"))
        return self

    @model_validator(mode="after")
    def _alpha_fits_the_format(self) -> RenderRequest:
        if self.alpha and self.output_format not in ("webm", "mov") and "output_format" not in self.extra:
            raise wrong((("alpha",), "needs output_format 'webm' or 'mov'"))
        return self

    @model_validator(mode="after")
    def _transitions_join_elements(self) -> RenderRequest:
        if not self.transitions or "elements" in self.extra:
            return self
        ids = {element.extra.get("id", element.id) for element in self.elements}
        problems: list[tuple[Loc, str]] = [
            (("transitions", at, end), "names no element's id")
            for at, transition in enumerate(self.transitions)
            for end in ("from_id", "to_id")
            if (named := getattr(transition, end)) and named not in ids
        ]
        if problems:
            raise wrong(*problems)
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
