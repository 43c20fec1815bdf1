"""The jobs that were submitted, as the tests of a project want to see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from framelane_celery.testing.jobs import StoredJob

if TYPE_CHECKING:
    from framelane_celery.models import JobRequest

_OURS = ("celery_task", "celery_task_id")  # in every job's metadata, beside the user's own pairs


@dataclass(frozen=True)
class SubmittedJob:
    """One job that was submitted, and would have been paid for.

    `operation` is "render" or the media task's name, such as "transcribe"; `task` and `task_id` say which Celery task
    asked for it. `body` is the request as it was asked for.
    """

    id: str
    operation: str
    task: str | None
    task_id: str | None
    status: str
    body: Mapping[str, Any]

    @property
    def request(self) -> JobRequest:
        """The body as the model that a task would have returned: `RenderRequest`, `TranscribeRequest`, …"""
        from framelane_celery import models  # only here: the server itself does not know the client's models

        model = _model_of(self.operation)
        known = {name: value for name, value in self.body.items() if name in model.model_fields}
        extra = {name: value for name, value in self.body.items() if name not in known}
        return models.parse_request(model, {**known, "extra": extra} if extra else known)

    def __str__(self) -> str:
        return f"{self.operation} {self.id}, {self.status}: for {self.task} {self.task_id}"


def submitted(job: StoredJob, status: str) -> SubmittedJob:
    """Show one job of the server's."""
    submission, metadata = job.submission, dict(job.submission.metadata)
    task, task_id = (metadata.pop(name, None) for name in _OURS)
    body = {name: value for name, value in submission.body.items() if name != "metadata"}
    if metadata:
        body["metadata"] = metadata
    return SubmittedJob(job.id, submission.task_type or submission.kind, task, task_id, status, body)


def listed(jobs: Iterable[SubmittedJob]) -> str:
    """Jobs for an error: one a line."""
    lines = [f"  {job}" for job in jobs]
    return "\n".join(lines) or "  nothing"


def _model_of(operation: str) -> type[JobRequest]:
    from framelane_celery import models

    media = {model.task_type: model for model in models.MediaRequest.__subclasses__()}
    return media.get(operation, models.RenderRequest)
