"""The Celery tasks: the base class for a user's own, and the built-in ones."""

from framelane_celery.tasks.builtin import (
    gaze_redirect,
    import_media,
    remove_background,
    render,
    super_resolution,
    transcribe,
)
from framelane_celery.tasks.downloading import download
from framelane_celery.tasks.gathered import Gathered, TaskFailure
from framelane_celery.tasks.gathering import gather
from framelane_celery.tasks.guarded import GuardedTask
from framelane_celery.tasks.recorded import RecordedTask
from framelane_celery.tasks.task import FramelaneTask

__all__ = [
    "FramelaneTask",
    "Gathered",
    "GuardedTask",
    "RecordedTask",
    "TaskFailure",
    "download",
    "gather",
    "gaze_redirect",
    "import_media",
    "remove_background",
    "render",
    "super_resolution",
    "transcribe",
]
