"""The route table of one task, asked: the task's own rules, then the settings', then the defaults."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from framelane_celery import records, routing
from framelane_celery.queues import dead_letter_queue_of, queue_of, retry_queue_of
from framelane_celery.records import Outcome, Record
from framelane_celery.room import Room, Transition
from framelane_celery.routing import DeadLetter, Decision, Failure, Hold, Retry, Route, parse_routes
from framelane_celery.tasks.jobs import failure_of_job
from framelane_celery.wakeups import Call

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.settings import FramelaneSettings


def routes_of(app: Celery, settings: FramelaneSettings, task_name: str) -> tuple[Route, ...]:
    """The rules for a task. One that this process does not know has the settings' alone.

    Raises: SettingsError, that names the task, the entry and the key.
    """
    own = getattr(app.tasks.get(task_name), "routes", ())
    return (*parse_routes(own, f"{task_name}: routes"), *settings.routes) if own else settings.routes


def decide(app: Celery, settings: FramelaneSettings, record: Record, code: str, *, may_hold: bool = True) -> Decision:
    """What becomes of a record's failure, with the names of queues filled in."""
    task = app.tasks.get(record.task)
    kind = record.job_kind or str(getattr(task, "job_kind", None) or "render")
    guard = settings.laid_over.get(record.account, settings).spend_guard  # its account may be named no more
    decision = routing.decide(
        routes_of(app, settings, record.task),
        Failure(code, kind, record.task, record.account),
        attempts=record.attempts_made,
        chance=random.random(),
        max_attempts=guard.max_attempts if record.has_arguments else 1,
        may_hold=may_hold and record.has_arguments,
    )
    if isinstance(decision, Retry):
        call = Call.from_text(record.call)
        own = queue_of(app, record.task, call.options, call.args, call.kwargs)
        return decision._replace(queue=retry_queue_of(app, settings, own, decision.queue))
    if isinstance(decision, DeadLetter):
        return decision._replace(queue=dead_letter_queue_of(settings, decision.queue))
    if isinstance(decision, Hold):
        return decision._replace(max_s=decision.max_s or settings.hold_max_s)
    return decision


def end_of_job(
    app: Celery,
    settings: FramelaneSettings,
    room: Room,
    record: Record,
    outcome: Outcome,
    *,
    resend_after_s: float,
    job: dict[str, Any] | None = None,
) -> Transition:
    """A transition that carries out what the routes say of a job without success, from the step at which it was seen.

    An account's hold is made at once: who finds a held record without one releases it.
    """
    failure = failure_of_job(outcome, job)
    decision = decide(app, settings, record, failure["code"])
    if isinstance(decision, Hold):
        room.hold(record.account, failure["code"], failure["message"])

    def transition(old: Record, now: float) -> Record | None:
        if old.step != record.step:  # another attempt waits by now
            return None
        return records.fail(
            old, outcome=outcome, failure=failure, decision=decision, now=now, resend_after_s=resend_after_s, job=job
        )

    return transition


def lost(
    app: Celery, settings: FramelaneSettings, record: Record, now: float, *, node: str | None = None
) -> Record | None:
    """A transition: the run has died, so the task is woken; or, if that was once too often, the routes decide."""
    if not records.is_lost(record, now, node):
        return None
    again = records.reclaim(record, now=now, max_lost_runs=settings.max_lost_runs, node=node)
    if again is not None:
        return again
    return records.lose(
        record,
        failure=failure_of_job("worker_lost", None),
        decision=decide(app, settings, record, "worker_lost", may_hold=False),
        now=now,
        max_lost_runs=settings.max_lost_runs,
        node=node,
    )
