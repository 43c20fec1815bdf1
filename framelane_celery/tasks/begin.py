"""How a run begins: it takes the record with its message's step, or the message is dropped."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from celery.exceptions import Ignore

from framelane_celery import records, wakeups
from framelane_celery.queues import head_start_s
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import SlotClaim, move, stored
from framelane_celery.routing import Hold
from framelane_celery.tasks.routes import decide

if TYPE_CHECKING:
    from celery.app.task import Context

    from framelane_celery.settings import FramelaneSettings
    from framelane_celery.tasks.recorded import RecordedTask

logger = logging.getLogger(__name__)


def begin(task: RecordedTask, request: Context, *, run_id: str) -> tuple[Record, float]:
    """Take the record, its lease and, if it has to submit, a slot, in one compare-and-set.

    Returns the record as stored, and by how much the room's clock is ahead of ``time.monotonic``.
    Raises: Ignore, if the message does not fit, the task was revoked or has expired, or no slot is free; RoomError.
    """
    step, room, settings = wakeups.step_of(request), task.room, task.settings
    for _ in range(10):
        record, now = _read(task, request, step)
        reason = _must_not_start(task, record, now) if record is not None and record.step == step else None
        if record is not None and reason is not None:
            _leave_to_end(task, request, record, reason)
        begun = record and records.begin(
            record, step=step, run_id=run_id, node=request.hostname, now=now, lease_s=settings.lease_s
        )
        if record is None or begun is None:
            state = "is gone" if record is None else f"is at {record.step}, until {record.until}"
            drop(task, request, f"stale: step {step}, the record {state}")
        saved = room.save(record, begun, claim=_slot_claim(task, settings, record))
        if saved == "saved":
            return stored(record, begun), now - time.monotonic()
        if saved == "no_slot":
            _join_queue(task, request, record)
        if saved == "held":
            _join_hold(task, request, record)
    drop(task, request, "written by too many at once")


def drop(task: RecordedTask, request: Context, why: str) -> NoReturn:
    """End a run that is not, or no longer, the record's."""
    logger.debug("%s[%s]: message dropped: %s", task.name, request.id, why)
    raise Ignore(why)


def _leave_to_end(task: RecordedTask, request: Context, record: Record, reason: records.Ending) -> NoReturn:
    """Revoked or expired: the watcher ends it."""
    move(task.room, record.id, lambda old, now: records.revoke(old, reason=reason, now=now))
    drop(task, request, reason)


def _join_queue(task: RecordedTask, request: Context, record: Record) -> NoReturn:
    """No submit slot is free: the watcher wakes the queue in order."""
    kind = task.job_kind or "render"
    move(task.room, record.id, lambda old, now: records.queue(old, step=record.step, kind=kind, now=now))
    drop(task, request, "no submit slot is free: queued")


def _join_hold(task: RecordedTask, request: Context, record: Record) -> None:
    """The account is on hold: wait with the others, without a POST. Returns if the hold has just ended."""
    hold = next((hold for hold in task.room.holds()[0] if hold.account == record.account and hold.is_on), None)
    if hold is None:
        return
    decision = decide(task.app, task.settings, record, hold.code)
    max_s = decision.max_s if isinstance(decision, Hold) else None
    join = partial(
        records.join_hold,
        step=record.step,
        kind=task.job_kind or "render",
        failure={"code": hold.code, "message": hold.reason},
        max_s=max_s or task.settings.hold_max_s,
    )
    move(task.room, record.id, lambda old, now: join(old, now=now))
    drop(task, request, f"account {record.account} is on hold: {hold.code}")


def _read(task: RecordedTask, request: Context, step: int) -> tuple[Record | None, float]:
    try:
        record, now = task.room.read(request.id)
        if record is None and step == 0:  # published by name, or while the room was away
            task.room.create(new_record(task, request, now))
            record, now = task.room.read(request.id)
        return record, now
    except ForeignRecord as error:
        drop(task, request, str(error))


def new_record(task: RecordedTask, request: Context, now: float) -> Record:
    """The record of a task whose message came without one."""
    call = wakeups.call_of_request(task, request)
    return Record(
        id=request.id,
        task=task.name,
        call=call.to_text(),
        digest=wakeups.digest_of(call),
        due_at=now + task.settings.resend_after_s,
        created_at=now,
        head_start_s=head_start_s(task.app, call.options),
        expires_at=wakeups.instant_of(task.app, request.expires),
    )


def _must_not_start(task: RecordedTask, record: Record, now: float) -> records.Ending | None:
    if records.is_expired(record, now):
        return "expired"
    return "revoked" if task.room.is_revoked(wakeups.revoke_marks(record)) else None


def _slot_claim(task: RecordedTask, settings: FramelaneSettings, record: Record) -> SlotClaim | None:
    kind = record.job_kind or task.job_kind
    if record.outcome or record.job_id or kind is None:
        return None
    limit = settings.renders_per_minute if kind == "render" else settings.media_tasks_per_minute
    return SlotClaim(kind, limit, from_queue=record.queued_at is not None, account=record.account)
