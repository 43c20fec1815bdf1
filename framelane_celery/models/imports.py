"""Imports: a remote file that Framelane copies for itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from framelane_celery.models.answer import Answer, Instant, Text, text_of
from framelane_celery.models.job import Job, JobErrorInfo, error_object
from framelane_celery.models.fields import Url
from framelane_celery.models.request import JobRequest


class ImportRequest(JobRequest):
    """Copy a file: a public URL, a Dropbox or Google Drive share link, a YouTube page.

    An import has no metadata and no webhook of its own: the docs name none (framelane_api.md §14).

    Source: docs.framelane.io/introduction/imports.
    """

    kind: ClassVar[Literal["render", "task", "import"]] = "import"
    path: ClassVar[str] = "/v1/imports"

    url: Url
    filename: Annotated[str, Field(min_length=1)] | None = None


_ENDS = {"ready": "completed", "completed": "completed", "failed": "failed", "error": "failed"}
_GOES_ON = ("processing", "queued", "pending")


class Import(Answer):
    """One import. `source_url` is what elements and media tasks take, once it is `ready`.

    Shape:  {"id": "import_…", "status": "processing" | "ready", "source_url": null | "https://…", "error": null}
    Source: docs.framelane.io/introduction/imports. How a failed one looks is on no page: `failed`, or any other word
            beside an `error`, is read as one (INFER).
    """

    id: Annotated[str, Field(min_length=1)]
    status: Annotated[str, BeforeValidator(lambda value: text_of(value) or "processing")] = "processing"
    source_url: Text = Field(default=None, repr=False)
    error: Annotated[JobErrorInfo | None, BeforeValidator(error_object)] = None
    created_at: Instant = None

    def as_job(self) -> Job:
        """The import as a job, so that a task waits for it like for any other: its output is the copy."""
        status = _ENDS.get(self.status, self.status)
        if self.error is not None and status not in ("completed", *_GOES_ON):
            status = "failed"
        output = {"url": self.source_url} if self.source_url else None
        fields = {"id": self.id, "kind": "import", "status": status, "created_at": self.created_at}
        return Job.model_validate({**fields, "output": output, "error": self.error})
