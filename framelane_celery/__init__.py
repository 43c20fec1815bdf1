"""Framelane jobs as Celery tasks: submit, wait without holding anything, and go on when the job ends.

    import framelane_celery as framelane

    chain(framelane.render.s(composition), framelane.transcribe.s(), publish.s(product_id)).delay()

An unofficial package, not affiliated with Framelane.
"""

from typing import TYPE_CHECKING, Any

from framelane_celery import dead_letters as _dead_letters  # noqa: F401 - its task has to be known to workers
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
    ImportRequest,
    Job,
    RemoveBackgroundRequest,
    RenderRequest,
    SuperResolutionRequest,
    TranscribeRequest,
)
from framelane_celery.settings import FramelaneSettings
from framelane_celery.tasks import (
    FramelaneTask,
    Gathered,
    GuardedTask,
    TaskFailure,
    download,
    gather,
    gaze_redirect,
    import_media,
    remove_background,
    render,
    super_resolution,
    transcribe,
)

if TYPE_CHECKING:
    from framelane_celery.client import FramelaneClient

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "DuplicateTask",
    "FramelaneClient",
    "FramelaneError",
    "FramelaneSettings",
    "FramelaneTask",
    "Gathered",
    "GazeRedirectRequest",
    "GuardedTask",
    "ImportRequest",
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
    "TaskFailure",
    "TranscribeRequest",
    "TransportError",
    "download",
    "gather",
    "gaze_redirect",
    "import_media",
    "remove_background",
    "render",
    "super_resolution",
    "transcribe",
]


def __getattr__(name: str) -> Any:
    """Import the HTTP client where it is asked for: a caller such as a Django view needs none."""
    if name == "FramelaneClient":
        from framelane_celery.client import FramelaneClient

        return FramelaneClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
