"""GuardedTask: a plain task with a record, for the tail of a render.

Celery's own messages may be lost with a killed worker on Redis, or come back after an hour (broker_facts.md, "What
follows", 2). A task of this kind is called, found again and run again by its record, as our own are; it has no job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from framelane_celery.tasks.jobs import error_of
from framelane_celery.tasks.recorded import RecordedTask
from framelane_celery.tasks.run import WorkerRun


class GuardedTask(RecordedTask):
    """A task that is not lost, whatever dies. Derive from it with ``@shared_task(base=GuardedTask)``.

    Its body may run again if its worker dies in it, so what it does must bear that; once its success is stored it does
    not run again, and its tail is not sent again. The same ``task_id`` again is the same piece of work.

    Errors: DuplicateTask, RoomError in the caller; JobFailed with code ``worker_lost`` in the task.
    """

    abstract = True

    def begin_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return GuardedRun(self, self.request).perform(args, kwargs)

    def run_in_place(self, args: Sequence[Any], kwargs: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        return body()


class GuardedRun(WorkerRun):
    """One run of it."""

    def work(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self.record.outcome is not None:  # every run before this one has died
            return self.end_in(error_of(self.record))
        if self.record.lost_runs and self.has_stored_success():
            self.cut_tail()
            return self.task.AsyncResult(self.record.id).result
        with self.user_code():
            result = self.task.run(*args, **kwargs)
        self.ask_lease()
        return result
