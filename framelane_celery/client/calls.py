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
        "/v1/tasks/remove-background", "/v1/tasks/gaze-redirect", "/v1/tasks/super-resolution", "/v1/uploads",
        "/v1/imports", "/v1/workspace", "/v1/workspace/assets", "/v1/webhooks", "/v1/api-keys", "/v1/capabilities",
        "/v1/projects",
    }
)  # fmt: skip


_OF_ONE: Final = {
    "/v1/renders": ("", "download"), "/v1/tasks": ("", "download"), "/v1/imports": ("",), "/v1/api-keys": ("",),
    "/v1/webhooks": ("", "rotate-secret", "deliveries"), "/v1/projects": ("", "ops", "preview", "renders"),
}  # fmt: skip
"""What may follow the id of one thing in a collection."""


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
    """A path as a label, with {id} for one thing's; "other" for what is none of ours."""
    if path in _ENDPOINTS:
        return path
    parts = path.split("/")
    if len(parts) in (4, 5) and "".join(parts[4:]) in _OF_ONE.get("/".join(parts[:3]), ()):
        return "/".join([*parts[:3], "{id}", *parts[4:]])
    return "other"
