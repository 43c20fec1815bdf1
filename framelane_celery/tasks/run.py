"""One run of a task of ours in a worker: it begins, works, and ends, or another run takes over.

What the work is, says `job_run` (submit or finish a job) or `guarded` (a plain body).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import states
from celery.exceptions import Ignore, Reject

from framelane_celery import records, wakeups
from framelane_celery.errors import FramelaneError, RoomError
from framelane_celery.monitoring import say
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import move, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks.begin import begin, drop
from framelane_celery.tasks.gathered import failure_value, is_marked, passed_on
from framelane_celery.tasks.tail import show_no_result

if TYPE_CHECKING:
    from celery.app.task import Context

    from framelane_celery.tasks.recorded import RecordedTask

logger = logging.getLogger(__name__)


def run_of(request: Context) -> WorkerRun | None:
    """The run that a request belongs to, if it is one of ours in a worker."""
    run = request.get("framelane_run")
    return run if isinstance(run, WorkerRun) else None


class WorkerRun:
    """One run. ``record`` is the record as this run last saw it stored."""

    def __init__(self, task: RecordedTask, request: Context) -> None:
        self.task, self.request = task, request
        self.settings = settings_of(task.app)
        self.room = room_of(task.app, self.settings)
        self.run_id = str(uuid4())
        self.record: Record
        self._clock_ahead_s = 0.0

    @property
    def _lease_s(self) -> float:
        return self.settings.lease_s

    def perform(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Begin; then do the work."""
        try:
            self.record, self._clock_ahead_s = begin(self)
        except RoomError as error:  # put back, never raised: a FAILURE would be told, and the job still be paid later
            say(logger.warning, self.request, "the room is away, put back: %s", error)
            raise Reject(str(error), requeue=True) from error
        self.request.framelane_run = self
        options = wakeups.Call.from_text(self.record.call).options
        self.request.callbacks, self.request.errbacks = options.get("link"), options.get("link_error")
        try:
            passed = passed_on(self.request)
            return self.work(args, kwargs) if passed is None else self._pass_on(passed)
        except ForeignRecord as error:  # a newer version has written meanwhile, and goes on with it
            say(logger.warning, self.request, "left alone: %s", error)
            raise Ignore(str(error)) from error
        except RoomError as error:  # the lease will end, and the task be woken again
            say(logger.warning, self.request, "the room is away, run again later: %s", error)
            raise Ignore(str(error)) from error

    def work(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What this run has to do, now that the record is its own."""
        raise NotImplementedError

    # --- the end -------------------------------------------------------------------------------------------------

    def cut_tail(self) -> None:
        """A run before this one died after it stored its result, so its tail is out. Only the chord may not know."""
        self.request.callbacks = self.request.chain = None

    def end_in(self, error: FramelaneError, cause: FramelaneError | None = None) -> Any:
        """The task fails: it raises its error or, where that is gathered, returns it."""
        if not is_marked(self.request):
            raise error from cause
        return self._returned(failure_value(self.request, error))

    def _pass_on(self, failure: dict[str, Any]) -> Any:
        """The step before has failed, and somebody gathers that: there is nothing to do."""
        if self.record.lost_runs and self.has_stored_success():
            self.cut_tail()
        self.ask_lease()
        return self._returned(failure)

    def _returned(self, failure: dict[str, Any]) -> dict[str, Any]:
        show_no_result(self.request, failure)
        self.request.callbacks = None  # links are for a success
        return failure

    def ask_lease(self) -> None:
        """Before the tail goes out: is this run still the record's? If not, it ends here.

        While most of its lease is left nobody can have taken it over, so it need not be asked.
        """
        if self._now() > (self.record.due_at or 0.0) - self._lease_s / 2:
            self._move(lambda old, now: records.hold_lease(old, run_id=self.run_id, now=now, lease_s=self._lease_s))

    def has_stored_success(self) -> bool:
        try:
            return bool(self.task.AsyncResult(self.record.id).state == states.SUCCESS)
        except Exception as error:  # raised, it would be the task's own failure, of a job that is done and paid for
            say(logger.warning, self.record, "the result backend is away, run again later")
            raise Ignore("the result backend is away") from error

    def finish(self) -> None:
        """The run is over, its tail, result and chord part are out."""
        try:
            move(
                self.room,
                self.record.id,
                lambda old, now: records.finish(old, run_id=self.run_id, now=now),
                known=(self.record, self._now()),
            )
        except RoomError as error:
            say(logger.error, self.record, "the end was not written, run again: %s", error)

    # --- retry and replace ---------------------------------------------------------------------------------------

    def start_replacing(self) -> None:
        self._move(lambda old, now: records.start_replacing(old, run_id=self.run_id, now=now, lease_s=self._lease_s))

    def end_replacing(self) -> None:
        move(self.room, self.record.id, lambda old, now: records.end_replacing(old))

    def without_retry_queue(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of ``retry()``, which Celery takes from the message: where that came by the retry queue, the
        task goes back to its own."""
        came_by = self.record.retry_queue
        if came_by is None or came_by not in (options.get("queue"), options.get("routing_key")):
            return options
        own = wakeups.Call.from_text(self.record.call).options
        destination = ("queue", "exchange", "routing_key")
        kept = {name: value for name, value in options.items() if name not in destination}
        return {**kept, **{name: own[name] for name in destination if name in own}}

    # --- small ones ----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """The room's clock, as this run saw it last."""
        return time.monotonic() + self._clock_ahead_s

    def _move(self, transition: Callable[[Record, float], Record | None]) -> None:
        """A transition of this run; if the run is not the record's any more, it ends here and does nothing else."""
        moved = move(self.room, self.record.id, transition, known=(self.record, self._now()))
        if moved is None:
            drop(self.task, self.request, "another run has taken over")
        self.record = moved

    @contextmanager
    def user_code(self) -> Iterator[None]:
        """``Ignore`` and ``Reject`` from the user's code end the task: there is nothing that would run it again."""
        try:
            yield
        except (Ignore, Reject):
            self.finish()
            raise
