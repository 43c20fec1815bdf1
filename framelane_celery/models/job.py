"""What the API answers about jobs. Lenient, because a new status or field must not stop a worker.

Statuses, kinds and stages are open strings; what is missing, null or of an unknown shape becomes None (or the
documented default), and unknown fields are kept. framelane_api.md §2 has the Job, §19 the contradictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from framelane_celery.models.answer import Answer, Instant, Number, Text, Whole, object_of, text_of, whole_of

_COMPLETED = ("completed", "done")  # `done` is a legacy status, which the vendor's console still tolerates
_TERMINAL = (*_COMPLETED, "failed", "cancelled")


def _percent(value: object) -> int:
    return min(100, max(0, whole_of(value) or 0))


def error_object(value: object) -> object:
    return {"message": value} if isinstance(value, str) and value else object_of(value)


def _pairs(value: object) -> dict[str, str]:
    """Read metadata; what is no string there, which the docs rule out, is kept as its JSON."""
    if not isinstance(value, Mapping):
        return {}
    return {str(name): item if isinstance(item, str) else json.dumps(item) for name, item in value.items()}


class JobOutput(Answer):
    """Where the artefact is. `url` is signed and short-lived: not in the repr, and not to be stored.

    Units:  width and height in pixels, duration in seconds.
    """

    url: Text = Field(default=None, repr=False)
    width: Whole = None
    height: Whole = None
    duration: Number = None
    size_bytes: Whole = None


class JobErrorInfo(Answer):
    """Why a job failed."""

    code: Text = None
    message: Annotated[str, BeforeValidator(lambda value: text_of(value) or "")] = ""


class Job(Answer):
    """One render or one media task on Framelane's side.

    Shape:  {"id": "render_…", "kind": "render", "status": "processing", "output": null | {"url": …}}; a POST may
            answer {"id", "status"} only.
    Source: docs.framelane.io/api-reference/tasks/get-a-task, tests/samples/get_a_task.json.
    """

    id: Annotated[str, Field(min_length=1)]
    kind: Text = None
    workspace_id: Text = None
    status: Annotated[str, BeforeValidator(lambda value: text_of(value) or "queued")] = "queued"
    created_at: Instant = None
    updated_at: Instant = None
    task_type: Text = None
    progress_percent: Annotated[int, BeforeValidator(_percent)] = 0
    progress_stage: Text = None
    output: Annotated[JobOutput | None, BeforeValidator(object_of)] = None
    error: Annotated[JobErrorInfo | None, BeforeValidator(error_object)] = None
    metadata: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(default_factory=dict)
    completed_at: Instant = None
    framelane_account: Text = Field(default=None, exclude_if=lambda value: value is None)
    """Ours, not the API's: the account whose key knows the job, in what a task returns. None: the default one."""

    @classmethod
    def parse(cls, data: object, *, kind: str | None = None) -> Job:
        """Read a job; `kind` fills in for a body that has none.

        Raises: pydantic.ValidationError, if it is not a JSON object with an id.
        """
        job = cls.model_validate(data)
        return job.model_copy(update={"kind": kind}) if job.kind is None and kind is not None else job

    @property
    def is_terminal(self) -> bool:
        return self.status in _TERMINAL

    @property
    def is_completed(self) -> bool:
        return self.status in _COMPLETED

    @property
    def is_failed(self) -> bool:
        return self.status == "failed"

    @property
    def is_cancelled(self) -> bool:
        return self.status == "cancelled"

    def to_json(self) -> dict[str, Any]:
        """Write the job as the JSON object that a Celery task returns; `Job.model_validate` reads it again."""
        return self.model_dump(mode="json")


class JobPage(Answer):
    """One page of a list of jobs. An item that is no job is left out: one bad record never stops a sweep.

    Shape:  {"data": [Job], "next_cursor": "…" | null, "has_more": false}, or a bare list.
    """

    data: list[Job] = Field(default_factory=list)
    next_cursor: Text = None
    has_more: Annotated[bool, BeforeValidator(lambda value: value is True)] = False

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: object) -> object:
        return {"data": value} if isinstance(value, list) else value

    @field_validator("data", mode="before")
    @classmethod
    def _jobs_only(cls, value: object) -> object:
        items = value if isinstance(value, list) else []
        return [item for item in items if isinstance(item, Job) or (isinstance(item, Mapping) and _has_id(item))]

    @property
    def is_last(self) -> bool:
        """Whether the list ends here: no cursor, or `has_more` says so (it may be left out: its default is false)."""
        return not self.next_cursor or ("has_more" in self.model_fields_set and not self.has_more)


def _has_id(item: Mapping[str, object]) -> bool:
    return isinstance(item.get("id"), str) and bool(item["id"])
