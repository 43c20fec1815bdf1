"""Orphans: who is one (pure), the round that finds them, what is done about them. A room of SQLite, no server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, states

from framelane_celery import FramelaneTask, GuardedTask, RenderRequest, dead_letters, orphans, records, routing
from framelane_celery.errors import FramelaneError, InvalidArguments, NotFound, RateLimited, RoomError
from framelane_celery.models import Job, JobPage
from framelane_celery.monitoring import PROGRESS
from framelane_celery.orphans import GONE_AFTER_S, NoSuchOrphan, Orphans, Search, acting, why_orphan
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import TOMBSTONE_S, Room, room_of
from framelane_celery.room.sql import SqlRoom
from framelane_celery.settings import settings_of
from framelane_celery.tasks.routes import decide
from framelane_celery.wakeups import Call, digest_of

NOW = 1_790_000_000.0
LEASE_S = 60.0
COMPOSITION: dict[str, Any] = {"elements": [{"type": "text", "text": "a secret", "duration": 2}]}


def make_job(
    id: str = "render_1", status: str = "processing", task: str | None = "framelane.render", made_s_ago: float = 600,
    task_id: str | None = "t", ended_s_ago: float = 10, **fields: Any,
) -> Job:  # fmt: skip
    named = {"celery_task": task, "celery_task_id": task_id}
    ended = {"completed_at": ago(ended_s_ago)} if status in ("completed", "failed", "cancelled") else {}
    own = {"metadata": {name: value for name, value in named.items() if value is not None}, **ended, **fields}
    return Job.model_validate({"id": id, "status": status, "created_at": ago(made_s_ago), **own})


def ago(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW, timezone.utc) - timedelta(seconds=seconds)


def make_record(id: str = "t", until: Any = "job", task: str = "framelane.render", **fields: Any) -> Record:
    call = Call(task, [COMPOSITION], {}, {})
    waits = {"job_id": "render_1", "job_kind": "render", "accepted_at": NOW - 590, "due_at": NOW, "step": 2}
    return Record(id=id, task=task, call=call.to_text(), digest=digest_of(call), until=until, **{**waits, **fields})


# --- who is one --------------------------------------------------------------------------------------------------

LIVE, DONE, FAILED = make_job(), make_job(status="completed"), make_job(status="failed")
FAILURE = {"code": "internal", "message": "oops"}
LETTER = {"at": NOW, "queue": "q", "route": {}, "keep_waiting": True, "announced": True}
OLDER = ({"attempt": 1, "job_id": "render_1", "outcome": "timed_out", "at": NOW},)
UNKNOWN = {"outcome": "outcome_unknown", "job_id": None, "first_post_at": NOW - 601}
NO_JOB = {"job_id": None, "job_kind": None}

TABLE: list[tuple[str, Job, Record | None, str | None]] = [
    ("no record", LIVE, None, "no_record"),
    ("no record, and it has ended", DONE, None, "no_record"),
    ("no record, but it is young", make_job(made_s_ago=59), None, None),
    ("a status of the future is not an end", make_job(status="reviewing"), None, "no_record"),
    ("nobody says when it was made", make_job(created_at=None), None, "no_record"),
    ("awaited", LIVE, make_record(), None),
    ("it has ended, and nobody has looked yet", DONE, make_record(), None),
    ("its task is woken to return it", DONE, make_record(until="start", outcome="completed"), None),
    ("its task returns it", DONE, make_record(until="running", outcome="completed"), None),
    ("it is revoked, the watcher ends it", LIVE, make_record(ending="revoked"), None),
    ("posted, not answered yet", LIVE, make_record(until="running", first_post_at=NOW - 5, **NO_JOB), None),
    ("not answered, posted again later", LIVE, make_record(until="instant", first_post_at=NOW - 5, **NO_JOB), None),
    ("its record was written anew and will find it by its key", LIVE, make_record(until="start", **NO_JOB), None),
    ("its record queues for a slot", LIVE, make_record(until="slot", **NO_JOB), None),
    ("given up for a new attempt, and it goes on", LIVE, make_record(until="slot", history=OLDER, **NO_JOB),
     "other_attempt"),
    ("given up for a new attempt, and it has ended", DONE, make_record(until="slot", history=OLDER, **NO_JOB), None),
    ("a newer attempt is awaited, and it goes on", LIVE, make_record(job_id="render_2"), "other_attempt"),
    ("a newer attempt is awaited, and it has ended", FAILED, make_record(job_id="render_2"), None),
    ("its task is done, and it has ended", DONE, make_record(until="done", outcome="completed"), None),
    ("its task is done, and it goes on", LIVE, make_record(until="done", outcome="timed_out"), "ended"),
    ("its task was revoked before it had an answer", LIVE, make_record(until="done", ending="revoked", **NO_JOB),
     "ended"),
    ("its task is dead, and it has ended", FAILED, make_record(until="dead", letter=LETTER), None),
    ("its task is dead, and it goes on", LIVE, make_record(until="dead", letter=LETTER), "ended"),
    ("its pipeline is kept waiting, it goes on", LIVE, make_record(until="release", letter=LETTER), "ended"),
    ("its pipeline is kept waiting, it has ended", FAILED, make_record(until="release", letter=LETTER), None),
    ("its account is on hold", LIVE, make_record(until="release", **NO_JOB), None),
    ("nobody knew of it, and it goes on", LIVE, make_record(until="dead", **UNKNOWN), "outcome_unknown"),
    ("nobody knew of it, and it has completed", DONE, make_record(until="dead", **UNKNOWN), "outcome_unknown"),
    ("nobody knew of it, and it has failed", FAILED, make_record(until="dead", **UNKNOWN), None),
    ("of long before that POST", make_job(status="completed", made_s_ago=9000), make_record(until="dead", **UNKNOWN),
     None),
]  # fmt: skip


@pytest.mark.parametrize(("job", "record", "why"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_who_is_an_orphan(job: Job, record: Record | None, why: str | None) -> None:
    assert why_orphan(job, record, now=NOW, lease_s=LEASE_S) == why


# --- the round ---------------------------------------------------------------------------------------------------


class Api:
    """What a search asks of the client. Pages are of two jobs; ``fails`` is raised once."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.reads: list[str] = []
        self.cancelled: list[str] = []
        self.fails: Exception | None = None
        self.is_endless = False
        self.stale: dict[str, Job] = {}

    def _read(self, what: str) -> None:
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        self.reads.append(what)

    def list_jobs(self, kind: str, *, cursor: str | None, limit: int) -> JobPage:
        assert limit == 100
        self._read(f"{kind}s {cursor}")
        start = int(cursor or 0)
        jobs = [self.stale.get(job.id, job) for job in self.jobs.values() if job.id.startswith(kind)]
        after = str(start + 2) if len(jobs) > start + 2 else "0" if self.is_endless else None
        return JobPage(data=jobs[start : start + 2], next_cursor=after, has_more=after is not None)

    def get_job(self, kind: str, job_id: str, wait_s: int = 0) -> Job:
        self._read(job_id)
        if job_id not in self.jobs or not job_id.startswith(kind):
            raise NotFound("no such job", 404, "not_found")
        return self.jobs[job_id]

    def cancel_job(self, kind: str, job_id: str) -> None:
        self.cancelled.append(job_id)


class Bound(FramelaneTask):
    abstract = True

    def completed(self, job: Job, product_id: int, *, language: str = "en") -> Any:
        return [job.id, product_id, language]


class Odd(FramelaneTask):
    abstract = True

    def completed(self, job: Job) -> Any:  # type: ignore[override]
        return job.id


class Alone(FramelaneTask):
    abstract = True
    deadline_s = 100.0

    def completed(self, job: Job, *args: Any, **kwargs: Any) -> Any:
        return job.id


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    results = tmp_path / "results"
    results.mkdir()
    with Celery("shop", broker="memory://", backend=f"file://{results}", set_as_current=False) as app:
        app.conf.framelane = {"api_key": "fl_test_key", "room_url": f"sqlite:///{tmp_path}/room.sqlite"}

        @app.task(base=Bound, name="shop.promo", shared=False, time_limit=90, ignore_result=True)
        def promo(product_id: int, *, language: str = "en") -> RenderRequest:
            return RenderRequest.model_validate(COMPOSITION)

        @app.task(base=Odd, name="shop.odd", shared=False)
        def odd(product_id: int = 0) -> RenderRequest:
            return RenderRequest.model_validate(COMPOSITION)

        @app.task(base=Alone, name="shop.clip", shared=False)
        def clip(product_id: int = 0) -> RenderRequest:
            return RenderRequest.model_validate(COMPOSITION)

        @app.task(base=Alone, name="shop.daily", shared=False)
        def daily() -> RenderRequest:
            return RenderRequest.model_validate(COMPOSITION)

        @app.task(base=GuardedTask, name="shop.publish", shared=False)
        def publish(job: Any) -> None:
            """Has a record, and no job."""

        yield app
        room_for(app).close()


def room_for(app: Celery) -> Room:
    return room_of(app, settings_of(app))


@pytest.fixture(autouse=True)
def room(app: Celery) -> Room:
    """Its clock stands still: the tables above are made when tests are collected, which may be long before."""
    room = room_for(app)
    assert isinstance(room, SqlRoom)
    room._clock = sa.literal(NOW, sa.Double)
    return room


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """The one that every function asks: a session of requests is none of these tests' business."""
    api = Api()
    monkeypatch.setattr("framelane_celery.client.shared_client", lambda settings: api)
    return api


def put(api: Api, *jobs: Job) -> None:
    api.jobs |= {job.id: job for job in jobs}


def ids_of(found: Orphans) -> list[str]:
    return [orphan.id for orphan in found.jobs]


def store(app: Celery, task_id: str, state: str, result: Any = None) -> None:
    app.backend.store_result(task_id, result, state)


def test_only_jobs_of_tasks_of_this_app_are_looked_at(app: Celery, api: Api, room: Room) -> None:
    put(
        api,
        make_job("render_1"),
        make_job("render_2", task="other.promo"),
        make_job("render_3", task="shop.publish"),  # has no job of its own
        make_job("render_4", task="celery.chain"),
        make_job("render_5", task=None),
        make_job("render_6", task_id=None),
        make_job("render_7", task_id="", task=""),
        make_job("task_8", task="framelane.transcribe"),
    )
    found = orphans.find(app)
    assert ids_of(found) == ["render_1", "task_8"]
    assert (found.listed, found.gone) == (8, [])
    assert {(one.kind, one.why, one.task_id) for one in found.jobs} == {
        ("render", "no_record", "t"), ("task", "no_record", "t"),
    }  # fmt: skip


def test_each_step_is_one_read_and_what_fails_is_tried_again(app: Celery, api: Api, room: Room) -> None:
    put(api, *(make_job(f"render_{n}", task_id=f"t{n}") for n in range(5)), make_job("task_5", task_id="t5"))
    room.create(make_record("t1", "done", outcome="timed_out", due_at=None))
    room.create(make_record("waits", job_id="render_9"))
    search, steps = Search(app), 0
    while True:
        reads = len(api.reads)
        api.fails = RateLimited("slow down", 429, "rate_limited")
        with pytest.raises(RateLimited):
            search.step(api)
        assert len(api.reads) == reads
        api.fails, steps = None, steps + 1
        assert search.is_over is False
        goes_on = search.step(api)
        assert len(api.reads) <= reads + 1
        if not goes_on or len(search.found.gone):
            break
        if len(api.reads) == 5:  # the lists and the doubt are read: what waits is looked through without a read
            assert search.step(api)
    assert search.is_over
    assert api.reads == ["renders None", "render_1", "renders 2", "renders 4", "tasks None", "render_9"]
    assert sorted(ids_of(search.found)) == [*(f"render_{n}" for n in range(5)), "task_5"]
    assert [one.id for one in search.found.gone] == ["waits"]
    assert not search.step(api)


def test_a_room_that_is_away_in_the_middle_of_a_page_costs_nothing(
    app: Celery, api: Api, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(api, make_job("render_1", task_id="t1"), make_job("render_2", task_id="t2"))
    search, read = Search(app), type(room).read
    answers: list[Exception | None] = [None, RoomError("away")]

    def shaky(self: Room, task_id: str) -> Any:
        error = answers.pop(0) if answers else None
        if error:
            raise error
        return read(self, task_id)

    monkeypatch.setattr(type(room), "read", shaky)
    with pytest.raises(RoomError):
        search.step(api)
    while search.step(api):
        pass
    assert ids_of(search.found) == ["render_1", "render_2"]


def test_a_list_that_is_old_when_it_comes_accuses_nobody(app: Celery, api: Api, room: Room) -> None:
    """The page was written before the job ended; the record was read after its task was done."""
    put(api, make_job(status="completed"), make_job("render_2", task_id="t2"))
    api.stale = {"render_1": make_job()}
    room.create(make_record(until="done", outcome="completed", due_at=None))
    room.create(make_record("t2", "done", job_id="render_2", outcome="timed_out", due_at=None))
    assert [(one.id, one.why) for one in orphans.find(app).jobs] == [("render_2", "ended")]
    assert api.reads[1:3] == ["render_1", "render_2"]
    del api.jobs["render_2"]
    api.stale = {"render_1": make_job()}
    assert orphans.find(app).jobs == []


def test_a_list_without_end_is_left(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(), make_job("render_2"), make_job("render_3"))
    api.is_endless = True
    assert len(ids_of(orphans.find(app))) == 3
    assert len(api.reads) < 8


def test_a_job_that_is_listed_twice_counts_once(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job())
    api.list_jobs = lambda kind, **_: JobPage(data=[make_job(), make_job()] if kind == "render" else [])  # type: ignore[method-assign]
    assert ids_of(orphans.find(app)) == ["render_1"]


def test_a_foreign_record_is_left_alone(app: Celery, api: Api, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(self: Room, task_id: str) -> Any:
        raise ForeignRecord("newer")

    put(api, make_job())
    monkeypatch.setattr(type(room), "read", foreign)
    assert orphans.find(app).jobs == []


@pytest.mark.parametrize(
    ("status", "state", "ended_s_ago", "why"),
    [
        ("processing", states.PENDING, 0, "no_record"),
        ("processing", PROGRESS, 0, "no_record"),
        ("processing", states.SUCCESS, 0, "ended"),
        ("processing", states.REVOKED, 0, "ended"),
        ("completed", states.PENDING, 0, "no_record"),
        ("completed", PROGRESS, 0, "no_record"),
        ("completed", states.SUCCESS, 0, None),
        ("failed", states.FAILURE, 0, None),
        ("completed", states.PENDING, 3601, None),  # as old as results: it may have been returned
    ],
)
def test_the_result_tells_of_tasks_whose_records_are_forgotten(
    app: Celery, api: Api, room: Room, status: str, state: str, ended_s_ago: float, why: str | None
) -> None:
    app.conf.result_expires = timedelta(hours=1)
    put(api, make_job(status=status, made_s_ago=9000, ended_s_ago=ended_s_ago))
    if state != states.PENDING:
        store(app, "t", state, ValueError() if state in (states.FAILURE, states.REVOKED) else None)
    found = orphans.find(app).jobs
    assert [one.why for one in found] == ([why] if why else [])
    assert [one.is_known for one in found if why == "no_record"] == ([state == PROGRESS] if why == "no_record" else [])
    assert len(orphans.find(app, is_old_too=True).jobs) == (1 if why or ended_s_ago else 0)


def test_results_that_are_kept_for_ever_make_no_orphans_of_what_the_room_has_forgotten(
    app: Celery, api: Api, room: Room
) -> None:
    app.conf.result_expires = None
    put(api, make_job(status="completed", made_s_ago=10**6, ended_s_ago=TOMBSTONE_S + 1))
    assert orphans.find(app).jobs == []


@pytest.mark.parametrize(("error", "is_away"), [(NotImplementedError(), False), (OSError("refused"), True)])
def test_without_results_and_with_results_that_are_away(
    app: Celery, api: Api, room: Room, monkeypatch: pytest.MonkeyPatch, error: Exception, is_away: bool
) -> None:
    def get_state(task_id: str) -> str:
        raise error

    put(api, make_job())
    monkeypatch.setattr(app.backend, "get_state", get_state)
    if not is_away:
        assert ids_of(orphans.find(app)) == ["render_1"]
        return
    with pytest.raises(FramelaneError, match="the result backend is away: OSError"):
        orphans.find(app)


@pytest.mark.parametrize("until", ["running", "job"])
def test_a_replay_that_took_over_the_key_awaits_the_job(app: Celery, api: Api, room: Room, until: str) -> None:
    """The job names the letter's id; the record of its replay finds it, or waits for it, under its own."""
    put(api, make_job())
    room.create(make_record(until="done", due_at=None, letter={**LETTER, "replayed_as": "new"}))
    waits = {} if until == "job" else {"first_post_at": NOW - 5, **NO_JOB}
    room.create(make_record("new", until, key_id="t", **waits))
    assert orphans.find(app).jobs == []


def test_a_replay_with_a_key_of_its_own_does_not(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job())
    room.create(make_record(until="done", due_at=None, letter={**LETTER, "replayed_as": "new"}))
    room.create(make_record("new", job_id="render_2"))
    put(api, make_job("render_2", task_id="new"))
    assert [(one.id, one.why) for one in orphans.find(app).jobs] == [("render_1", "ended")]


def test_what_waits_for_a_job_that_is_gone(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job("render_1"), make_job("task_2"))
    room.create(make_record("there"))
    room.create(make_record("gone", job_id="render_gone"))
    room.create(make_record("young", job_id="render_young", accepted_at=NOW - GONE_AFTER_S / 2))
    room.create(make_record("revoked", job_id="render_revoked", ending="revoked"))
    room.create(make_record("unlisted", job_id="task_2", job_kind="task"))
    listed = api.list_jobs
    api.list_jobs = lambda kind, **_: JobPage(data=[]) if kind == "task" else listed(kind, cursor=None, limit=100)  # type: ignore[method-assign]
    assert [one.id for one in orphans.find(app).gone] == ["gone"]
    assert api.reads[1:] == ["render_gone", "task_2"] or api.reads[1:] == ["task_2", "render_gone"]


# --- adopting ----------------------------------------------------------------------------------------------------


def test_an_adopted_record_waits_as_if_it_had_just_been_accepted(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(task="shop.clip"))
    store(app, "t", PROGRESS, {"percent": 7})
    assert orphans.adopt(app, "render_1").id == "t"
    record, _ = room.read("t")
    assert record is not None
    assert (record.until, record.lane, record.job_id, record.job_kind) == ("job", "look", "render_1", "render")
    assert record.due_at == pytest.approx(NOW, abs=60)
    assert (record.attempt, record.accepted_at, record.deadline_at) == (1, NOW - 600, record.due_at + 100)
    assert [one.id for one in room.due("look", 9)[0]] == ["t"]
    assert record.job == api.jobs["render_1"].to_json()
    assert app.backend.get_result("t") == {"percent": 7}
    assert room.task_of("render_1") == "t"
    assert records.complete(record, job=record.job, now=NOW, resend_after_s=60).until == "start"
    with pytest.raises(NoSuchOrphan, match="its task t is job"):
        orphans.adopt(app, "render_1")


@pytest.mark.parametrize("made_s_ago", [None, -500.0])
def test_a_job_that_was_made_at_no_sane_time_was_accepted_now(
    app: Celery, api: Api, room: Room, made_s_ago: float | None
) -> None:
    put(api, make_job(created_at=None if made_s_ago is None else ago(made_s_ago)))
    if made_s_ago is None:
        assert orphans.adopt(app, "render_1").accepted_at == pytest.approx(NOW, abs=60)
    else:  # in the future: surely young
        with pytest.raises(NoSuchOrphan, match="younger than a lease"):
            orphans.adopt(app, "render_1")


def test_the_task_s_own_options_are_those_of_its_calls(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(task="shop.promo"))
    call = Call.from_text(orphans.adopt(app, "render_1", args=[42]).call)
    assert (call.options["time_limit"], call.options["ignore_result"], call.args) == (90, True, [42])
    assert call.options["argsrepr"] == "(42)"


def test_without_its_arguments_a_task_is_finished_and_never_run_again(app: Celery, api: Api, room: Room) -> None:
    """The body would build another request, of defaults: a job that nobody asked for."""
    put(api, make_job(task="shop.clip"))
    record = orphans.adopt(app, "render_1")
    settings = settings_of(app)
    for code in ("internal", "quota_exceeded"):
        assert isinstance(decide(app, settings, record, code), routing.DeadLetter)
    whole = replace(record, digest="d")
    assert isinstance(decide(app, settings, whole, "internal"), routing.Retry)
    assert isinstance(decide(app, settings, whole, "quota_exceeded"), routing.Hold)


def test_a_letter_without_its_arguments_is_replayed_with_them_only(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(task="shop.clip"))
    record = orphans.adopt(app, "render_1")
    letter = replace(record, until="dead", outcome="failed", letter={"at": NOW, "announced": True}, job=None)
    assert room.save(record, letter) == "saved"
    with pytest.raises(InvalidArguments, match="its arguments were lost with the room"):
        dead_letters.replay(app, letter.id)
    app.tasks["framelane.replay"](letter.id, letter.step)  # by its message: it waits for an operator
    assert room.read(letter.id)[0] == replace(letter, version=record.version + 1)
    replayed = dead_letters.replay(app, letter.id, args=[7])
    there = room.read(replayed.task_id)[0]
    assert there is not None
    assert there.has_arguments


@pytest.mark.parametrize(("task", "given"), [("shop.clip", {"args": [7]}), ("shop.daily", {})])
def test_with_its_arguments_it_is_the_same_piece_of_work(
    app: Celery, api: Api, room: Room, task: str, given: dict[str, Any]
) -> None:
    put(api, make_job(task=task))
    record = orphans.adopt(app, "render_1", **given)
    assert record.attempts_made == 1
    app.tasks[task].apply_async(given.get("args", []), task_id="t")  # raises nothing, and does nothing new
    assert room.read("t")[0].until == "job"


def test_a_result_that_is_made_of_the_arguments_needs_them(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(task="shop.promo"))
    assert [(one.needs_arguments, one.adopts_itself) for one in orphans.find(app).jobs] == [(True, False)]
    with pytest.raises(InvalidArguments, match="give them"):
        orphans.adopt(app, "render_1")
    for wrong in ({"args": [1, 2]}, {"args": []}, {"args": [1], "kwargs": {"colour": "red"}}):
        with pytest.raises(InvalidArguments, match=r"shop\.promo"):
            orphans.adopt(app, "render_1", **wrong)
    assert room.read("t")[0] is None
    assert orphans.adopt(app, "render_1", args=[1], kwargs={"language": "de"}).until == "job"


def test_a_result_that_is_made_of_the_job_alone_takes_no_arguments(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(task="shop.odd"))
    with pytest.raises(InvalidArguments, match=r"its completed\(\) does not take these"):
        orphans.adopt(app, "render_1", args=[1])
    assert orphans.adopt(app, "render_1").until == "job"


@pytest.mark.parametrize(("status", "needs"), [("completed", True), ("failed", False), ("cancelled", False)])
def test_a_job_that_has_failed_needs_no_arguments(app: Celery, api: Api, room: Room, status: str, needs: bool) -> None:
    put(api, make_job(status=status, task="shop.promo"))
    assert [one.needs_arguments for one in orphans.find(app).jobs] == [needs]


def test_only_what_has_no_record_is_adopted(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(), make_job("render_2", task_id="t2"), make_job("render_3", task_id="t3"))
    room.create(make_record("t", "done", outcome="timed_out", due_at=None))
    room.create(make_record("t2", job_id="render_9"))
    for job_id, why in {"render_1": "its task is over", "render_2": "waits for another job"}.items():
        with pytest.raises(NoSuchOrphan, match=why):
            orphans.adopt(app, job_id)
    found = orphans.find(app)
    room.create(make_record("t3", "start", **NO_JOB))  # a message came meanwhile
    with pytest.raises(NoSuchOrphan, match="no orphan any more: its task t3 is start"):
        acting._adopt(app, next(one for one in found.jobs if one.id == "render_3"))


@pytest.mark.parametrize(
    ("job_id", "why"),
    [
        ("render_1", "its task t is job"),
        ("render_young", "younger than a lease"),
        ("render_foreign", "names no task of shop"),
        ("render_over", "its task t3 is over"),
        ("render_none", "the API knows no such job"),
    ],
)
@pytest.mark.parametrize("act", [orphans.adopt, orphans.cancel])
def test_what_is_no_orphan_says_why(
    app: Celery, api: Api, room: Room, act: Callable[..., Any], job_id: str, why: str
) -> None:
    put(
        api,
        make_job(),
        make_job("render_young", made_s_ago=1, task_id="t2"),
        make_job("render_foreign", task="other.promo"),
        make_job("render_over", "completed", task_id="t3"),
    )
    room.create(make_record())
    store(app, "t3", states.SUCCESS)
    with pytest.raises(NoSuchOrphan, match=why):
        act(app, job_id)
    assert api.cancelled == []


# --- cancelling and routing --------------------------------------------------------------------------------------


def test_a_job_is_cancelled_if_it_goes_on(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job(), make_job("render_2", "completed", task_id="t2"))
    put(api, make_job("task_3", task="framelane.transcribe"))
    for job_id in ("render_1", "task_3"):
        assert orphans.cancel(app, job_id).id == job_id
    with pytest.raises(NoSuchOrphan, match="nothing left to cancel"):
        orphans.cancel(app, "render_2")
    assert api.cancelled == ["render_1", "task_3"]


@pytest.mark.parametrize(
    ("action", "until"), [("fail", "start"), ("dead_letter", "start"), ("retry", "instant"), ("hold", "release")]
)
def test_a_record_whose_job_is_gone_goes_where_its_route_says(
    app: Celery, api: Api, room: Room, action: str, until: str
) -> None:
    app.conf.framelane["routes"] = [{"code": "not_found", "action": action}]
    room.create(make_record())
    moved = orphans.route(app, "t")
    assert (moved.until, moved.failure["code"], moved.history[0]["outcome"]) == (until, "not_found", "not_found")
    assert [hold.code for hold in room.holds()[0]] == (["not_found"] if action == "hold" else [])
    if until == "start":
        assert [record.id for record in room.due("clock", 9)[0]] == ["t"]  # its message is due at once
    with pytest.raises(NoSuchOrphan, match=f"waits for no job: it is {until}"):
        orphans.route(app, "t")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (None, "no such task"),
        (make_record(), "its job render_1 is there"),
        (make_record(job_id="render_gone", accepted_at=NOW - GONE_AFTER_S / 2), "too young"),
        (make_record(until="running"), "it is running"),
        (make_record(job_id="render_gone", ending="revoked"), "waits for no job"),
    ],
)
def test_no_other_record_is_routed(app: Celery, api: Api, room: Room, record: Record | None, why: str) -> None:
    put(api, make_job())
    if record is not None:
        room.create(record)
    with pytest.raises(NoSuchOrphan, match=why):
        orphans.route(app, "t")


# --- unasked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_ours", "adopted"), [(False, ["t1"]), (True, ["t1", "t2"])])
def test_unasked_only_lost_waits_come_back(
    app: Celery, api: Api, room: Room, caplog: pytest.LogCaptureFixture, is_ours: bool, adopted: list[str]
) -> None:
    put(
        api,
        make_job("render_1", task_id="t1"),
        make_job("render_2", task_id="t2"),  # our results know nothing of it: another app's, perhaps
        make_job("render_3", task_id="t3", task="shop.promo"),  # needs its arguments
        make_job("render_4", "completed", task_id="t4"),
        make_job("render_5", task_id="t5"),
    )
    for n in (1, 3, 4):
        store(app, f"t{n}", PROGRESS)
    room.create(make_record("t5", "done", outcome="timed_out", due_at=None))
    room.create(make_record("t6", job_id="render_gone"))
    found = orphans.find(app)
    with caplog.at_level(logging.WARNING):
        assert [record.id for record in orphans.tend(app, found, is_workspace_ours=is_ours)] == adopted
    assert f"orphans of shop: {len(adopted)} jobs adopted, whose records were lost" in caplog.text
    assert f"left: 1 ended, {4 - len(adopted)} no_record, 1 not_found" in caplog.text
    assert [room.read(f"t{n}")[0] is not None for n in range(1, 5)] == [f"t{n}" in adopted for n in range(1, 5)]
    assert api.cancelled == []
    assert room.read("t6")[0].until == "job"


def test_nothing_is_said_where_there_is_nothing(
    app: Celery, api: Api, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    assert orphans.tend(app, orphans.find(app)) == []
    assert caplog.text == ""


def test_who_came_first_is_left_his_record(app: Celery, api: Api, room: Room) -> None:
    put(api, make_job())
    store(app, "t", PROGRESS)
    found = orphans.find(app)
    room.create(make_record("t", "start", **NO_JOB))
    assert orphans.tend(app, found) == []
    assert room.read("t")[0].until == "start"
