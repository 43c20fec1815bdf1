"""What a transition of a record means to whoever watches: one line of the log, counts, and signals.

`told` is called once for each transition that the room has stored (`framelane_celery.room.move`, and the few places
that write without it), by the process that made it. Renewed leases and reported progress say nothing new.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from framelane_celery import signals
from framelane_celery.counting import count, timed
from framelane_celery.errors import CODE_TO_ERROR
from framelane_celery.monitoring.log import write
from framelane_celery.records import Record

OTHER: Final = "other"
NONE: Final = "none"
"""The label of what has no code: labels that are empty are no labels to Prometheus."""

KNOWN_CODES: Final = frozenset(CODE_TO_ERROR) | {
    "timed_out", "cancelled", "outcome_unknown", "worker_lost", "spend_guard", "operator", "unknown",
}  # fmt: skip


def code_label(code: str | None) -> str:
    """A code as a label: any text may come from an API, and each that is new would be a time series for ever."""
    if not code:
        return NONE
    return code if code in KNOWN_CODES else OTHER


def told(namespace: str, old: Record | None, new: Record, now: float) -> None:
    """A transition is stored. ``old`` None: the task was called. ``now`` is the room's clock."""
    if old is not None:
        _count(namespace, old, new, now)
    if is_told(old, new):
        write(old, new)
    if old is not None:
        _send(old, new)


def is_told(old: Record | None, new: Record) -> bool:
    """Whether the record waits for something else now, or is bound to end otherwise."""
    return old is None or (old.until, old.step, old.ending, old.outcome) != (
        new.until, new.step, new.ending, new.outcome,
    )  # fmt: skip


def _count(namespace: str, old: Record, new: Record, now: float) -> None:
    if new.until == "start" and old.until == "start" and new.resends > old.resends:
        count("resends", namespace=namespace)
    if new.lost_runs > old.lost_runs:
        count("lost_runs", namespace=namespace)
    if new.until == "job" and old.until != "job":
        count("submissions", _kind(new), new.account, namespace=namespace)
    if len(new.history) > len(old.history):
        _count_attempt(namespace, old, new, now)
    if (action := action_of(old, new)) is not None:
        count("routes", code_label((new.failure or {}).get("code")), action, namespace=namespace)
    if old.until == "start" and new.until == "running" and new.outcome is not None:
        _time_resume(namespace, new, now)
    if new.is_over and not old.is_over:
        count("tasks_ended", new.task, ended_as(new), namespace=namespace)


def _send(old: Record, new: Record) -> None:
    """Tell the receivers of our signals, if there are any."""
    if new.until == "job" and old.until != "job":
        _signal(signals.job_submitted, new)
    elif new.until == old.until == "job" and new.job != old.job:
        job = new.job or {}
        shown = {name: job.get(f"progress_{name}") for name in ("percent", "stage")}
        _signal(signals.job_progressed, new, status=job.get("status"), **shown)
    elif old.until == "job" and len(new.history) > len(old.history):
        end = new.history[-1]
        _signal(signals.job_finished, old, outcome=end.get("outcome"), code=end.get("code"))
    if new.letter is not None and old.letter is None:
        code = (new.failure or {}).get("code")
        _signal(signals.job_dead_lettered, old, code=code, keeps_waiting=new.until == "release")


def _signal(signal: Any, of: Record, **values: Any) -> None:
    if signal.receivers:
        ids = {"task_id": of.id, "job_id": of.job_id, "kind": _kind(of), "account": of.account, "attempt": of.attempt}
        signal.send(sender=of.task, **ids, **values)


def _kind(record: Record) -> str:
    return record.job_kind or "render"


def _count_attempt(namespace: str, old: Record, new: Record, now: float) -> None:
    if old.until != "job":  # refused, or lost: no job has ended
        return
    outcome = str(new.history[-1].get("outcome"))
    count("job_outcomes", _kind(old), outcome, code_label(new.history[-1].get("code")), namespace=namespace)
    if old.accepted_at is not None:
        timed("job_seconds", _kind(old), seconds=now - old.accepted_at, namespace=namespace)


def action_of(old: Record, new: Record) -> str | None:
    """What the routes made of a failure, if that is what happened: "retry", "hold", "dead_letter" or "fail"."""
    has_failed = len(new.history) > len(old.history) and new.history[-1].get("outcome") != "completed"
    if new.letter is not None and old.letter is None:
        return "dead_letter" if has_failed or new.until == "dead" else None
    if new.until == "release" and old.until != "release" and new.letter is None and not new.ending:
        return "hold"
    if not has_failed:
        return None
    return "retry" if new.until == "instant" else "fail"


def ended_as(new: Record) -> str:
    """How a task ended: what became of its job, "dead_letter", "revoked", "expired"; "none": it had no job."""
    return "dead_letter" if new.until == "dead" else new.ending or new.outcome or NONE


def _time_resume(namespace: str, new: Record, now: float) -> None:
    """From the job's end, as the API dates it, to the run that takes it up."""
    ended_at = job_ended_at(new)
    if ended_at is not None and -60.0 < now - ended_at < 86400.0:
        timed("resume_seconds", _kind(new), seconds=now - ended_at, namespace=namespace)


def job_ended_at(record: Record) -> float | None:
    """When the record's job ended, in epoch seconds; None where the API does not say."""
    text = (record.job or {}).get("completed_at")
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp() if text else None
    except ValueError:
        return None
