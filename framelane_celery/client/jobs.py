"""Renders and media tasks: submitted, read, listed, cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from framelane_celery.client.answers import job_of, parsed
from framelane_celery.client.resource import Calls, item_path
from framelane_celery.errors import TransportError, UnsupportedFeature
from framelane_celery.models import Job, JobPage, JobRequest, RenderRequest
from framelane_celery.models.media import MediaRequest

Kind = Literal["render", "task", "import"]

MAX_WAIT_S = 25
_WAIT_MARGIN_S = 10  # the API holds a long-poll for about 25 s; the vendor advises to allow 30 and more
_COLLECTIONS: Mapping[str, str] = {"render": "/v1/renders", "task": "/v1/tasks", "import": "/v1/imports"}


class Submitted(NamedTuple):
    """The answer to a POST. A replay may show the job's first state, not its present one: read it again."""

    job: Job
    is_replay: bool


class JobCalls(Calls):
    """Jobs."""

    # -- jobs that are made

    def submit(self, path: str, body: bytes, idempotency_key: str) -> Submitted:
        """Send one job-creating POST, once, with exactly these bytes.

        Shape:  202 {"id": "render_…", "status": "queued"} is a new job, 200 the replay of an earlier one.
        Raises: ApiError (Conflict: the key was used with other bytes), RateLimited, QuotaExceeded, TransportError.
        Resend: after a TransportError or a 5xx the job may exist: same key, same bytes, within 24 h.
        Source: POST /v1/renders, POST /v1/tasks/*; framelane_api.md §9.
        """
        if not (idempotency_key and idempotency_key.isascii() and idempotency_key.isprintable()):
            raise ValueError("the idempotency key must be printable ASCII")
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
        answer = self._request("POST", path, body=body, headers=headers)
        kind = next((kind for kind, opening in _COLLECTIONS.items() if path.startswith(opening)), "task")
        return Submitted(job_of(answer, kind), is_replay=answer.status_code == 200)

    def create_render(self, request: RenderRequest, idempotency_key: str) -> Submitted:
        """Submit a composition; see `submit`."""
        return self._create(request, idempotency_key)

    def create_media_task(self, request: MediaRequest, idempotency_key: str) -> Submitted:
        """Submit a media task; see `submit`."""
        return self._create(request, idempotency_key)

    def _create(self, request: JobRequest, idempotency_key: str) -> Submitted:
        return self.submit(request.path, request.body({}), idempotency_key)

    # -- jobs that are read

    def get_job(self, kind: Kind, job_id: str, wait_s: int = 0) -> Job:
        """Read one job, holding the request open until it ends or wait_s passes.

        Shape:  {"id": "render_…", "status": "processing", "output": null | {"url": …}}
        Units:  wait_s is whole seconds, 0 to 25. An API that ignores it answers at once.
        Raises: NotFound, RateLimited, ApiError, TransportError.
        Resend: safe; reading changes nothing.
        Source: GET /v1/renders/{id}, GET /v1/tasks/{id}; `?wait` in the vendor's llms.txt.
        """
        if not 0 <= wait_s <= MAX_WAIT_S:
            raise ValueError(f"wait_s must be 0 to {MAX_WAIT_S}")
        if kind == "import" and wait_s:
            return self._watch_import(job_id, wait_s)
        answer = self._request(
            "GET",
            job_path(kind, job_id),
            params={"wait": wait_s} if wait_s else {},
            read_timeout_s=max(self._read_timeout_s, wait_s + _WAIT_MARGIN_S) if wait_s else None,
        )
        return job_of(answer, kind)

    def _watch_import(self, import_id: str, wait_s: int) -> Job:
        """The API holds no read of an import (framelane_api.md §14), so this thread does: a few reads, with pauses."""
        give_up_at = time.monotonic() + wait_s
        while True:
            job = self.get_job("import", import_id)
            left_s = give_up_at - time.monotonic()
            if job.is_terminal or left_s <= 0:
                return job
            time.sleep(min(left_s, max(0.5, wait_s / 8)))

    def get_render(self, render_id: str, *, wait_s: int = 0) -> Job:
        """Read one render; see `get_job`."""
        return self.get_job("render", render_id, wait_s)

    def get_media_task(self, task_id: str, *, wait_s: int = 0) -> Job:
        """Read one media task; see `get_job`."""
        return self.get_job("task", task_id, wait_s)

    def list_jobs(
        self,
        kind: Kind,
        *,
        status: str | None = None,
        type: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> JobPage:
        """Read one page of the renders, or of the media tasks. An API may ignore the filters: look at the jobs.

        Of imports it has no list, so that page is empty.

        Shape:  {"data": [Job], "next_cursor": "…" | null, "has_more": false}
        Units:  type is a task_type, with underscores.
        Raises: ApiError, RateLimited, TransportError.
        Resend: safe.
        Source: GET /v1/tasks, docs.framelane.io/api-reference/tasks/list-tasks; GET /v1/renders is alike.
        """
        if kind == "import":
            return JobPage()
        filters = {"status": status, "type": type, "cursor": cursor, "limit": limit}
        params = {name: value for name, value in filters.items() if value is not None}
        answer = self._request("GET", _COLLECTIONS[kind], params=params)
        page = parsed(JobPage, answer)
        jobs = [job if job.kind else job.model_copy(update={"kind": kind}) for job in page.data]
        return page.model_copy(update={"data": jobs})

    def iter_jobs(
        self, kind: Kind, *, status: str | None = None, type: str | None = None, limit: int | None = None
    ) -> Iterator[Job]:
        """Read all pages, one at a time; `limit` is the size of a page. See `list_jobs`."""
        cursor, seen = None, set()
        while True:
            page = self.list_jobs(kind, status=status, type=type, cursor=cursor, limit=limit)
            yield from page.data
            cursor = page.next_cursor
            if page.is_last or not page.data or cursor in seen:  # an API that ignores the cursor must not loop us
                return
            seen.add(cursor)

    def cancel_job(self, kind: Kind, job_id: str) -> Job | None:
        """Ask for a job to be cancelled; None where the answer has no job in it.

        Raises: UnsupportedFeature for an import; NotFound; Conflict (INFER: it has ended, or is past cancelling);
                ApiError, TransportError.
        Resend: safe.
        Source: DELETE /v1/renders/{id}, DELETE /v1/tasks/{id}; their answers are not documented.
        """
        if kind == "import":
            raise UnsupportedFeature("an import cannot be cancelled: the API has no call for it", 405)
        answer = self._request("DELETE", job_path(kind, job_id))
        try:
            return job_of(answer, kind)
        except TransportError:
            return None


def job_path(kind: Kind, job_id: str, rest: str = "") -> str:
    return item_path(_COLLECTIONS[kind], job_id, rest)
