"""How a run begins: it takes the record with its message's step, or the message is dropped."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from celery.exceptions import Ignore

from framelane_celery import records, wakeups
from framelane_celery.counting import count
from framelane_celery.monitoring import say, told, tracing
from framelane_celery.queues import head_start_s
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import SlotClaim, move, stored
from framelane_celery.routing import Hold
from framelane_celery.tasks.choice import chosen_by_message
from framelane_celery.tasks.gathered import passed_on
from framelane_celery.tasks.routes import decide

if TYPE_CHECKING:
    from celery.app.task import Context

    from framelane_celery.tasks.recorded import RecordedTask
    from framelane_celery.tasks.run import WorkerRun

logger = logging.getLogger(__name__)


class Waits(Ignore):
    """The run ends here and its task waits on: the worker tells its monitors so (`watching.request`)."""


class TriesAgain(Waits):
    """Its attempt has failed, and another one follows."""


def begin(run: WorkerRun) -> tuple[Record, float]:
    """Take the record, its lease and, if it has to submit, a slot, in one compare-and-set.

    Returns the record as stored, and by how much the room's clock is ahead of ``time.monotonic``.
    Raises: Ignore, if the message does not fit, the task was revoked or has expired, or no slot is free; RoomError.
    """
    task, request = run.task, run.request
    step = wakeups.step_of(request)
    for _ in range(10):
        record, now = _read(run, step)
        if record is not None and record.step == step and records.is_expired(record, now):
            _leave_to_end(run, record, "expired")
        is_known = record is None or record.account in run.settings.account_names
        if record is not None and record.step == step and not (record.outcome or is_known):
            _leave_to_others(run, record)
        begun = record and records.begin(
            record,
            step=step,
            run_id=run.run_id,
            node=request.hostname,
            now=now,
            lease_s=run.settings.lease_s,
            bucket=_own_bucket(run, record),
        )
        if record is None or begun is None:
            state = "is gone" if record is None else f"is at {record.step}, until {record.until}"
            drop(task, request, f"stale: step {step}, the record {state}")
        marks = wakeups.revoke_marks(record)
        saved = run.room.save(record, begun, claim=_slot_claim(run, record), unless_revoked=marks)
        if saved == "saved":
            told(run.room.namespace, record, begun, now)
            return stored(record, begun), now - time.monotonic()
        if saved == "revoked":
            _leave_to_end(run, record, "revoked")
        if saved == "no_slot":
            _join_queue(run, record)
        if saved == "held":
            _join_hold(run, record)
    drop(task, request, "written by too many at once")


def drop(task: RecordedTask, request: Context, why: str, end: type[Ignore] = Ignore) -> NoReturn:
    """End a run that is not, or no longer, the record's."""
    say(logger.debug, request, "message dropped: %s", why)
    count("drops", namespace=task.settings.namespace or "")
    raise end(why)


def _leave_to_end(run: WorkerRun, record: Record, reason: records.Ending) -> NoReturn:
    """Revoked or expired: the watcher ends it."""
    move(run.room, record.id, lambda old, now: records.revoke(old, reason=reason, now=now))
    drop(run.task, run.request, reason)


_told: set[str] = set()


def _leave_to_others(run: WorkerRun, record: Record) -> NoReturn:
    """Its account is named by no settings here: perhaps by those of another worker, or soon. Nothing is lost."""
    if record.account not in _told:
        _told.add(record.account)
        say(
            logger.warning,
            record,
            "framelane['accounts'] names no account %r (any more): its tasks wait until it does",
            record.account,
        )
    move(run.room, record.id, lambda old, now: records.misdelivered(old, step=record.step, now=now))
    drop(run.task, run.request, f"account {record.account} is not in the settings", Waits)


def _own_bucket(run: WorkerRun, record: Record) -> str | None:
    """Of the slots of its account, if it has a limit of its own."""
    kind = record.job_kind or run.task.job_kind
    if kind is None:
        return None
    bucket = run.settings.bucket(record.account, kind)
    return bucket if ":" in bucket else None


def _join_queue(run: WorkerRun, record: Record) -> NoReturn:
    """No submit slot is free: the watcher wakes the queue in order."""
    join = partial(records.queue, step=record.step, kind=run.task.job_kind or "render", bucket=_own_bucket(run, record))
    move(run.room, record.id, lambda old, now: join(old, now=now))
    drop(run.task, run.request, "no submit slot is free: queued", Waits)


def _join_hold(run: WorkerRun, record: Record) -> None:
    """The account is on hold: wait with the others, without a POST. Returns if the hold has just ended."""
    hold = next((hold for hold in run.room.holds()[0] if hold.account == record.account and hold.is_on), None)
    if hold is None:
        return
    decision = decide(run.task.app, run.settings, record, hold.code)
    max_s = decision.max_s if isinstance(decision, Hold) else None
    join = partial(
        records.join_hold,
        step=record.step,
        kind=run.task.job_kind or "render",
        failure={"code": hold.code, "message": hold.reason},
        max_s=max_s or run.settings.hold_max_s,
        bucket=_own_bucket(run, record),
    )
    move(run.room, record.id, lambda old, now: join(old, now=now))
    drop(run.task, run.request, f"account {record.account} is on hold: {hold.code}", Waits)


def _read(run: WorkerRun, step: int) -> tuple[Record | None, float]:
    try:
        record, now = run.room.read(run.request.id)
        if record is None and step == 0:  # published by name, or while the room was away
            if run.room.create(new := new_record(run.task, run.request, now)) is None:
                told(run.room.namespace, None, new, now)
            record, now = run.room.read(run.request.id)
        return record, now
    except ForeignRecord as error:
        drop(run.task, run.request, str(error))


def new_record(task: RecordedTask, request: Context, now: float) -> Record:
    """The record of a task whose message came without one."""
    call = wakeups.call_of_request(task, request)
    return Record(
        id=request.id,
        task=task.name,
        call=call.to_text(),
        digest=wakeups.digest_of(call),
        account=chosen_by_message(task, request, call.args, call.kwargs),
        queue=call.options.get("queue"),
        trace=tracing.carrier(),
        due_at=now + task.settings.resend_after_s,
        created_at=now,
        head_start_s=head_start_s(task.app, call.options),
        expires_at=wakeups.instant_of(task.app, request.expires),
    )


def _slot_claim(run: WorkerRun, record: Record) -> SlotClaim | None:
    settings, kind = run.settings, record.job_kind or run.task.job_kind
    if record.outcome or record.job_id or kind is None or passed_on(run.request) is not None:
        return None
    return SlotClaim(
        settings.bucket(record.account, kind),
        settings.per_minute(record.account, kind),
        from_queue=record.queued_at is not None,
        account=record.account,
    )
