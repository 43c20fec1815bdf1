"""Shapes on the wire: what we send is checked strictly, what we read is read leniently."""

from framelane_celery.models.job import Job, JobErrorInfo, JobOutput, JobPage, Usage
from framelane_celery.models.media import (
    GazeRedirectRequest,
    MediaRequest,
    RemoveBackgroundRequest,
    SuperResolutionRequest,
    TranscribeRequest,
)
from framelane_celery.models.render import (
    AudioElement,
    ChromaSettings,
    Effect,
    Element,
    ImageElement,
    Motion,
    RenderRequest,
    TextElement,
    Transition,
    VideoElement,
    Word,
    WordAnimation,
)
from framelane_celery.models.request import JobRequest, WireModel, invalid_arguments, parse_request

__all__ = [
    "AudioElement",
    "ChromaSettings",
    "Effect",
    "Element",
    "GazeRedirectRequest",
    "ImageElement",
    "Job",
    "JobErrorInfo",
    "JobOutput",
    "JobPage",
    "JobRequest",
    "MediaRequest",
    "Motion",
    "RemoveBackgroundRequest",
    "RenderRequest",
    "SuperResolutionRequest",
    "TextElement",
    "TranscribeRequest",
    "Transition",
    "Usage",
    "VideoElement",
    "WireModel",
    "Word",
    "WordAnimation",
    "invalid_arguments",
    "parse_request",
]
