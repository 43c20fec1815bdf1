"""Artefacts of finished jobs: a fresh link, or the file itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import requests

from framelane_celery.client.answers import json_of
from framelane_celery.client.checking import length_of
from framelane_celery.client.fetching import CHUNK_BYTES, Fetch, Progress
from framelane_celery.client.jobs import Kind, job_path
from framelane_celery.client.resource import Calls
from framelane_celery.client.saving import Restartable, beside
from framelane_celery.errors import ApiError


class DownloadCalls(Calls):
    """Downloads."""

    def download_url(self, kind: Kind, job_id: str) -> str:
        """Ask for a fresh link to a job's artefact. It is signed and short-lived: use it now, store the job's id.

        Raises: NotFound, Conflict, ApiError (also where the API sends the file itself), TransportError.
        Resend: safe.
        Source: GET /v1/renders/{id}/download, GET /v1/tasks/{id}/download.
        """
        with self._request("GET", job_path(kind, job_id, "/download"), stream=True) as answer:
            link = _link_in(answer)
        if link is None:
            raise ApiError("the API sent the file itself, not a link to it: use download()", answer.status_code)
        return link

    def download(
        self,
        kind: Kind,
        job_id: str,
        target: str | os.PathLike[str] | IO[bytes],
        max_s: float = 3600,
        *,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write a job's artefact to a path or a binary file, and return its size in bytes.

        A path is there only when the file is whole and verified: it is written beside it first. A transfer that breaks
        off is resumed, or begun anew. Memory is the same for every size.

        Units:  max_s bounds the whole transfer, in seconds. size_bytes is what the job's output says, to be verified
                beside what storage announces. progress(done, total or None) is called for every 64 KiB.
        Raises: NotFound, Conflict, ApiError, TransportError (storage refused us, or the transfer broke).
        Resend: safe for a path; a binary file may hold a first part.
        """
        if isinstance(target, (str, os.PathLike)):
            with beside(Path(target)) as file:
                return self.download(kind, job_id, file, max_s, size_bytes=size_bytes, progress=progress)
        timeout = (self._connect_timeout_s, self._read_timeout_s)
        fetch = Fetch(Restartable(target), timeout=timeout, max_s=max_s, size_bytes=size_bytes, progress=progress)
        with self._request("GET", job_path(kind, job_id, "/download"), stream=True) as answer:
            link = _link_in(answer)
            if link is None:
                return fetch.from_answer(answer)
        return fetch.from_links(lambda: self.download_url(kind, job_id), link)


def _link_in(answer: requests.Response) -> str | None:
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
