"""A task's end that a late PROGRESS has covered is stored again.

Celery's result backends read, then write: a process that is stopped in between (SIGSTOP, a paused machine) writes when
it goes on, perhaps long after another run has ended the task. The room refuses its next transition, so it knows, and
has a *mend* published: a message that a worker handles here. No tail goes out, and nothing is called but ``completed``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery import states
from celery.exceptions import Ignore, Reject, TaskRevokedError

from framelane_celery import wakeups
from framelane_celery.monitoring import PROGRESS, say
from framelane_celery.tasks.gathered import failure_value, is_marked
from framelane_celery.tasks.jobs import error_of, owned

if TYPE_CHECKING:
    from celery.app.task import Context

    from framelane_celery.records import Record
    from framelane_celery.tasks.recorded import RecordedTask

logger = logging.getLogger(__name__)

TRIES_MAX: Final = 10
"""How often a mend is put off, by a third of a lease each time: while a run may be about to end the task."""


def mend(task: RecordedTask, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NoReturn:
    """Store the end of a task that is over and whose result says PROGRESS. Raises Ignore, whatever comes of it."""
    try:
        is_for_later = _mend(task, request, args, kwargs)
    except Exception as error:  # noqa: BLE001 - raised, it would be the task's failure
        say(logger.warning, request, "its end cannot be stored again yet: %s", error)
        is_for_later = True
    tries = wakeups.mends_of(request)
    if is_for_later and tries < TRIES_MAX:
        call = wakeups.call_of_request(task, request)
        wakeups.ask_mend(task.app, request.id, call, tries=tries, countdown=task.settings.lease_s / 3)
    raise Ignore("the result was looked after")


def _mend(task: RecordedTask, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether it has to be tried again."""
    record, _ = task.room.read(request.id)
    if record is not None and record.until == "running":
        return True  # its end may be stored already
    if record is None or not record.is_over or task.backend.get_state(request.id) != PROGRESS:
        return False
    state, result = _end_of(task, request, record, args, kwargs)
    if state is None:
        say(logger.error, request, "a late PROGRESS covers its end, which only its run knew")
        return False
    task.backend.store_result(request.id, result, state, request=request)
    say(logger.warning, request, "a late PROGRESS had covered its end: %s again", state)
    return False


def _end_of(
    task: RecordedTask, request: Context, record: Record, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[str | None, Any]:
    """State and result; no state, where only the run that is gone knew them."""
    if record.ending:
        return states.REVOKED, TaskRevokedError(record.ending)
    if record.outcome == "completed" and record.job_id is not None:
        from framelane_celery.client import shared_client  # requests is imported only where HTTP is spoken

        client = shared_client(task.settings.of(record.account))
        job = owned(client.get_job(record.job_kind or "render", record.job_id), record.account)
        try:
            return states.SUCCESS, task.completed(job, *args, **kwargs)
        except (Ignore, Reject):
            return None, None
        except Exception as error:  # noqa: BLE001 - as it was the first time
            return states.FAILURE, error
    if not (record.outcome or record.failure):
        return None, None
    failure = error_of(record)
    if is_marked(request):
        return states.SUCCESS, failure_value(request, failure)
    return states.FAILURE, failure
