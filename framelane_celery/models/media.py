"""The four media tasks, as `POST /v1/tasks/*` takes them (framelane_api.md §6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from framelane_celery.models.fields import Number, Url
from framelane_celery.models.request import MarkedRequest


class MediaRequest(MarkedRequest):
    """What the four have in common."""

    kind: ClassVar[Literal["render", "task", "import"]] = "task"

    source_url: Url


class TranscribeRequest(MediaRequest):
    """Speech to text. The output is a JSON file: the transcript.

    Source: docs.framelane.io/api-reference/tasks/transcribe-task.
    """

    path: ClassVar[str] = "/v1/tasks/transcribe"
    task_type: ClassVar[str | None] = "transcribe"

    language: (
        Annotated[str, Field(min_length=1, description="A BCP-47 tag such as 'en'; detected, if left out.")] | None
    ) = None
    speech_model: Literal["universal-2", "universal-3-pro", "nano"] = "universal-2"
    word_timings: bool = True
    speaker_labels: bool = False
    speakers_expected: Annotated[int, Field(ge=1, le=10)] | None = None
    sentiment_analysis: bool = False
    entity_detection: bool = False
    auto_highlights: bool = False
    content_safety: bool = False
    iab_categories: bool = False
    word_boost: Annotated[list[str], Field(max_length=200)] = Field(default_factory=list)


class RemoveBackgroundRequest(MediaRequest):
    """Make the background of an image or a video transparent. Its own parameters, if any, are unknown: see `extra`."""

    path: ClassVar[str] = "/v1/tasks/remove-background"
    task_type: ClassVar[str | None] = "remove_background"


class GazeRedirectRequest(MediaRequest):
    """Turn the eyes to the camera: intensity 0 changes nothing, 1 centres them.

    Source: docs.framelane.io/api-reference/tasks/gaze-redirect-task, the complete body.
    """

    path: ClassVar[str] = "/v1/tasks/gaze-redirect"
    task_type: ClassVar[str | None] = "gaze_redirect"

    intensity: Annotated[Number, Field(ge=0, le=1)] = 1


class SuperResolutionRequest(MediaRequest):
    """Upscale 1 to 4 times. No page we have names the factor's field, so it goes into `extra`."""

    path: ClassVar[str] = "/v1/tasks/super-resolution"
    task_type: ClassVar[str | None] = "super_resolution"

    instead_of: ClassVar[Mapping[str, str]] = {
        name: f"write extra={{'{name}': …}}: no page tells what the factor is called"
        for name in ("scale", "factor", "scale_factor")
    }
