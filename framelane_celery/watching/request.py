"""Celery's request in the worker's main process, for our tasks: it sees runs end that cannot say so themselves."""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from framelane_celery import records
from framelane_celery.errors import FramelaneError
from framelane_celery.monitoring import say
from framelane_celery.records import Record
from framelane_celery.room import Transition, move, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks.begin import TriesAgain, Waits
from framelane_celery.tasks.routes import lost
from framelane_celery.wakeups import step_of

logger = logging.getLogger(__name__)

untold: dict[str, Transition] = {}
"""Ends, by task id, of which the room could not be told: this worker's clock (watcher.py) tells it once it is back."""


class FramelaneRequest(Request):
    """Celery looks it up by ``Task.Request``."""

    _has_told_timeout = False

    def info(self, safe: bool = False) -> dict[str, Any]:
        """For ``inspect active`` and Flower: arguments as the events show them, never the request itself."""
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A hard time limit ends the task: Celery stores FAILURE and kills the child, which cannot end the record.

        The prefork pool reports it twice, to `on_failure` first: errbacks and the chord shall hear of it once.
        """
        if not soft and self._has_told_timeout:
            self._context.errbacks = self._context.chord = None
        super().on_timeout(soft, timeout)
        if not soft:
            step = step_of(self._context)

            def finish(old: Record, now: float) -> Record | None:
                return records.finish(old, run_id=None, node=self.hostname, step=step, now=now)

            if not self._move(finish):  # FAILURE is told: the task must not run again, and pay
                untold[self.id] = finish

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """A child that died gives its lease back at once: the task need not wait for the lease's end.

        If the room is away, the lease's end does the same, later. Of a task that waits on, monitors are told: without
        that it would be STARTED there until its job has news.
        """
        super().on_failure(exc_info, send_failed_event, return_ok)
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        self._has_told_timeout = isinstance(error, TimeLimitExceeded)
        if isinstance(error, TriesAgain):
            self.send_event("task-retried", exception=str(error), traceback=None)
        elif isinstance(error, Waits):
            self.send_event("task-progress", description=str(error))
        if isinstance(error, (WorkerLostError, Terminated, SystemExit)):
            settings = settings_of(self.app)
            self._move(lambda old, now: lost(self.app, settings, old, now, node=self.hostname))

    def _move(self, transition: Transition) -> bool:
        try:
            move(room_of(self.app, settings_of(self.app)), self.id, transition)
        except FramelaneError as error:
            say(logger.warning, self._context, "the record was not told: %s", error)
            return False
        return True
