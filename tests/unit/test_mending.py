"""A late PROGRESS over a task's end: what is stored again, and when. No worker; a room of SQLite, results in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.exceptions import Ignore

from framelane_celery import FramelaneTask, GuardedTask, wakeups
from framelane_celery.errors import TransportError
from framelane_celery.models import Job
from framelane_celery.monitoring import PROGRESS
from framelane_celery.records import Record
from framelane_celery.room import Room, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import mending

JOB = Job.model_validate({"id": "render_1", "kind": "render", "status": "completed"})
FAILURE = {"code": "internal", "message": "oops"}


class Counting(FramelaneTask):
    abstract = True

    def completed(self, job: Job, factor: int = 1) -> Any:
        if factor == 0:
            raise ZeroDivisionError("no factor")
        return {"job": job.id, "factor": factor}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    with Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.conf.framelane = {"room_url": f"sqlite:///{tmp_path}/room.sqlite"}
        app.task(base=Counting, name="count")(_count)
        app.task(base=GuardedTask, name="plain")(_plain)
        yield app


def _count(factor: int = 1) -> None: ...


def _plain() -> None: ...


@pytest.fixture
def room(app: Celery) -> Iterator[Room]:
    room = room_of(app, settings_of(app))
    yield room
    room.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The mends that were asked for."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(wakeups, "ask_mend", lambda app, task_id, call, **options: found.append(options))
    return found


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    api = SimpleNamespace(error=None)

    def get_job(kind: str, job_id: str) -> Job:
        if api.error is not None:
            raise api.error
        return JOB

    monkeypatch.setattr("framelane_celery.client.shared_client", lambda settings: SimpleNamespace(get_job=get_job))
    return api


def mend(app: Celery, name: str = "count", *args: Any, tries: int = 1) -> Any:
    """Let a mend run; the result as it is then."""
    task = app.tasks[name]
    request = Context(id="t", task=name, args=args, kwargs={}, framelane={"step": -1, "mend": tries})
    with pytest.raises(Ignore):
        mending.mend(task, request, args, {})
    return app.AsyncResult("t")


def put(
    app: Celery, room: Room, until: Any = "done", state: str = PROGRESS, task: str = "count", **fields: Any
) -> None:
    room.create(Record(id="t", task=task, call="", digest="d", until=until, **fields))
    app.AsyncResult("t").forget()  # results in memory are the process's
    failed = state in states.PROPAGATE_STATES
    app.backend.store_result("t", ValueError("its own") if failed else {"percent": 3}, state)


def test_a_completed_job_is_read_and_its_result_stored_again(app: Celery, room: Room, api: Any, asked: Any) -> None:
    put(app, room, outcome="completed", job_id="render_1", job_kind="render")
    result = mend(app, "count", 3)
    assert (result.state, result.result) == (states.SUCCESS, {"job": "render_1", "factor": 3})
    assert asked == []


@pytest.mark.parametrize(
    ("fields", "args", "state", "error"),
    [
        ({"outcome": "failed", "failure": FAILURE, "job_id": "render_1"}, (), states.FAILURE, "JobFailed"),
        ({"outcome": "completed", "job_id": "render_1"}, (0,), states.FAILURE, "ZeroDivisionError"),
        ({"until": "dead", "outcome": "failed", "failure": FAILURE}, (), states.FAILURE, "JobFailed"),
        ({"ending": "revoked"}, (), states.REVOKED, "TaskRevokedError"),
    ],
)
def test_what_did_not_succeed_ends_as_it_did(
    app: Celery, room: Room, api: Any, asked: Any, fields: dict[str, Any], args: Any, state: str, error: str
) -> None:
    put(app, room, **fields)
    result = mend(app, "count", *args)
    assert (result.state, type(result.result).__name__) == (state, error)


@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE, states.REVOKED])
def test_an_end_that_is_there_is_left_alone(app: Celery, room: Room, api: Any, asked: Any, state: str) -> None:
    put(app, room, state=state, outcome="completed", job_id="render_1")
    api.error = AssertionError("nothing is read")
    assert mend(app).state == state
    assert asked == []


@pytest.mark.parametrize("until", ["start", "slot", "job", "instant", "release"])
def test_what_waits_will_be_ended_by_another_run(app: Celery, room: Room, api: Any, asked: Any, until: str) -> None:
    put(app, room, until=until, due_at=1.0)
    assert mend(app).state == PROGRESS
    assert asked == []


def test_while_it_runs_and_while_the_api_is_away_it_is_tried_again_but_not_for_ever(
    app: Celery, room: Room, api: Any, asked: Any
) -> None:
    put(app, room, until="running", due_at=1.0)
    mend(app, tries=1)
    mend(app, tries=mending.TRIES_MAX)
    assert asked == [{"tries": 1, "countdown": settings_of(app).lease_s / 3}]


def test_an_api_that_is_away_is_no_failure_of_the_task(app: Celery, room: Room, api: Any, asked: Any) -> None:
    put(app, room, outcome="completed", job_id="render_1")
    api.error = TransportError("no answer")
    assert mend(app, tries=2).state == PROGRESS
    assert [one["tries"] for one in asked] == [2]


def test_a_plain_task_s_result_is_known_to_its_run_alone(
    app: Celery, room: Room, api: Any, asked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    put(app, room, task="plain")
    assert mend(app, "plain").state == PROGRESS
    assert "a late PROGRESS covers its end, which only its run knew" in caplog.text


def test_a_mend_is_no_wake_up(app: Celery) -> None:
    """It fits no step, so that a version which knows no mends drops it."""
    request = Context(id="t", framelane={"step": -1, "mend": 1})
    assert (wakeups.step_of(request), wakeups.mends_of(request)) == (-1, 1)
    assert wakeups.mends_of(Context(id="t", framelane={"step": 0})) == 0
    assert wakeups.mends_of(Context(id="t")) == 0
