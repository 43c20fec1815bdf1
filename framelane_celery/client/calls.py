"""Counts the calls to the API: by method, endpoint and status, never by job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from framelane_celery.counting import count, timed

NO_ANSWER: Final = "none"

_ENDPOINTS: Final = frozenset(
    {
        "/v1/renders", "/v1/tasks", "/v1/preview", "/v1/workspace/usage", "/v1/tasks/transcribe",
        "/v1/tasks/remove-background", "/v1/tasks/gaze-redirect", "/v1/tasks/super-resolution",
    }
)  # fmt: skip


class Call:
    """One call. ``status``: the answer's, as text."""

    status = NO_ANSWER


@contextmanager
def counted(method: str, path: str) -> Iterator[Call]:
    """Count a call and time it, answered or not."""
    call, began_at = Call(), time.monotonic()
    try:
        yield call
    finally:
        endpoint = endpoint_of(path)
        count("http_requests", method, endpoint, call.status)
        timed("http_request_seconds", method, endpoint, seconds=time.monotonic() - began_at)


def endpoint_of(path: str) -> str:
    """A path as a label, with {id} for the job's; "other" for what is none of ours."""
    if path in _ENDPOINTS:
        return path
    parts = path.split("/")
    if len(parts) in (4, 5) and "/".join(parts[:3]) in ("/v1/renders", "/v1/tasks") and parts[4:] in ([], ["download"]):
        return "/".join([*parts[:3], "{id}", *parts[4:]])
    return "other"
