"""What the watcher does about what it saw: results, wake-ups, events. Runs in one thread, an item at a time.

The order of writes is what keeps promises here. PROGRESS goes out before the record's next transition, under a token
that was checked, and never after a wake-up. The record moves, then its wake-up is published: a wake-up may be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery import states

from framelane_celery import records, wakeups
from framelane_celery.errors import NotFound
from framelane_celery.monitoring import PROGRESS, progress_meta, say
from framelane_celery.records import ForeignRecord, Outcome, Record
from framelane_celery.tasks.routes import end_of_job
from framelane_celery.waits import failure_text
from framelane_celery.watching import looks

if TYPE_CHECKING:
    from framelane_celery.models import Job
    from framelane_celery.watching.looker import Seen, Verdict
    from framelane_celery.watching.watcher import Watcher

logger = logging.getLogger(__name__)


def outcome_of(seen: Seen) -> Outcome | None:
    """What a look says of the job's end; None: not finished yet. Unknown states are not finished."""
    job = seen.job
    if job is not None and job.is_completed:
        return "completed"
    if seen.is_given_up:  # whatever became of the cancelling
        return "timed_out"
    if job is None:
        return "not_found" if isinstance(seen.error, NotFound) else None
    if job.is_cancelled:
        return "cancelled"
    return "failed" if job.is_failed else None


def groups_of(signature: Mapping[str, Any]) -> set[str]:
    """The groups that a task, or what comes after it in its chain, is counted in: a chain's last task is the member."""
    options, kwargs = signature.get("options") or {}, signature.get("kwargs") or {}
    found = {options["group_id"]} if options.get("group_id") else set()
    parts = [*(options.get("chain") or ())]
    if signature.get("subtask_type") == "chord":
        parts.append(kwargs.get("body") or {})
    elif signature.get("subtask_type") == "chain":
        parts += kwargs.get("tasks") or ()
    return found.union(*map(groups_of, parts))


def keep_chords_alive(backend: Any, groups: Iterable[str]) -> None:
    """Refresh the keys in which a key-value result backend counts chords' members (celery_facts.md, row 7).

    The one place that knows their names: ``celery/backends/redis.py`` and ``base.py``, in 5.5 and 5.7.
    """
    if hasattr(backend, "get_key_for_group") and backend.expires:
        for group in groups:
            for suffix in ("", ".j", ".t", ".s"):
                backend.expire(backend.get_key_for_group(group, suffix), backend.expires)


class Scribe:
    """Acts for one watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._failures: dict[str, int] = {}

    def put_off(self, record: Record) -> None:
        """Something went wrong about a record: later again, so that it does not keep everybody busy."""
        failures = self._failures[record.id] = self._failures.get(record.id, 0) + 1
        later_s = looks.after_trouble_s(failures)
        self._watcher.move(record.id, lambda old, now: records.put_off(old, step=record.step, until_at=now + later_s))

    def went_well(self, record: Record) -> None:
        self._failures.pop(record.id, None)

    # --- what was seen -------------------------------------------------------------------------------------------

    def act_on(self, seen: Seen) -> Verdict:
        """A job has ended, is gone, or is past its deadline: move the record on, or say that it has to be given up."""
        record = self._waiting(seen.task_id, seen.job_id)
        if record is None:
            return "left"
        outcome = outcome_of(seen)
        if outcome is None and self._watcher.settings.cancel_on_timeout:
            return "give_up"
        return "moved" if self._decide(record, seen.job, outcome or "timed_out") else "left"

    def report(self, task_id: str, job_id: str, job: Job | None, next_look_at: float) -> bool:
        """Show the progress of a job that goes on (None: what was shown last, before it fades). False: nobody waits."""
        record = self._waiting(task_id, job_id)
        if record is None:
            return False
        news = None if job is None else job.to_json()
        meta = progress_meta(record if news is None else replace(record, job=news), next_look_at)
        if self._write_progress(record, meta):
            self._watcher.move(
                record.id,
                lambda old, now: records.looked(old, job=news, reported_at=now) if old.step == record.step else None,
                known=record,
            )
        return True

    def _waiting(self, task_id: str, job_id: str) -> Record | None:
        """The record, if it still waits for that job, and this watcher leads."""
        try:
            record, now = self._watcher.room.read(task_id)
        except ForeignRecord:
            return None
        self._watcher.set_clock(now)
        if self._watcher.token is None or record is None or record.until != "job" or record.ending:
            return None
        return record if record.job_id == job_id else None

    def _decide(self, record: Record, seen: Job | None, outcome: Outcome) -> bool:
        job = seen.to_json() if seen else None
        if outcome != "completed":
            return self._fail(record, outcome, job)
        resend_after_s = self._watcher.settings.resend_after_s
        woken = self._watcher.move(
            record.id,
            lambda old, now: (
                records.complete(old, job=job or {}, now=now, resend_after_s=resend_after_s)
                if old.step == record.step  # else another attempt waits by now
                else None
            ),
            known=record,
        )
        if woken is not None:
            self._watcher.publish(woken)
        return woken is not None

    def _fail(self, record: Record, outcome: Outcome, job: dict[str, Any] | None) -> bool:
        """The routes decide: what waits on is shown, then moved; what is over is moved, then woken."""
        watcher, settings = self._watcher, self._watcher.settings
        fail = end_of_job(
            watcher.app, settings, watcher.room, record, outcome, resend_after_s=settings.resend_after_s, job=job
        )
        seen = fail(record, watcher.now())
        if seen is not None and seen.until in ("instant", "release"):
            self._write_progress(record, progress_meta(seen))
            if seen.until == "instant":
                told = {"exception": failure_text(seen.failure), "traceback": None}
                watcher.announce("task-retried", record.id, told)
        moved = watcher.move(record.id, fail, known=record)
        if moved is None:
            return False
        if moved.until == "start":
            watcher.publish(moved)
        return True

    def keep_alive(self, record: Record) -> None:
        """What waits for long: its result and its chord's keys are written again before they fade."""
        self._write_progress(record, progress_meta(record))

    def _write_progress(self, record: Record, meta: dict[str, Any]) -> bool:
        """To the result and as an event; never once the record has moved on, or another watcher leads.

        False: it was not written, or too late.
        """
        there, _ = self._watcher.room.read(record.id)
        if self._watcher.token is None or there is None or there.step != record.step:
            return False
        context = wakeups.context_of(record)
        try:
            if not context.ignore_result:
                self._backend(record).store_result(record.id, meta, PROGRESS, request=context)
            call = wakeups.Call.from_text(record.call)
            keep_chords_alive(self._backend(record), groups_of(call._asdict()))
        except Exception:  # noqa: BLE001 - only for the eye: what is decided must not wait for it
            say(logger.exception, record, "the result backend did not take PROGRESS")
            return False
        there, _ = self._watcher.room.read(record.id)
        if self._watcher.token is None or there is None or there.step != record.step:  # it was stopped meanwhile
            self._watcher.ask_mend(record.id, call)
            return False
        self._watcher.announce("task-progress", record.id, meta)
        return True

    def result_life_s(self) -> float:
        """How long results are kept: what waits longer has to be written again in time."""
        expires = self._watcher.app.conf.result_expires
        return float(getattr(expires, "total_seconds", lambda: expires)() or "inf")

    # --- out of the house ----------------------------------------------------------------------------------------

    def end(self, record: Record) -> None:
        """What was revoked or has expired: REVOKED for its readers and its chord, then the record is over."""
        if self._watcher.token is None:
            return
        context = wakeups.context_of(record)
        reason = record.ending or "revoked"
        backend = self._backend(record)
        if backend.get_state(record.id) != states.REVOKED:  # a worker that heard it may have been first
            backend.mark_as_revoked(record.id, reason, request=context, store_result=not context.ignore_result)
        told = {
            "terminated": False, "signum": None, "expired": reason == "expired",
            "state": states.REVOKED,  # they take this kind of event for older than PROGRESS (celery.states)
        }  # fmt: skip
        self._watcher.announce("task-revoked", record.id, told)
        self._watcher.move(record.id, lambda old, now: records.end(old, now=now))

    def _backend(self, record: Record):  # type: ignore[no-untyped-def]
        task = self._watcher.app.tasks.get(record.task)
        return task.backend if task is not None else self._watcher.app.backend
