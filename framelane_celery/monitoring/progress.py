"""What a waiting task shows of itself: the result's meta, and the fields of Flower's ``task-progress`` event.

The keys that celery-progress reads (pending, current, total, percent, description) are among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framelane_celery.errors import clean_text
from framelane_celery.records import Record

PROGRESS = "PROGRESS"
"""The state of a task that waits, whatever it waits for: other states count as failures in celery-progress."""


def progress_meta(record: Record, next_look_at: float | None = None) -> dict[str, Any]:
    """The meta of state PROGRESS. Instants are epoch seconds; ``percent`` is a whole number from 0 to 100."""
    job = record.job or {}
    percent = int(job.get("progress_percent") or 0)
    status = job.get("status")
    stage = job.get("progress_stage")
    return {
        "job_id": record.job_id,
        "job_kind": record.job_kind,
        "status": status,
        "until": record.until,
        "percent": percent,
        "current": percent,
        "total": 100,
        "pending": False,
        "description": _description(record, status, stage),
        "stage": stage,
        "attempt": record.attempt,
        "submitted_at": record.accepted_at,
        "next_look_at": record.due_at if record.until == "instant" else next_look_at,
    }


def _description(record: Record, status: str | None, stage: str | None) -> str:
    """One line for a person: what the task waits for."""
    code = (record.failure or {}).get("code")
    if record.until == "instant":
        return f"attempt {record.attempt} after {code}" if code else "waits for its time"
    if record.until == "release":
        return f"dead letter, kept waiting: {code}" if record.letter else f"on hold: {code}"
    if record.until == "start":
        return "waits for a worker"
    if record.until == "slot":
        return "queued for a submit slot"
    return f"{status}: {stage}" if stage else str(status)


def shown_args(args: Sequence[Any]) -> str:
    """Positional arguments as Flower and the log show them: no request body, no signed URL."""
    return f"({', '.join(map(_shown, args))})"


def shown_kwargs(kwargs: Mapping[str, Any]) -> str:
    """Keyword arguments, likewise."""
    return "{" + ", ".join(f"{name!r}: {_shown(value)}" for name, value in kwargs.items()) + "}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        is_job = "id" in value and "status" in value
        return f"<job {value['id']}>" if is_job else f"<{', '.join(map(str, list(value)[:6]))}>"
    if isinstance(value, (list, tuple)):
        return f"<{len(value)} items>"
    return clean_text(repr(value), 80)
