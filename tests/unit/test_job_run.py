"""A job's first run, driven without a worker: a real room, a real server, and what becomes of the idempotency key.

The run in a worker is attacked in tests/worker and tests/faults.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Ignore

from framelane_celery import records
from framelane_celery.errors import Unauthorized
from framelane_celery.records import Record
from framelane_celery.room import Room, move, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks.job_run import JobRun
from framelane_celery.testing import Fault, FramelaneServer
from framelane_celery.wakeups import call_of

COMPOSITION = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}
LOST = Fault("answer_lost", method="POST", times=1)


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(renders_per_minute=1, rate_window_s=1.0) as running:
        yield running


@pytest.fixture
def app(server: FramelaneServer, tmp_path: Path) -> Iterator[Celery]:
    with Celery("shop", set_as_current=False, broker="memory://", backend="cache+memory://") as app:
        url = f"sqlite:///{tmp_path}/room.sqlite"
        app.conf.framelane = {"api_key": server.api_key, "base_url": server.base_url, "room_url": url}
        yield app
        room_of(app, settings_of(app)).close()


@pytest.fixture
def room(app: Celery) -> Room:
    return room_of(app, settings_of(app))


def run(app: Celery, room: Room, task_id: str) -> Record:
    """Have the record's message run once, as a worker would; the record as it is then."""
    task = app.tasks["framelane.render"]
    if room.read(task_id)[0] is None:
        call = call_of(task, [COMPOSITION], {}, {}).to_text()
        room.create(Record(id=task_id, task=task.name, call=call, digest=""))
    move(room, task_id, lambda old, now: records.wake(old, now=now, resend_after_s=60))
    move(room, task_id, lambda old, now: records.release(old, now=now))
    there, _ = room.read(task_id)
    assert there is not None
    task.push_request(
        id=task_id, task=task.name, headers={"framelane": {"step": there.step}}, hostname="w", called_directly=False
    )
    try:
        with pytest.raises(Ignore):
            task(COMPOSITION)
    finally:
        task.pop_request()
    record, _ = room.read(task_id)
    assert record is not None
    return record


@pytest.fixture
def full(app: Celery, room: Room) -> None:
    """The minute's only render is taken."""
    assert run(app, room, "first").until == "job"


@pytest.mark.usefixtures("full")
def test_a_429_leaves_no_key_that_ages(app: Celery, room: Room) -> None:
    """Else what a long hold follows would be looked for, and end as ``outcome_unknown``."""
    record = run(app, room, str(uuid4()))
    assert (record.until, record.pauses, record.key) == ("instant", 1, 1)
    assert record.request is not None  # the same bytes again
    assert record.first_post_at is None


def test_an_unanswered_post_has_an_open_key(app: Celery, room: Room, server: FramelaneServer) -> None:
    server.faults.add(LOST)
    record = run(app, room, "task")
    assert (record.until, record.pauses) == ("instant", 1)
    assert record.first_post_at is not None


def test_a_429_after_an_unanswered_post_closes_nothing(app: Celery, room: Room, server: FramelaneServer) -> None:
    server.faults.add(Fault("reset", method="POST", times=1))  # perhaps it was carried out: nobody knows
    open_since = run(app, room, "task").first_post_at
    assert open_since is not None
    assert run(app, room, "other").until == "job"  # takes the minute's only render
    record = run(app, room, "task")
    assert (record.until, record.pauses, record.first_post_at) == ("instant", 2, open_since)


@pytest.mark.usefixtures("full")
def test_the_same_bytes_after_a_429_open_the_key_before_they_go_out(
    app: Celery, room: Room, server: FramelaneServer
) -> None:
    refused = run(app, room, "task")
    server.faults.add(Fault("reset", method="POST", times=1))
    until = time.monotonic() + 30
    while not room.slots_free("render", 120):  # the brake of the 429: a second or two
        assert time.monotonic() < until
        time.sleep(0.02)
    record = run(app, room, "task")
    assert record.request == refused.request
    assert record.first_post_at is not None


def begun(app: Celery, room: Room, *, ago_s: float) -> JobRun:
    """A run that began so long ago, by its clock."""
    task = app.tasks["framelane.render"]
    room.create(Record(id="begun", task=task.name, call="{}", digest=""))
    task.push_request(id="begun", task=task.name, called_directly=False)
    try:
        one = JobRun(task, task.request)
    finally:
        task.pop_request()
    taken = move(
        room, "begun", lambda old, now: records.begin(old, step=0, run_id=one.run_id, node="w", now=now, lease_s=60)
    )
    assert taken is not None
    one.record, one._clock_ahead_s = taken, room.read("begun")[1] - time.monotonic() + ago_s
    return one


@pytest.mark.parametrize(("ago_s", "is_asked"), [(0.0, False), (25.0, False), (35.0, True), (90.0, True)])
def test_before_the_tail_a_run_asks_for_its_lease_once_that_is_half_over(
    app: Celery, room: Room, ago_s: float, is_asked: bool
) -> None:
    """Before that nobody can have taken it over."""
    one = begun(app, room, ago_s=ago_s)
    before = one.record.version
    one.ask_lease()
    there, _ = room.read("begun")
    assert there is not None
    assert (there.version > before) is is_asked


def test_a_run_that_was_taken_over_sends_no_tail(app: Celery, room: Room) -> None:
    one = begun(app, room, ago_s=61.0)
    taken_over = move(room, "begun", lambda old, now: replace(old, run_id="another"))
    assert taken_over is not None
    with pytest.raises(Ignore):
        one.ask_lease()


def test_without_a_key_the_routes_decide_as_about_a_wrong_one(app: Celery, room: Room, server: FramelaneServer) -> None:
    """A key that was forgotten on one machine is the operator's mistake: nothing of the task may be gone."""
    app.conf.framelane = {**app.conf.framelane, "api_key": None}
    with pytest.raises(Unauthorized, match=r"api_key: no key is set; set framelane\['api_key'\] or FRAMELANE_API_KEY"):
        run(app, room, "task")
    record, _ = room.read("task")
    assert record is not None
    assert (record.failure or {})["code"] == "unauthorized"
    assert record.letter is not None
    assert server.ledger.counts()["jobs"] == 0
