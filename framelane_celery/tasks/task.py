"""FramelaneTask: the base of every task whose work is one Framelane job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from framelane_celery.errors import JobError
from framelane_celery.records import JobKind
from framelane_celery.tasks.job_run import JobRun
from framelane_celery.tasks.recorded import RecordedTask

if TYPE_CHECKING:
    from framelane_celery.models import Job


class FramelaneTask(RecordedTask):
    """A Celery task whose body returns what to submit, and whose result is the finished job.

    Derive from it with ``@shared_task(base=FramelaneTask)``; the body returns a request model of
    ``framelane_celery.models``. Override ``completed`` to make another result of the finished job.

    Errors: InvalidArguments, DuplicateTask, RoomError in the caller; ApiError and JobError in the task.
    """

    abstract = True
    throws = (JobError,)

    job_kind: ClassVar[JobKind | None] = "render"
    deadline_s: ClassVar[float | None] = None
    """Seconds from the job's acceptance to giving up; None: the setting of that name."""

    def completed(self, job: Job, *args: Any, **kwargs: Any) -> Any:
        """Make the task's result of the finished job: by default the job itself, as a JSON object.

        Gets the task's own arguments too. May run again if its worker dies, so what it does must bear that.
        """
        return job.to_json()

    def begin_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return JobRun(self, self.request).perform(args, kwargs)

    def run_in_place(self, args: Sequence[Any], kwargs: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        """Submit, and look to the end in place."""
        from framelane_celery.tasks.in_place import run_in_place  # requests is imported only where HTTP is spoken

        return run_in_place(self, body, args, kwargs)
