"""Log lines with fields: each that is about a task says which, and which job, in ``extra``.

One line per transition goes to the logger ``framelane_celery.transitions``; what goes wrong, to that of its module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from framelane_celery.records import Record

if TYPE_CHECKING:
    from celery.app.task import Context

logger = logging.getLogger("framelane_celery.transitions")


def about(task_name: str | None, task_id: str, job_id: str | None = None) -> dict[str, Any]:
    """The fields of a line about a task. (Celery's own formatter has names for two of them.)"""
    return {"task_name": task_name, "task_id": task_id, "job_id": job_id}


class Named(NamedTuple):
    """A task of which no more is known."""

    task: str
    id: str


def say(log: Callable[..., None], of: Record | Context | Named, text: str, *args: object) -> None:
    """A line about a task, from a logger's method: ``say(logger.warning, record, "left alone: %s", error)``."""
    extra = about(of.task, of.id, getattr(of, "job_id", None))
    log(f"%s[%s]: {text}", of.task, of.id, *args, extra=extra, stacklevel=2)


def write(old: Record | None, new: Record) -> None:
    """The line of a transition. ``old`` None: the task was called."""
    is_bad = new.is_letter and (old is None or not old.is_letter)
    level = logging.WARNING if is_bad else logging.INFO
    if logger.isEnabledFor(level):
        extra = {
            **about(new.task, new.id, _job_id(old, new)),
            "account": new.account,
            "attempt": new.attempt,
            "was": None if old is None else old.until,
            "until": new.until,
            "code": _code(new),
        }
        logger.log(level, "%s[%s]: %s", new.task, new.id, _text(old, new, extra["job_id"]), extra=extra)


def _job_id(old: Record | None, new: Record) -> str | None:
    """Of a failed attempt, its job's: the next one has none yet."""
    return new.job_id or (old.job_id if old is not None else None)


def _code(new: Record) -> str | None:
    return None if new.outcome == "completed" else (new.failure or {}).get("code") or new.ending


def _text(old: Record | None, new: Record, job_id: object) -> str:
    """For the eye: "job -> instant: internal, job render_…, attempt 2"."""
    moved = f"{'called' if old is None else old.until} -> {new.until}"
    said = [_code(new) or new.outcome, f"job {job_id}" if job_id else None]
    said.append(f"attempt {new.attempt}" if new.attempt > 1 else None)
    details = ", ".join(str(part) for part in said if part)
    return f"{moved}: {details}" if details else moved
