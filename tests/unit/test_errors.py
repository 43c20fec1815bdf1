"""Every error survives Celery's JSON result backend and pickle, and says one clean line."""

from __future__ import annotations

import inspect
import json
import pickle

import pytest
from celery import Celery

from framelane_celery import errors
from framelane_celery.errors import (
    CODE_TO_ERROR,
    ApiError,
    Conflict,
    DuplicateTask,
    EmailNotVerified,
    Forbidden,
    FramelaneError,
    InternalError,
    InvalidArguments,
    InvalidRequest,
    JobCancelled,
    JobError,
    JobFailed,
    JobTimedOut,
    NotFound,
    QuotaExceeded,
    RateLimited,
    RoomError,
    SettingsError,
    TransportError,
    Unauthorized,
    clean_text,
    code_of,
    error_for,
)

EVERY_CLASS = sorted(
    (cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FramelaneError)),
    key=lambda cls: cls.__name__,
)
ATTEMPTS = [
    {"attempt": 1, "job_id": "render_1", "outcome": "failed", "code": "internal", "at": 1.5, "accepted_at": 0.5},
    {"attempt": 2, "job_id": None, "outcome": "failed", "code": "invalid_source", "at": 9.0},
]
FIELDS: dict[type[FramelaneError], tuple[object, ...]] = {
    FramelaneError: (),
    SettingsError: (),
    RoomError: (),
    TransportError: (),
    InvalidArguments: ("elements[0].duration",),
    DuplicateTask: ("product-42-v3",),
    JobError: ("render_1",),
    JobFailed: ("render_1", "invalid_source", ATTEMPTS),
    JobCancelled: ("render_1", ATTEMPTS),
    JobTimedOut: ("task_1", ATTEMPTS),
}


def make_error(cls: type[FramelaneError]) -> FramelaneError:
    fields = (429, "rate_limited", 47.5, ATTEMPTS) if issubclass(cls, ApiError) else FIELDS[cls]
    return cls("It went wrong: ünlucky.", *fields)


@pytest.fixture(scope="module")
def backend():
    app = Celery("errors", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.result_serializer = "json"
    return app.backend


def test_the_list_of_classes_is_whole():
    assert len(EVERY_CLASS) == 26
    assert set(CODE_TO_ERROR.values()) <= set(EVERY_CLASS)


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_survives_the_json_result_backend(cls, backend):
    error = make_error(cls)
    stored = json.loads(json.dumps(backend.prepare_exception(error, serializer="json")))
    back = backend.exception_to_python(stored)
    assert type(back) is cls
    assert back.args == error.args
    assert vars(back) == vars(error)
    assert str(back) == "It went wrong: ünlucky."


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_survives_pickle(cls):
    error = make_error(cls)
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), back.args, vars(back)) == (cls, error.args, vars(error))


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_each_field_is_an_attribute_and_an_argument(cls):
    error = make_error(cls)
    names = [name for name in inspect.signature(cls).parameters if name != "fields"]
    assert error.args == tuple(getattr(error, name) for name in names)


WITH_ATTEMPTS = [cls for cls in EVERY_CLASS if hasattr(make_error(cls), "attempts")]


def test_every_end_of_a_task_knows_its_attempts():
    ends = {cls for cls in EVERY_CLASS if issubclass(cls, (ApiError, JobError))} - {JobError}
    assert set(WITH_ATTEMPTS) == ends


@pytest.mark.parametrize("cls", WITH_ATTEMPTS)
def test_attempts_survive_as_they_are(cls, backend):
    """A record's history is a tuple; JSON makes it a list, so the error does."""
    fields = make_error(cls).args[1:-1]
    error = cls("No.", *fields, tuple(ATTEMPTS))
    assert error.attempts == ATTEMPTS
    for back in (
        backend.exception_to_python(json.loads(json.dumps(backend.prepare_exception(error, serializer="json")))),
        pickle.loads(pickle.dumps(error)),
    ):
        assert (back.attempts, back.args) == (ATTEMPTS, error.args)
    assert cls("No.", *fields).attempts == []


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_a_repr_is_short_and_a_message_alone(cls):
    """Celery logs the repr of what a task raises: ten attempts are no matter for a log line."""
    error = make_error(cls)
    assert repr(error) == f"{cls.__name__}('It went wrong: ünlucky.')"
    assert str(error) == "It went wrong: ünlucky."


@pytest.mark.parametrize("job_id", [None, "task_1"])
def test_job_failed_without_a_job(job_id, backend):
    back = backend.exception_to_python(backend.prepare_exception(JobFailed("gone", job_id), serializer="json"))
    assert (back.job_id, back.code) == (job_id, None)


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        *((422, code, cls) for code, cls in CODE_TO_ERROR.items()),
        (429, "quota_exceeded", QuotaExceeded),
        (402, "quota_exceeded", QuotaExceeded),
        (402, "rate_limited", RateLimited),
        (402, None, QuotaExceeded),
        (429, None, RateLimited),
        (429, "a_new_code", RateLimited),
        (400, None, InvalidRequest),
        (422, "a_new_code", InvalidRequest),
        (401, None, Unauthorized),
        (403, None, Forbidden),
        (403, "email_not_verified", EmailNotVerified),
        (404, None, NotFound),
        (409, None, Conflict),
        (500, None, InternalError),
        (503, "a_new_code", InternalError),
        (599, None, InternalError),
        (503, "rate_limited", RateLimited),
        (418, None, ApiError),
    ],
)
def test_error_for_decides_by_code_first(status, code, cls):
    error = error_for(status, code, "No.", 3.0)
    assert type(error) is cls
    assert (str(error), error.status, error.code, error.retry_after_s) == ("No.", status, code, 3.0)


@pytest.mark.parametrize(
    ("status", "code", "routed_by"),
    [
        *((422, code, code) for code in CODE_TO_ERROR),
        (422, "a_new_code", "a_new_code"),
        # an answer without a code: a proxy's page, FastAPI's own
        (401, None, "unauthorized"),
        (402, None, "quota_exceeded"),
        (403, None, "forbidden"),
        (404, None, "not_found"),
        (409, None, "conflict"),
        (400, None, "invalid_request"),
        (422, "", "invalid_request"),
        (429, None, "rate_limited"),
        (500, None, "internal"),
        (503, None, "internal"),
        (418, None, "http_418"),
        (405, "", "http_405"),
    ],
)
def test_the_code_by_which_a_refusal_is_routed(status, code, routed_by):
    error = error_for(status, code, "No.")
    assert code_of(error) == routed_by
    again = error_for(status, routed_by, "No.")  # as a record keeps it, and `error_of` rebuilds it
    assert (type(again), code_of(again)) == (type(error), routed_by)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Source URL returned 404: https://x.io/a.mp4?X-Sig=abc&b=c.", "Source URL returned 404: https://x.io/a.mp4?…"),
        ("see https://x.io/a#token=1 now", "see https://x.io/a?… now"),
        ("redis://:hunter2@host/0 is away", "redis://…@host/0 is away"),
        ("two\n  lines\t", "two lines"),
        ("why? because", "why? because"),
        ("x" * 400, "x" * 299 + "…"),
        ("HTTPS://X.io/a.mp4?sig=1", "HTTPS://X.io/a.mp4?…"),
        ("'https://x.io/a?sig=1', \"https://x.io/b?sig=2\"", "'https://x.io/a?…', \"https://x.io/b?…\""),
        ("https://u:hunter2@x.io/a?sig=1", "https://…@x.io/a?…"),
    ],
)
def test_clean_text(text, clean):
    assert clean_text(text) == clean
