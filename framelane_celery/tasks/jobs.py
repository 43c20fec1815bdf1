"""What a task is to its job: the request that its body returns, the metadata that leads back, the error it ends in."""

from __future__ import annotations

from typing import Any

from framelane_celery.errors import FramelaneError, InvalidArguments, JobCancelled, JobFailed, JobTimedOut, clean_text
from framelane_celery.models import JobRequest
from framelane_celery.records import Record


def request_model(task_name: str, returned: Any) -> JobRequest:
    """What a task's body returned, as a request.

    Raises: InvalidArguments, if it is anything else.
    """
    if isinstance(returned, JobRequest):
        return returned
    hint = ""
    if isinstance(returned, dict):
        hint = "; with pydantic=True Celery turns a returned model into a dict: leave that option away"
    raise InvalidArguments(
        f"{task_name}: the body must return a request model such as RenderRequest, not {type(returned).__name__}{hint}",
        None,
    )


def job_metadata(task_name: str, task_id: str) -> dict[str, str]:
    """What is added to the job's metadata: it comes back with every read, and finds an orphan's owner."""
    return {"celery_task_id": task_id, "celery_task": task_name}


def error_of(record: Record) -> FramelaneError:
    """The typed error of an outcome."""
    if record.outcome == "cancelled":
        return JobCancelled(f"job {record.job_id} was cancelled", record.job_id)
    if record.outcome == "timed_out":
        return JobTimedOut(f"job {record.job_id} did not end before its deadline", record.job_id)
    if record.outcome == "worker_lost":
        return JobFailed("every run of the task died: see the workers' logs", record.job_id, "worker_lost")
    if record.outcome == "not_found":
        return JobFailed(f"job {record.job_id} is gone", record.job_id, "not_found")
    error = (record.job or {}).get("error") or {}
    message = clean_text(error.get("message") or "no reason given")
    return JobFailed(f"job {record.job_id} failed: {message}", record.job_id, error.get("code"))
