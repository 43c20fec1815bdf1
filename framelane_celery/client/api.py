"""The Framelane API, endpoint by endpoint; every call goes through one funnel, ``FramelaneClient._request``."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import requests

from framelane_celery.client.answers import code_and_message, error_body, job_of, json_of, parsed, retry_after_of
from framelane_celery.client.saving import CHUNK_BYTES, length_of, save
from framelane_celery.client.sending import NO_AUTH, Bearer, new_session, send
from framelane_celery.client.unlogged import signed_url
from framelane_celery.errors import (
    ApiError,
    InvalidRequest,
    NotFound,
    SettingsError,
    TransportError,
    clean_text,
    error_for,
)
from framelane_celery.models import Job, JobPage, JobRequest, Preview, RenderRequest, Usage
from framelane_celery.models.media import MediaRequest
from framelane_celery.models.request import canonical
from framelane_celery.settings import FramelaneSettings

Kind = Literal["render", "task"]

MAX_WAIT_S = 25
_WAIT_MARGIN_S = 10  # the API holds a long-poll for about 25 s; the vendor advises to allow 30 and more
_WANTS_IT_INSIDE = re.compile(r"\brender_request\b\W+(is |field )?(required|missing)", re.IGNORECASE)
_COLLECTIONS: Mapping[str, str] = {"render": "/v1/renders", "task": "/v1/tasks"}


class Submitted(NamedTuple):
    """The answer to a POST. A replay may show the job's first state, not its present one: read it again."""

    job: Job
    is_replay: bool


class FramelaneClient:
    """The Framelane API, for one thread. It keeps its connections open: close it, or use it as a context manager.

    A process that was forked gets a session of its own, so that two never share a connection.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = "https://api.framelane.io",
        *,
        connect_timeout_s: float = 5,
        read_timeout_s: float = 30,
    ) -> None:
        self._auth = Bearer(api_key)
        self.base_url = base_url.rstrip("/")
        self._connect_timeout_s, self._read_timeout_s = connect_timeout_s, read_timeout_s
        self._session, self._pid = new_session(self._auth), os.getpid()

    @classmethod
    def from_settings(cls, settings: FramelaneSettings) -> FramelaneClient:
        """Make a client of an app's settings. Raises: SettingsError, if they hold no key."""
        if settings.api_key is None:
            raise SettingsError("api_key: no key is set; set framelane['api_key'] or FRAMELANE_API_KEY")
        return cls(
            settings.api_key.get_secret_value(),
            settings.base_url,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
        )

    def __repr__(self) -> str:
        return f"<FramelaneClient {self.base_url}>"

    def __enter__(self) -> FramelaneClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._session.close()

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
        kind = "render" if path.startswith(_COLLECTIONS["render"]) else "task"
        return Submitted(job_of(answer, kind), is_replay=answer.status_code == 200)

    def create_render(self, request: RenderRequest, idempotency_key: str) -> Submitted:
        """Submit a composition; see `submit`."""
        return self._create(request, idempotency_key)

    def create_media_task(self, request: MediaRequest, idempotency_key: str) -> Submitted:
        """Submit a media task; see `submit`."""
        return self._create(request, idempotency_key)

    def _create(self, request: JobRequest, idempotency_key: str) -> Submitted:
        return self.submit(request.path, request.body({}), idempotency_key)

    # -- compositions that are only checked

    def preview(self, request: RenderRequest) -> Preview:
        """Ask whether the API would take a composition. No job is made and nothing is paid.

        Shape:  {"ok": bool, "violations": [{"code", "message", "severity", "path"}]}
        Raises: NotFound: this API has no such check (404, 405, 501). InvalidRequest: not ok either, refused before any
                violation was looked for. ApiError, RateLimited, TransportError.
        Resend: safe, so there is no idempotency key; it is sent once all the same.
        Source: POST /v1/preview "for an inline request", `dry_run: true` "validation only, free", site llms.txt.
                INFER: the body is the render request's own fields; if the API says that it wants them inside
                `render_request`, as the projects have it, they are sent so.
        """
        fields = request.wire({})
        try:
            return self._dry_run(fields)
        except InvalidRequest as error:
            if not _WANTS_IT_INSIDE.search(error.message):
                raise
        return self._dry_run({"render_request": fields})

    def _dry_run(self, request: Mapping[str, Any]) -> Preview:
        body, headers = canonical({**request, "dry_run": True}), {"Content-Type": "application/json"}
        try:
            return parsed(Preview, self._request("POST", "/v1/preview", body=body, headers=headers))
        except ApiError as error:
            if error.status not in (405, 501):
                raise
            raise NotFound(error.message, error.status, error.code, error.retry_after_s) from None

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
        answer = self._request(
            "GET",
            _job_path(kind, job_id),
            params={"wait": wait_s} if wait_s else {},
            read_timeout_s=max(self._read_timeout_s, wait_s + _WAIT_MARGIN_S) if wait_s else None,
        )
        return job_of(answer, kind)

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

        Shape:  {"data": [Job], "next_cursor": "…" | null, "has_more": false}
        Units:  type is a task_type, with underscores.
        Raises: ApiError, RateLimited, TransportError.
        Resend: safe.
        Source: GET /v1/tasks, docs.framelane.io/api-reference/tasks/list-tasks; GET /v1/renders is alike.
        """
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

        Raises: NotFound; Conflict (INFER: it has ended, or is past cancelling); ApiError, TransportError.
        Resend: safe.
        Source: DELETE /v1/renders/{id}, DELETE /v1/tasks/{id}; their answers are not documented.
        """
        answer = self._request("DELETE", _job_path(kind, job_id))
        try:
            return job_of(answer, kind)
        except TransportError:
            return None

    # -- artefacts

    def download_url(self, kind: Kind, job_id: str) -> str:
        """Ask for a fresh link to a job's artefact. It is signed and short-lived: use it now, store the job's id.

        Raises: NotFound, Conflict, ApiError (also where the API sends the file itself), TransportError.
        Resend: safe.
        Source: GET /v1/renders/{id}/download, GET /v1/tasks/{id}/download.
        """
        with self._request("GET", _job_path(kind, job_id) + "/download", stream=True) as answer:
            link = self._link_in(answer)
        if link is None:
            raise ApiError("the API sent the file itself, not a link to it: use download()", answer.status_code)
        return link

    def download(self, kind: Kind, job_id: str, target: str | os.PathLike[str] | IO[bytes], max_s: float = 3600) -> int:
        """Write a job's artefact to a path or a binary file, and return its size in bytes.

        A path is there only when the file is whole: it is written beside it first.

        Units:  max_s bounds the whole transfer, in seconds.
        Raises: NotFound, Conflict, ApiError, TransportError (storage refused us, or the transfer broke).
        Resend: safe for a path; a binary file may hold a first part.
        """
        with self._request("GET", _job_path(kind, job_id) + "/download", stream=True) as answer:
            link = self._link_in(answer)
            if link is None:
                return save(answer, target, max_s)
        with new_session(NO_AUTH) as storage:  # the key is not in it, so no redirect can carry it along
            timeout = (self._connect_timeout_s, self._read_timeout_s)
            with signed_url():
                sent = send(storage, "GET", link, "storage", timeout=timeout, stream=True, allow_redirects=True)
            with sent as answer:
                if answer.status_code != 200:
                    raise TransportError(f"storage answered {answer.status_code} {clean_text(answer.reason or '', 60)}")
                return save(answer, target, max_s)

    def _link_in(self, answer: requests.Response) -> str | None:
        """Find the link in the redirect, or in a small JSON object (INFER); None: the answer is the file."""
        link: object = answer.headers.get("Location") if answer.is_redirect else None
        is_json = answer.headers.get("Content-Type", "").partition(";")[0].strip() == "application/json"
        if link is None and is_json and (length_of(answer) or CHUNK_BYTES) < CHUNK_BYTES:
            body = json_of(answer)
            link = body.get("url") if isinstance(body, dict) else None
        url = urljoin(answer.url, link) if isinstance(link, str) else ""
        if urlsplit(url).scheme in ("http", "https"):
            return url
        if answer.is_redirect:
            raise ApiError("the API's link to the file is no web address", answer.status_code)
        return None

    # -- account

    def get_usage(self) -> Usage:
        """Read what the workspace has used in the current period, whose end resets the quota.

        Shape:  {"period_start", "period_end", "render_minutes", "task_count", "egress_bytes"}; see `Usage`
        Raises: ApiError, RateLimited, TransportError.
        Resend: safe.
        Source: GET /v1/workspace/usage, docs.framelane.io/api-reference/workspace/get-workspace-usage.
        """
        return parsed(Usage, self._request("GET", "/v1/workspace/usage"))

    # -- the funnel

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Send one call to the API. Any answer but a 2xx is an error, and so is a redirect but a download's."""
        if self._pid != os.getpid():
            self._session, self._pid = new_session(self._auth), os.getpid()
        answer = send(
            self._session,
            method,
            self.base_url + path,
            f"{method} {path}",
            params=params,
            data=body,
            headers=headers,
            timeout=(self._connect_timeout_s, read_timeout_s or self._read_timeout_s),
            stream=stream,
            allow_redirects=False,
        )
        if 200 <= answer.status_code < 300 or (stream and answer.is_redirect):
            return answer
        with answer:
            raise self._error_of(answer)

    def _error_of(self, answer: requests.Response) -> ApiError:
        """Read a refusal. Its message is short and clean, whatever the body is."""
        if answer.is_redirect:
            return ApiError("the API answered with a redirect: is base_url right?", answer.status_code)
        code, message = code_and_message(error_body(answer))
        message = clean_text(message.replace(self._auth.key, "…")) or f"HTTP {answer.status_code} without a message"
        retry_after_s = retry_after_of(answer.headers.get("Retry-After"), message, time.time())
        return error_for(answer.status_code, code, message, retry_after_s)


_of_this_thread = threading.local()
_MAX_SHARED = 8


def shared_client(settings: FramelaneSettings) -> FramelaneClient:
    """Return this process' and thread's client for these settings, made when first asked for. Nobody closes it.

    Raises: SettingsError, if the settings hold no key.
    """
    key = (os.getpid(), settings.api_key, settings.base_url, settings.connect_timeout_s, settings.read_timeout_s)
    clients: dict[tuple[object, ...], FramelaneClient] = _of_this_thread.__dict__.setdefault("clients", {})
    if key not in clients:
        if len(clients) >= _MAX_SHARED:
            clients.clear()
        clients[key] = FramelaneClient.from_settings(settings)
    return clients[key]


def _job_path(kind: Kind, job_id: str) -> str:
    if job_id in ("", ".", ".."):  # dots would be taken out of the path, and name the list
        raise ValueError("a job id is needed")
    return f"{_COLLECTIONS[kind]}/{quote(job_id, safe='')}"
