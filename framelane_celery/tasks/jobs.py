"""What a task is to its job: the request that its body returns, the metadata that leads back, the error it ends in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framelane_celery.accounts import DEFAULT
from framelane_celery.errors import (
    ApiError,
    FramelaneError,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    SettingsError,
    clean_text,
    code_of,
    error_for,
)
from framelane_celery.models import Job, JobRequest
from framelane_celery.records import Outcome, Record
from framelane_celery.settings import settings_of

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.client import FramelaneClient


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


def owned(job: Job, account: str) -> Job:
    """The job as its task hands it on: with its account's name, so that later steps ask with the right key."""
    return job.model_copy(update={"framelane_account": None if account == DEFAULT else account})


def client_of_job(app: Celery, job: Job) -> FramelaneClient:
    """The client that has a job's key, whatever account the step runs on.

    Raises: InvalidArguments, if the settings name its account no more.
    """
    from framelane_celery.client import shared_client  # requests is imported only where HTTP is spoken

    try:
        settings = settings_of(app, needs_room=False).of(job.framelane_account or DEFAULT)
    except SettingsError as error:
        raise InvalidArguments(f"job {job.id}: {error}", None) from error
    return shared_client(settings)


def fresh_url(app: Celery, job: Mapping[str, Any] | Job) -> str:
    """A finished job's artefact under a link that was signed just now. An import has a lasting address, and no other.

    Raises: InvalidArguments, if the settings name its account no more; ApiError, TransportError.
    """
    known = Job.model_validate(job)
    if known.kind == "import":
        return (known.output and known.output.url) or ""
    return client_of_job(app, known).download_url("render" if known.kind == "render" else "task", known.id)


_OWN_MESSAGES: Mapping[str, str] = {
    "cancelled": "the job was cancelled",
    "timed_out": "the job did not end before its deadline",
    "worker_lost": "every run of the task died: see the workers' logs",
    "not_found": "the job is gone",
}


def failure_of_job(outcome: Outcome, job: Mapping[str, Any] | None) -> dict[str, Any]:
    """The failure of a job, or of a task that lost it: {"code", "message"}, as the route table and letters have it."""
    if outcome in _OWN_MESSAGES:
        return {"code": outcome, "message": _OWN_MESSAGES[outcome]}
    error = (job or {}).get("error") or {}
    return {"code": error.get("code") or "unknown", "message": clean_text(error.get("message") or "no reason given")}


def failure_of_refusal(error: FramelaneError) -> dict[str, Any]:
    """The failure of a submission that was refused: by the API, or by ourselves before we sent it."""
    message = clean_text(str(error))
    if isinstance(error, ApiError):
        return {"code": code_of(error), "message": message, "status": error.status}
    if isinstance(error, JobFailed):
        return {"code": error.code, "message": message}
    code = "invalid_request" if isinstance(error, InvalidArguments) else "outcome_unknown"
    return {"code": code, "message": message, "field": getattr(error, "field", None)}


def error_of(record: Record) -> FramelaneError:
    """The typed error that a record ends in."""
    failure = record.failure or failure_of_job(record.outcome or "failed", record.job)
    message, job_id, attempts = failure["message"], record.job_id, record.history
    if "status" in failure:
        refused = error_for(failure["status"], failure["code"], message)
        return type(refused)(message, refused.status, refused.code, None, attempts)
    if "field" in failure and failure["code"] == "invalid_request":
        return InvalidArguments(message, failure["field"])
    if record.outcome == "cancelled":
        return JobCancelled(f"job {job_id} was cancelled", job_id, attempts)
    if record.outcome == "timed_out":
        return JobTimedOut(f"job {job_id} did not end before its deadline", job_id, attempts)
    if record.outcome == "failed" and job_id is not None:
        message = f"job {job_id} failed: {message}"
    return JobFailed(message, job_id, failure["code"], attempts)
