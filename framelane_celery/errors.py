"""Every error we raise on purpose.

Celery's JSON result backend rebuilds an error as ``cls(*args)``, and pickle does the same. So every field goes to
``super().__init__`` by position, in the order of the signature, and is a JSON type. `str(error)` is the message alone.

No error carries a key, a signed URL or a request body: text that came from elsewhere goes through `clean_text` first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

JsonScalar = str | int | float | bool | None
Attempts = Sequence[Mapping[str, JsonScalar]]
"""What was tried: [{"attempt", "job_id", "outcome", "code", "at", "accepted_at"}], instants in epoch seconds."""

_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>]*", re.IGNORECASE)
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.IGNORECASE)


def clean_text(text: str, limit: int = 300) -> str:
    """Make foreign text fit for a message: one line, short, URLs without query, fragment or password.

    A signed URL is one whose query is a key, and the API quotes source URLs in its messages (framelane_api.md §11).
    """
    line = " ".join(text.split())
    line = _QUERY.sub(r"\1?…", _USERINFO.sub(r"\1…@", line))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


class FramelaneError(Exception):
    """The root of all errors of this package."""

    def __init__(self, message: str, *fields: JsonScalar | Attempts) -> None:
        super().__init__(message, *fields)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        """Short, for logs: the attempts are in the result."""
        return f"{type(self).__name__}({self.message!r})"


class SettingsError(FramelaneError):
    """A setting is missing, unknown or unusable; the message names it and says what to write instead."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class InvalidArguments(FramelaneError):
    """The arguments of a task, or the fields of a request, are surely wrong; `field` is the path of the first one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message, field)
        self.field = field


class DuplicateTask(FramelaneError):
    """The task id is taken: with other arguments, on another account, or outside the chord that is called."""

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message, task_id)
        self.task_id = task_id


class RoomError(FramelaneError):
    """The store of records is away, or refused us."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class TransportError(FramelaneError):
    """No usable answer came back: after a POST, whether the job was accepted is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ApiError(FramelaneError):
    """The API refused our call. `code` is what to branch on, and is None where the body had none.

    Units: retry_after_s is how long the server asks us to stay away, None where it does not say. `attempts` are those
    of the task that failed for it; none for a call of the client's own.
    """

    def __init__(
        self,
        message: str,
        status: int,
        code: str | None = None,
        retry_after_s: float | None = None,
        attempts: Attempts = (),
    ) -> None:
        super().__init__(message, status, code, retry_after_s, list(attempts))
        self.status, self.code, self.retry_after_s, self.attempts = status, code, retry_after_s, list(attempts)


class Unauthorized(ApiError):
    """401: the key is missing or invalid."""


class Forbidden(ApiError):
    """403: not permitted for this workspace."""


class EmailNotVerified(Forbidden):
    """403: the workspace's e-mail address is not verified yet."""


class NotFound(ApiError):
    """404: no such job, or no such endpoint."""


class Conflict(ApiError):
    """409: the idempotency key was used with another body."""


class InvalidRequest(ApiError):
    """422, or 400: the request did not pass the server's validation."""


class UnsupportedFeature(InvalidRequest):
    """422: the feature is not supported yet."""


class InvalidSource(InvalidRequest):
    """422: the source URL is invalid or cannot be read."""


class SourceNotFound(InvalidRequest):
    """422: the source URL answered 404."""


class SourceTooLarge(InvalidRequest):
    """422: the source is larger than the API takes (5 GiB)."""


class CodecUnsupported(InvalidRequest):
    """422: the engine does not handle the source's codec."""


class UnsupportedContentType(InvalidRequest):
    """422: the type of the upload is not allowed."""


class QuotaExceeded(ApiError):
    """429 or 402: the month's quota is spent; backing off does not help."""


class RateLimited(ApiError):
    """429: too many calls in the window; wait `retry_after_s`, or back off where it is None."""


class InternalError(ApiError):
    """5xx: something went wrong on the server's side."""


# One class per code of framelane_api.md §10.
CODE_TO_ERROR: Mapping[str, type[ApiError]] = MappingProxyType(
    {
        "unauthorized": Unauthorized,
        "forbidden": Forbidden,
        "email_not_verified": EmailNotVerified,
        "not_found": NotFound,
        "conflict": Conflict,
        "invalid_request": InvalidRequest,
        "unsupported_feature": UnsupportedFeature,
        "invalid_source": InvalidSource,
        "source_not_found": SourceNotFound,
        "source_too_large": SourceTooLarge,
        "codec_unsupported": CodecUnsupported,
        "unsupported_content_type": UnsupportedContentType,
        "quota_exceeded": QuotaExceeded,
        "rate_limited": RateLimited,
        "internal": InternalError,
    }
)

# For answers without a code we know. 402 is a spent quota only in the newer text (§19), but means nothing else.
_STATUS_TO_ERROR: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        400: InvalidRequest,
        401: Unauthorized,
        402: QuotaExceeded,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        422: InvalidRequest,
        429: RateLimited,
    }
)


def error_for(status: int, code: str | None, message: str, retry_after_s: float | None = None) -> ApiError:
    """Choose the class of an HTTP error: by its code, and by its status where the code says nothing to us."""
    by_status = InternalError if status >= 500 else _STATUS_TO_ERROR.get(status, ApiError)
    return CODE_TO_ERROR.get(code or "", by_status)(message, status, code, retry_after_s)


_CLASS_TO_CODE: Mapping[type[ApiError], str] = {kind: code for code, kind in CODE_TO_ERROR.items()}


def code_of(error: ApiError) -> str:
    """The code by which an HTTP error is routed: its own, else that of its class, else its status."""
    return error.code or _CLASS_TO_CODE.get(type(error)) or f"http_{error.status}"


class JobError(FramelaneError):
    """A job that was accepted did not complete. `job_id` is None where no job is known; `attempts` are all of them."""

    def __init__(self, message: str, job_id: str | None, *fields: JsonScalar | Attempts) -> None:
        super().__init__(message, job_id, *fields)
        self.job_id = job_id


class JobFailed(JobError):
    """The job ended `failed`, or was given up; `code` is the job's error code, or one of ours (design.md §4)."""

    def __init__(self, message: str, job_id: str | None, code: str | None = None, attempts: Attempts = ()) -> None:
        super().__init__(message, job_id, code, list(attempts))
        self.code, self.attempts = code, list(attempts)


class JobCancelled(JobError):
    """The job ended `cancelled`."""

    def __init__(self, message: str, job_id: str | None, attempts: Attempts = ()) -> None:
        super().__init__(message, job_id, list(attempts))
        self.attempts = list(attempts)


class JobTimedOut(JobError):
    """The job did not end before its deadline."""

    def __init__(self, message: str, job_id: str | None, attempts: Attempts = ()) -> None:
        super().__init__(message, job_id, list(attempts))
        self.attempts = list(attempts)
