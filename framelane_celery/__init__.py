"""Framelane jobs as Celery tasks: submit, wait without holding anything, and go on when the job ends.

    import framelane_celery as framelane

    chain(framelane.render.s(composition), framelane.transcribe.s(), publish.s(product_id)).delay()

An unofficial package, not affiliated with Framelane.
"""

from framelane_celery.client import FramelaneClient
from framelane_celery.errors import (
    ApiError,
    DuplicateTask,
    FramelaneError,
    InvalidArguments,
    JobCancelled,
    JobError,
    JobFailed,
    JobTimedOut,
    RoomError,
    SettingsError,
    TransportError,
)
from framelane_celery.models import (
    GazeRedirectRequest,
    Job,
    RemoveBackgroundRequest,
    RenderRequest,
    SuperResolutionRequest,
    TranscribeRequest,
)
from framelane_celery.settings import FramelaneSettings
from framelane_celery.tasks import (
    FramelaneTask,
    gaze_redirect,
    remove_background,
    render,
    super_resolution,
    transcribe,
)

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "DuplicateTask",
    "FramelaneClient",
    "FramelaneError",
    "FramelaneSettings",
    "FramelaneTask",
    "GazeRedirectRequest",
    "InvalidArguments",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobTimedOut",
    "RemoveBackgroundRequest",
    "RenderRequest",
    "RoomError",
    "SettingsError",
    "SuperResolutionRequest",
    "TranscribeRequest",
    "TransportError",
    "gaze_redirect",
    "remove_background",
    "render",
    "super_resolution",
    "transcribe",
]
