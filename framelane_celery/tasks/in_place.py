"""Eager mode, ``.apply()`` and direct calls: submit, and look to the end in place.

There is no record and no watcher here, so nothing survives the process. It is for tests and shells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import ValidationError

from framelane_celery.client import FramelaneClient, shared_client
from framelane_celery.errors import ApiError, InvalidArguments, JobError, JobTimedOut, SettingsError, TransportError
from framelane_celery.models import Job, invalid_arguments
from framelane_celery.records import JobKind, Outcome, Record
from framelane_celery.settings import settings_of
from framelane_celery.tasks.choice import chosen_by_message
from framelane_celery.tasks.gathered import failure_value, is_marked
from framelane_celery.tasks.jobs import error_of, job_metadata, owned, request_model

if TYPE_CHECKING:
    from framelane_celery.settings import FramelaneSettings
    from framelane_celery.tasks.task import FramelaneTask

LIVE_HOST = "api.framelane.io"
WAIT_S = 25


def run_in_place(task: FramelaneTask, body: Callable[[], Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Submit what the body returns and wait for the job. Where it is gathered, an error is returned as a value.

    Raises: SettingsError for the live host (a test must not pay), or an unknown account; ApiError, TransportError,
            JobError.
    """
    account = chosen_by_message(task, task.request, args, kwargs)
    settings = settings_of(task.app, needs_room=False).of(account)
    _refuse_live(settings, task.name)
    try:
        return _run(settings, account, task, body, args, kwargs)
    except (ApiError, InvalidArguments, JobError, TransportError, ValidationError) as error:
        if not is_marked(task.request):
            raise
        told = invalid_arguments(error) if isinstance(error, ValidationError) else error
        return failure_value(task.request, told)


def _run(
    settings: FramelaneSettings,
    account: str,
    task: FramelaneTask,
    body: Callable[[], Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    task_id = task.request.id or str(uuid4())
    model = request_model(task.name, body())
    client = shared_client(settings)
    key = Record(id=task_id, task=task.name, call="", digest="").idempotency_key(settings.namespace or "")
    job = client.submit(model.path, model.body(metadata=job_metadata(task.name, task_id)), key).job
    job = _look_to_the_end(client, model.kind, job, task.deadline_s or settings.deadline_s)
    if job.is_completed:
        return task.completed(owned(job, account), *args, **kwargs)
    outcome: Outcome = "cancelled" if job.is_cancelled else "failed"
    raise error_of(
        Record(id=task_id, task=task.name, call="", digest="", outcome=outcome, job_id=job.id, job=job.to_json())
    )


def _refuse_live(settings: FramelaneSettings, name: str) -> None:
    if urlsplit(settings.base_url).hostname == LIVE_HOST and not settings.allow_live_eager:
        raise SettingsError(
            f"{name}: an eager or direct call would pay for a job at {LIVE_HOST}. Set framelane['base_url'] to a local "
            "server (framelane-celery serve), or framelane['allow_live_eager'] = True if you mean it"
        )


def _look_to_the_end(client: FramelaneClient, kind: JobKind, job: Job, deadline_s: float) -> Job:
    give_up_at = time.monotonic() + deadline_s
    while not job.is_terminal:
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            raise JobTimedOut(f"job {job.id} did not end before its deadline", job.id)
        asked_at = time.monotonic()
        job = client.get_job(kind, job.id, wait_s=max(1, min(WAIT_S, int(left_s))))
        if not job.is_terminal and time.monotonic() - asked_at < 0.5:  # `?wait` is ignored: pace ourselves
            time.sleep(min(0.5, max(0.0, left_s)))
    return job
