"""What is done about orphans: adopt, cancel, route."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from framelane_celery import wakeups
from framelane_celery.counting import count
from framelane_celery.errors import FramelaneError, InvalidArguments, RoomError
from framelane_celery.monitoring import told
from framelane_celery.orphans.finding import (
    WHY,
    NoSuchOrphan,
    Orphan,
    Orphans,
    can_finish,
    client_of,
    is_gone,
    is_old_wait,
    made_at_of,
    read,
)
from framelane_celery.queues import head_start_s
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import move, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import FramelaneTask
from framelane_celery.tasks.recorded import own_options
from framelane_celery.tasks.routes import end_of_job

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)


def adopt(
    app: Celery, job_id: str, *, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
) -> Record:
    """Have a record wait for the job, under its old task id; the task ends as if nothing had been lost but its canvas.

    The watcher looks at once, so a job that has ended meanwhile will do too. A result at PROGRESS stays.
    ``args``, ``kwargs``: the task's arguments, where they are known. Without them a job that has failed is tried no
    more, and the same task id with arguments is refused as another piece of work.

    Raises: NoSuchOrphan, also if the task has a record; InvalidArguments, if ``completed`` needs arguments that are not
    given, or others; ApiError, TransportError, RoomError.
    """
    return _adopt(app, read(app, job_id), args, kwargs)


def _adopt(
    app: Celery, orphan: Orphan, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
) -> Record:
    if not orphan.is_adoptable:
        raise NoSuchOrphan(f"{orphan.id} cannot be adopted, only cancelled: {WHY[orphan.why]}")
    task, room, is_given = app.tasks[orphan.task], room_of(app, settings_of(app)), (args, kwargs) != (None, None)
    args, kwargs = list(args or ()), dict(kwargs or {})
    if is_given:
        _check(task, args, kwargs)
    elif orphan.needs_arguments:
        raise InvalidArguments(f"{orphan.id}: {orphan.task} makes its result of its arguments too: give them", None)
    record = _waiting_for(orphan, task, args, kwargs, now=room.holds()[1], is_given=is_given)
    there = room.create(record)
    if there is None:
        told(room.namespace, None, record, record.created_at)
    if there is not None:
        raise NoSuchOrphan(f"{orphan.id} is no orphan any more: its task {there.id} is {there.until}")
    return record


def _check(task: FramelaneTask, args: list[Any], kwargs: dict[str, Any]) -> None:
    try:
        task.check_call(args, kwargs)
    except TypeError as error:  # their number or names
        raise InvalidArguments(f"{task.name}: {error}", None) from error
    if not can_finish(task, args, kwargs):
        raise InvalidArguments(f"{task.name}: its completed() does not take these arguments", None)


def _waiting_for(
    orphan: Orphan, task: FramelaneTask, args: list[Any], kwargs: dict[str, Any], *, now: float, is_given: bool
) -> Record:
    """The record that the job would have, were it accepted as long ago as it was made, and due now."""
    call = wakeups.call_of(task, args, kwargs, {**own_options(task), **wakeups.shown(args, kwargs)})
    made_at = made_at_of(orphan.job)
    accepted_at = made_at if made_at is not None and 0 < made_at <= now else now
    is_whole = is_given or not inspect.signature(task.run).parameters
    return Record(
        id=orphan.task_id,
        task=task.name,
        call=call.to_text(),
        digest=wakeups.digest_of(call) if is_whole else "",
        account=orphan.account,
        until="job",
        due_at=now,
        begun=True,
        created_at=accepted_at,
        head_start_s=head_start_s(task.app, call.options),
        job_id=orphan.id,
        job_kind=orphan.kind,
        job=orphan.job.to_json(),
        accepted_at=accepted_at,
        deadline_at=now + (task.deadline_s or task.settings.deadline_s),
    )


def cancel(app: Celery, job_id: str) -> Orphan:
    """Cancel a job that no record awaits, so that it costs no more. What it may have made is lost.

    Raises: NoSuchOrphan, also if it has ended; Conflict, if the API says that it is past that; ApiError,
    TransportError, RoomError.
    """
    orphan = read(app, job_id)
    if orphan.job.is_terminal:
        raise NoSuchOrphan(f"{job_id} is {orphan.job.status}: there is nothing left to cancel")
    client_of(app, orphan.account).cancel_job(orphan.kind, job_id)
    return orphan


def route(app: Celery, task_id: str) -> Record:
    """Send a record whose job is gone through the route table, with code ``not_found``, as the watcher would.

    Raises: NoSuchOrphan, if it does not wait for a job, the job is there, or was accepted just now; ApiError,
    TransportError, RoomError.
    """
    settings = settings_of(app)
    room = room_of(app, settings)
    try:
        record, now = room.read(task_id)
    except ForeignRecord as error:
        raise NoSuchOrphan(str(error)) from error
    if record is None or record.until != "job" or record.ending:
        raise NoSuchOrphan(f"{task_id} waits for no job: " + (f"it is {record.until}" if record else "no such task"))
    if not is_old_wait(record, now) or not is_gone(client_of(app, record.account), record):
        raise NoSuchOrphan(f"{task_id} is no orphan: its job {record.job_id} is there, or too young to be given up")
    moved = move(room, task_id, end_of_job(app, settings, room, record, "not_found", resend_after_s=0.0))
    if moved is None:
        raise NoSuchOrphan(f"{task_id} has moved on meanwhile")
    return moved


def tend(app: Celery, found: Orphans, *, is_workspace_ours: bool = False) -> list[Record]:
    """Bring back the waits that the room has lost, and tell of the rest: for whoever searches unasked.

    Adopted is what has no record, goes on, and can be finished without arguments; and what our own result backend has
    at PROGRESS, since in a shared workspace it may be another app's else. ``is_workspace_ours``: no other app, and no
    eager call, submits tasks of these names there, so that is not asked.

    Raises: RoomError.
    """
    adopted: list[Record] = []
    for orphan in found.jobs:
        if orphan.adopts_itself and (orphan.is_known or is_workspace_ours):
            try:
                adopted.append(_adopt(app, orphan))
            except RoomError:
                raise
            except FramelaneError as error:  # somebody was first, or a newer version was: one stops nobody
                logger.info("%s", error)
    taken = {record.job_id for record in adopted}
    left = Counter(
        [*(orphan.why for orphan in found.jobs if orphan.id not in taken), *(["not_found"] * len(found.gone))]
    )
    counts = ", ".join(f"{number} {why}" for why, number in sorted(left.items()))
    for why, number in {"adopted": len(adopted), **left}.items():
        count("orphans", why, by=number, namespace=settings_of(app).namespace or "")
    if adopted or counts:
        is_surely_ours = adopted or found.gone or any(orphan.why != "no_record" for orphan in found.jobs)
        logger.log(
            logging.WARNING if is_surely_ours else logging.INFO,
            "orphans of %s: %d jobs adopted, whose records were lost; left: %s (celery framelane orphans list)",
            app.main, len(adopted), counts or "none",
        )  # fmt: skip
    return adopted
