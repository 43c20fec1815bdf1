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
    error_for,
)

EVERY_CLASS = sorted(
    (cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FramelaneError)),
    key=lambda cls: cls.__name__,
)
FIELDS: dict[type[FramelaneError], tuple[object, ...]] = {
    FramelaneError: (),
    SettingsError: (),
    RoomError: (),
    TransportError: (),
    InvalidArguments: ("elements[0].duration",),
    DuplicateTask: ("product-42-v3",),
    JobError: ("render_1",),
    JobFailed: ("render_1", "invalid_source"),
    JobCancelled: ("render_1",),
    JobTimedOut: ("task_1",),
}


def make_error(cls: type[FramelaneError]) -> FramelaneError:
    fields = (429, "rate_limited", 47.5) if issubclass(cls, ApiError) else FIELDS[cls]
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
    ("text", "clean"),
    [
        ("Source URL returned 404: https://x.io/a.mp4?X-Sig=abc&b=c.", "Source URL returned 404: https://x.io/a.mp4?…"),
        ("see https://x.io/a#token=1 now", "see https://x.io/a?… now"),
        ("redis://:hunter2@host/0 is away", "redis://…@host/0 is away"),
        ("two\n  lines\t", "two lines"),
        ("why? because", "why? because"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_clean_text(text, clean):
    assert clean_text(text) == clean
