"""A wake-up that reaches a worker which does not know the task: a newer version added it, or an older one had it.

Celery's consumer would reject the message, store FAILURE (`NotRegistered`) as the task's result and send
`task-failed`, without chord, links or errbacks: a lie, for the record waits, and another worker will run it. So for
messages of ours the record is moved to be due again soon, and the message is done with.

The one place that overrides a private part of Celery: ``Consumer.on_unknown_task``, the same in 5.5 and 5.7
(celery/worker/consumer/consumer.py; `create_task_handler` reads it from the consumer with each connection).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from celery import signals
from celery.app.task import Context
from celery.worker.request import Request

from framelane_celery import records
from framelane_celery.errors import RoomError
from framelane_celery.monitoring import Named, say, told
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import move, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import RecordedTask
from framelane_celery.tasks.begin import new_record
from framelane_celery.wakeups import HEADER, step_of

logger = logging.getLogger(__name__)

PUT_BACK_S: Final = 5.0
"""How long a message is kept while the room is away: back at once, it would come again at once."""


def resend_unknown(consumer: Any) -> None:
    """Have a worker's consumer send wake-ups of tasks that it does not know to the others. Before it starts."""
    consumer.on_unknown_task = _Unknown(consumer, consumer.on_unknown_task)


class _Unknown:
    def __init__(self, consumer: Any, celerys_own: Callable[..., None]) -> None:
        self._consumer, self._celerys_own = consumer, celerys_own
        self._told: set[str] = set()

    def __call__(self, body: Any, message: Any, exc: Exception) -> None:
        """In the worker's main thread, as `Consumer.on_unknown_task`."""
        headers = message.headers
        if HEADER not in headers or "id" not in headers:
            self._celerys_own(body, message, exc)
            return
        task_id, name = headers["id"], headers["task"]
        try:
            self._move(task_id, name, message)
        except ForeignRecord as error:
            say(logger.debug, Named(name, task_id), "left alone: %s", error)
        except RoomError as error:
            say(logger.warning, Named(name, task_id), "the room is away, put back: %s", error)
            self._consumer.timer.call_after(PUT_BACK_S, self._consumer.call_soon, (self._put_back, message))
            return
        except Exception:  # noqa: BLE001 - a message that nobody can read; raised, it would end the worker
            say(logger.exception, Named(name, task_id), "neither known nor readable")
            self._celerys_own(body, message, exc)
            return
        message.ack_log_error(logger, self._consumer.connection_errors)
        signals.task_unknown.send(sender=self._consumer, message=message, exc=exc, name=name, id=task_id)

    def _move(self, task_id: str, name: str, message: Any) -> None:
        app, step = self._consumer.app, step_of(Context(message.headers))
        room = room_of(app, settings_of(app))
        moved = move(room, task_id, lambda old, now: records.misdelivered(old, step=step, now=now))
        if moved is None and step == 0 and (now := room.read(task_id))[0] is None:
            moved = _record_of(app, name, message, now[1])
            if room.create(moved) is None:
                told(room.namespace, None, moved, now[1])
        if moved is None:
            say(logger.debug, Named(name, task_id), "not known here, and stale: step %d", step)
        elif name not in self._told:
            self._told.add(name)
            logger.warning(
                "%s: this worker does not know it; sent again, until it reaches one that does (the first: %s)",
                name, task_id,
            )  # fmt: skip

    def _put_back(self, message: Any) -> None:
        try:
            message.reject_log_error(logger, self._consumer.connection_errors, requeue=True)
        except Exception:  # its connection has gone meanwhile, and the broker has it back already
            logger.warning("a message could not be put back", exc_info=True)


def _record_of(app: Any, name: str, message: Any, now: float) -> Record:
    """The record of a task that was published without one: by a worker that does not know it either."""
    task = type("Unknown", (RecordedTask,), {"name": name, "_app": app})()
    record = new_record(task, Request(message, app=app, task=task)._context, now)
    return records.misdelivered(record, step=0, now=now) or replace(record)
