"""Shapes on the wire: what we send is checked strictly, what we read is read leniently."""

from pydantic import BaseModel

from framelane_celery.models.answer import Answer
from framelane_celery.models.elements import AudioElement, Element, ImageElement, TextElement, VideoElement
from framelane_celery.models.imports import Import, ImportRequest
from framelane_celery.models.job import Job, JobErrorInfo, JobOutput, JobPage
from framelane_celery.models.media import (
    GazeRedirectRequest,
    MediaRequest,
    RemoveBackgroundRequest,
    SuperResolutionRequest,
    TranscribeRequest,
)
from framelane_celery.models.parts import ChromaSettings, Effect, Motion, Transition
from framelane_celery.models.preview import Preview, Violation
from framelane_celery.models.projects import Project, ProjectChange
from framelane_celery.models.render import RenderRequest
from framelane_celery.models.request import JobRequest, WireModel, parse_request
from framelane_celery.models.telling import invalid_arguments
from framelane_celery.models.uploads import Asset, Upload
from framelane_celery.models.usage import Usage
from framelane_celery.models.webhooks import DeliveryAttempt, Webhook, WebhookSecret
from framelane_celery.models.words import Word, WordAnimation
from framelane_celery.models.workspace import ApiKey, Capabilities, Workspace

__all__ = [
    "ApiKey",
    "Asset",
    "AudioElement",
    "Capabilities",
    "ChromaSettings",
    "DeliveryAttempt",
    "Effect",
    "Element",
    "GazeRedirectRequest",
    "ImageElement",
    "Import",
    "ImportRequest",
    "Job",
    "JobErrorInfo",
    "JobOutput",
    "JobPage",
    "JobRequest",
    "MediaRequest",
    "Motion",
    "Preview",
    "Project",
    "ProjectChange",
    "RemoveBackgroundRequest",
    "RenderRequest",
    "SuperResolutionRequest",
    "TextElement",
    "TranscribeRequest",
    "Transition",
    "Upload",
    "Usage",
    "VideoElement",
    "Violation",
    "Webhook",
    "WebhookSecret",
    "WireModel",
    "Word",
    "WordAnimation",
    "Workspace",
    "invalid_arguments",
    "parse_request",
]


def build_models() -> None:
    """Build now what was deferred to keep the import short (`defer_build`).

    pydantic builds under one lock of the process. A worker whose threads build models while a pool process is forked
    leaves that process with a lock that nobody will open: its first model would wait for ever.
    """
    waiting: list[type[BaseModel]] = [Answer, WireModel]
    while waiting:
        model = waiting.pop()
        model.model_rebuild()
        waiting += model.__subclasses__()
