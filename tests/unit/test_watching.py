"""Parts of the watcher with a real room and no worker: the queue of slots, stale looks, whose results live on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from framelane_celery import wakeups
from framelane_celery.errors import NotFound, TransportError
from framelane_celery.models import Job, JobPage, Usage
from framelane_celery.records import Record
from framelane_celery.room import Room, move, open_room
from framelane_celery.watching import search
from framelane_celery.watching import slots as slot_queue
from framelane_celery.watching.holds import Holds
from framelane_celery.watching.keeper import Keeper
from framelane_celery.watching.looker import Seen
from framelane_celery.watching.plan import Plan
from framelane_celery.watching.scribe import Scribe, groups_of
from framelane_celery.watching.slots import AHEAD, SlotQueue
from framelane_celery.watching.watcher import Watcher

COMPOSITION = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    with Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        app.conf.framelane = {"room_url": f"sqlite:///{tmp_path}/room.sqlite"}
        yield app


class LeadingWatcher:
    """What the parts need of a watcher that leads: it moves records, and notes what it would publish."""

    def __init__(self, app: Celery, room: Room) -> None:
        from framelane_celery.settings import settings_of

        self.app, self.room, self.settings, self.token = app, room, settings_of(app), 1
        self.published: list[str] = []

    def move(self, task_id: str, transition: Any, known: Record | None = None) -> Record | None:
        return move(self.room, task_id, transition, known=(known, time.time()) if known else None)

    def publish(self, record: Record) -> None:
        self.published.append(record.id)

    def now(self) -> float:
        return time.time()

    def announce(self, *told: Any) -> None:
        pass

    def set_clock(self, now: float) -> None:
        self.clock_set_to = now


@pytest.fixture
def watcher(app: Celery, tmp_path: Path) -> Iterator[LeadingWatcher]:
    room = open_room(f"sqlite:///{tmp_path}/room.sqlite", "shop")
    yield LeadingWatcher(app, room)
    room.close()


def call_of(app: Celery, **options: Any) -> str:
    return wakeups.call_of(app.tasks["framelane.render"], [COMPOSITION], {}, options).to_text()


def put(watcher: LeadingWatcher, task_id: str, **fields: Any) -> Record:
    record = Record(id=task_id, task="framelane.render", call=call_of(watcher.app), digest="d", **fields)
    assert watcher.room.create(record) is None
    return record


def test_those_whose_workers_are_gone_do_not_stop_the_queue(
    watcher: LeadingWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(AHEAD):
        put(watcher, f"gone-{n}", until="slot", due_at=1.0 + n, queued_at=1.0 + n, job_kind="render")
    put(watcher, "web", until="slot", due_at=100.0, queued_at=100.0, job_kind="render")
    queue = SlotQueue(watcher, "render", 120)  # type: ignore[arg-type]
    queue.let_in()
    queue.let_in()
    assert len(watcher.published) == AHEAD  # a little ahead of the pool, and no more
    later = time.monotonic() + watcher.settings.resend_after_s + 1
    monkeypatch.setattr(slot_queue.time, "monotonic", lambda: later)
    queue.let_in()
    assert watcher.published[-1] == "web"


@pytest.mark.parametrize("status", ["failed", "completed"])
def test_a_stale_look_decides_nothing_about_the_next_attempt(watcher: LeadingWatcher, status: str) -> None:
    job = {"id": "render_1", "kind": "render", "status": status, "error": {"code": "internal", "message": "…"}}
    looked_at = put(watcher, "task", until="job", step=5, due_at=1.0, job_id="render_1", job_kind="render")
    now = replace(looked_at, step=9, attempt=2, key=2, job_id="render_2")
    assert watcher.room.save(looked_at, now) == "saved"
    stored, _ = watcher.room.read("task")
    assert Scribe(watcher).act_on(Seen("task", "render_1", Job.parse(job))) == "left"  # type: ignore[arg-type]
    assert watcher.room.read("task")[0] == stored
    assert watcher.published == []


def test_what_nobody_could_decide_is_put_off(watcher: LeadingWatcher) -> None:
    record = put(watcher, "task", until="job", step=5, due_at=1.0, job_id="render_1", job_kind="render")
    Scribe(watcher).put_off(record)  # type: ignore[arg-type]
    after, now = watcher.room.read("task")
    assert after is not None
    assert after.due_at is not None
    assert after.due_at > now


def test_the_groups_of_later_steps_are_known(app: Celery) -> None:
    """celery_facts.md, row 7: of a chain in a chord, Celery counts the last task as the member."""
    render, transcribe = app.tasks["framelane.render"], app.tasks["framelane.transcribe"]
    inner = transcribe.s().set(group_id="g-1", chord={})
    call = wakeups.call_of(render, [COMPOSITION], {}, {"chain": [dict(inner)]})
    assert groups_of(call._asdict()) == {"g-1"}
    assert groups_of(wakeups.call_of(render, [COMPOSITION], {}, {"group_id": "g-2"})._asdict()) == {"g-2"}
    nested = {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"body": dict(inner)}, "options": {}}
    assert groups_of({**call._asdict(), "options": {"chain": [nested]}}) == {"g-1"}
    assert groups_of(wakeups.call_of(render, [COMPOSITION], {}, {})._asdict()) == set()


def test_who_takes_over_begins_a_round_at_once(watcher: LeadingWatcher) -> None:
    """Workers may live for less than a third of a result."""
    put(watcher, "held", until="release", due_at=time.time() + 600, held_at=1.0)
    put(watcher, "looked at", until="job", due_at=time.time() + 600, job_id="render_1")
    desk: list[Any] = []
    idle = SimpleNamespace(is_idle=True, put=desk.append)
    scribe = SimpleNamespace(result_life_s=lambda: 86400.0, keep_alive=lambda record: None)
    keeper = Keeper(watcher, scribe, idle)  # type: ignore[arg-type]
    keeper.keep()
    keeper.keep()
    assert [work.args[0].id for work in desk] == ["held"]
    keeper.keep()
    keeper.keep()
    assert len(desk) == 1  # the next round is hours away
    keeper.begin_anew()
    keeper.keep()
    keeper.keep()
    assert len(desk) == 2


# --- holds -------------------------------------------------------------------------------------------------------


def test_an_operators_release_is_not_undone_by_a_read_that_was_under_way(watcher: LeadingWatcher) -> None:
    calls: list[Any] = []
    holds = Holds(watcher, {"default": SimpleNamespace(call=calls.append)})  # type: ignore[arg-type]
    watcher.room.hold("default", "quota_exceeded", "spent")
    holds.keep()
    [read_usage] = calls
    assert watcher.room.release("default")
    end = datetime.now(timezone.utc) + timedelta(days=3)
    read_usage(SimpleNamespace(get_usage=lambda: Usage(period_end=end)))
    assert [hold.is_on for hold in watcher.room.holds()[0]] == [False]


def test_a_watcher_with_nothing_in_flight_knows_the_rooms_clock(watcher: LeadingWatcher) -> None:
    """Else the end of a hold would be judged by a clock that counts from the machine's start."""
    Holds(watcher, {"default": SimpleNamespace(call=lambda work: None)}).keep()  # type: ignore[arg-type]
    assert abs(watcher.clock_set_to - watcher.room.read("x")[1]) < 60


# --- one bad record ----------------------------------------------------------------------------------------------


@pytest.fixture
def leader(app: Celery, watcher: LeadingWatcher) -> Watcher:
    """A real watcher that leads, without its threads."""
    nothing: dict[str, Any] = {"runs": tuple, "revokes": tuple, "events_are_on": lambda: False}
    leader = Watcher(app, watcher.room, watcher.settings, "w@host", **nothing)
    leader.token = watcher.room.lead(leader._owner, 60)
    return leader


def test_a_record_over_which_the_clock_stumbles_is_put_off(watcher: LeadingWatcher, leader: Watcher) -> None:
    record = put(watcher, "bad", until="instant", due_at=1.0)

    def stumble() -> bool:
        raise LookupError("of the user's router")

    assert not leader.isolated(record, stumble)
    after, now = watcher.room.read("bad")
    assert after is not None
    assert after.due_at is not None
    assert (after.step, after.due_at > now) == (record.step, True)


def test_a_look_over_which_the_scribe_stumbles_is_put_off(watcher: LeadingWatcher, leader: Watcher) -> None:
    """Else the same job would be read again at once, for ever."""
    record = put(watcher, "bad", until="job", due_at=1.0, job_id="render_1", job_kind="render")
    broken = replace(record, call="no JSON")  # a retry has to read it, to know the queue
    assert watcher.room.save(record, broken) == "saved"
    job = Job.parse({"id": "render_1", "kind": "render", "status": "failed", "error": {"code": "internal"}})
    looker, calls = leader._workspaces["default"].looker, list[Any]()
    looker._pool = SimpleNamespace(call=calls.append)  # type: ignore[assignment]
    looker.keep()
    [look] = calls
    look(SimpleNamespace(get_job=lambda *_, **__: job))
    with pytest.raises(ValueError, match="Expecting value"):
        leader._desk._work.get()()
    looker.send()
    assert len(calls) == 1  # not at once
    plan: Plan = looker._plan
    assert len(plan.next(leader.now() + 60)) == 1  # but again


# --- orphans, unasked --------------------------------------------------------------------------------------------


class Pages:
    """An API of two lists, of a page each; or of none."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.reads = error, 0
        self.data: list[Job] = []

    def list_jobs(self, kind: str, **filters: Any) -> JobPage:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return JobPage(data=self.data if kind == "render" else [])

    def get_job(self, kind: str, job_id: str) -> Job:
        return self.data[0]


class Spare:
    """Looks that can spare a read, or cannot."""

    def __init__(self) -> None:
        self.has_some = True

    def spare_read(self) -> bool:
        return self.has_some


class AtOnce:
    """A pool that calls at once."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def call(self, work: Any) -> None:
        work(self.client)


class Searching:
    """A search whose clock goes on by whole seconds."""

    def __init__(self, watcher: LeadingWatcher, api: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.api, self.spare = 0.0, api, Spare()
        monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.search = search.OrphanSearch(watcher, self.spare, AtOnce(api))  # type: ignore[arg-type]

    def reads_in(self, seconds: float) -> int:
        before = self.api.reads
        for _ in range(int(seconds)):
            self.now += 1.0
            self.search.keep()
        return self.api.reads - before


def test_a_round_begins_a_lease_after_the_lead_and_again_each_hour(
    watcher: LeadingWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching = Searching(watcher, Pages(), monkeypatch)
    lease_s = watcher.settings.lease_s
    assert searching.reads_in(lease_s - 1) == 0
    assert searching.reads_in(120) == 2  # a page of each list
    assert searching.reads_in(search.ROUND_EVERY_S - 180) == 0
    assert searching.reads_in(240) == 2
    searching.search.begin_anew()  # another watcher has led
    assert searching.reads_in(lease_s - 1) == 0
    assert searching.reads_in(120) == 2


def test_a_search_takes_only_reads_that_the_looks_can_spare(
    watcher: LeadingWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching = Searching(watcher, Pages(), monkeypatch)
    searching.spare.has_some = False
    assert searching.reads_in(600) == 0
    searching.spare.has_some = True
    assert searching.reads_in(1) == 1


def test_an_api_that_fails_is_asked_again_and_one_that_refuses_an_hour_later(
    watcher: LeadingWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching = Searching(watcher, Pages(TransportError("no answer")), monkeypatch)
    assert searching.reads_in(search.ROUND_EVERY_S) == 10
    searching = Searching(watcher, Pages(NotFound("no list", status=404)), monkeypatch)
    assert searching.reads_in(search.ROUND_EVERY_S) == 1


def test_what_was_told_once_is_not_told_each_hour(
    watcher: LeadingWatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    named = {"celery_task": "framelane.render", "celery_task_id": "t"}
    job = Job.model_validate({"id": "render_1", "status": "processing", "metadata": named})
    put(watcher, "t", until="done", outcome="timed_out")
    api = Pages()
    api.data = [job]
    searching = Searching(watcher, api, monkeypatch)
    searching.reads_in(3 * search.ROUND_EVERY_S)
    assert caplog.text.count("left: 1 ended") == 1


def test_looks_come_before_a_search() -> None:
    plan = Plan(60, 0)
    assert not plan.spare_read(0.0)  # one read is left, for a job
    assert [plan.spare_read(5.0) for _ in range(6)] == [True] * 5 + [False]
