"""Workers of two versions side by side: a deploy that rolls on, one that is rolled back, and SIGTERM in the middle.

"Older" (`tests.worker.older`) is a version that does not know some tasks; "newer" (`tests.worker.newer`) one whose
records have a newer format.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from celery import chain, chord
from celery.exceptions import NotRegistered

from framelane_celery.records import shelf
from framelane_celery.room.inspect import open_store
from framelane_celery.testing import FramelaneServer
from tests.worker import newer
from tests.worker.newer import NEWER
from tests.worker.older import OLDER, without
from tests.worker.project import composition
from tests.worker.stacks import POSTGRES, REDIS, Stack, Worker, jobs_of, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(240)]
MakeStack = Callable[..., Stack]

on_both = pytest.mark.parametrize("name", ["redis", "rabbitmq"])
UNKNOWN = "this worker does not know it; sent again"
ALL = ("-c", "2", "-E")
"""Options of a worker of the new version."""


def warnings(worker: Worker) -> int:
    return worker.log.count(UNKNOWN)


def left_queue(stack: Stack) -> None:
    """Wait until a worker has taken what was in the queue."""
    wait_for(lambda: not stack.waiting_in(stack.queue))  # on Redis an empty queue is none


def leader(stack: Stack) -> str:
    """The node that leads; "": none."""
    store = open_store(stack.framelane["room_url"], stack.namespace)
    try:
        return (store.state().leader or "").partition("/")[0]
    finally:
        store.close()


def failures(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "task-failed"]


# --- SIGTERM in the middle ---------------------------------------------------------------------------------------


@on_both
def test_a_standby_leads_at_once_after_sigterm(make_stack: MakeStack, server: FramelaneServer, name: str) -> None:
    """Not when the lead's time is over (10 s), and not when the pool is empty: a run goes on meanwhile."""
    stack = make_stack(name, server)
    took_s = []
    with stack.worker("-c", "1", name="w1") as first, stack.worker("-c", "1", name="w2") as second:
        leads, stands_by = first, second
        wait_for(lambda: leader(stack) == leads.node)
        for _ in range(3):
            result = stack.sig("long_body", 5).apply_async()
            other = stack.sig("long_body", 5).apply_async()
            for one in (result, other):  # each worker has one
                stack.until(one.id, "running")
            leads.signal(signal.SIGTERM)
            told_at = time.monotonic()
            wait_for(lambda node=stands_by.node: leader(stack) == node, every_s=0.01)  # type: ignore[misc]
            took_s.append(time.monotonic() - told_at)
            assert leads.process is not None
            assert leads.process.poll() is None  # its run is not over
            leads.process.wait(60)
            for one in (result, other):
                assert one.get(timeout=60)["status"] == "completed"
                assert len(jobs_of(server, one.id)) == 1
            leads.start()
            leads, stands_by = stands_by, leads
    print(f"{name}: the standby led {[f'{each:.2f}' for each in took_s]} s after SIGTERM")
    assert max(took_s) < 2.0, took_s


# --- a task that a worker does not know --------------------------------------------------------------------------


@on_both
@pytest.mark.celery55
def test_a_task_that_no_worker_knows_yet_waits_for_one_that_does(
    make_stack: MakeStack, server: FramelaneServer, name: str
) -> None:
    """No FAILURE, no event, no errback, no failed chord; and one warning, whatever comes."""
    stack = make_stack(name, server)
    promo, sig = stack.sig("promo"), stack.sig
    with stack.worker(*OLDER, name="older", **without("promo")) as older, stack.events() as events:
        piped = chain(promo.clone(), sig("note", tag="after")).apply_async(link_error=sig("errback"))
        joined = chord([promo.clone(), promo.clone()], sig("ids").on_error(sig("errback"))).apply_async()
        single = promo.clone().apply_async(link_error=sig("errback"))
        ids = [piped.parent.id, *(each.id for each in joined.parent.results), single.id]
        wait_for(lambda: all(stack.record(one).resends >= 2 for one in ids))
        left_queue(stack)
        assert {stack.app.AsyncResult(one).state for one in ids} == {"PENDING"}
        assert {stack.record(one).until for one in ids} == {"start"}
        assert max(stack.record(one).resends for one in ids) <= 4  # no hot loop
        assert warnings(older) == 1
        assert "tests.worker.project.promo: this worker does not know it" in older.log
        with stack.worker(*ALL, name="newer"):
            older.stop()
            assert piped.get(timeout=60)
            assert len(joined.get(timeout=60)) == 2
            assert single.get(timeout=60)
            wait_for(stack.is_idle)
    assert failures(events) == []
    assert stack.journal("errback") == []
    assert [len(jobs_of(server, one)) for one in ids] == [1, 1, 1, 1]
    assert len([note for note in stack.journal("plain") if note["tag"] == "after"]) == 1


@on_both
@pytest.mark.celery55
def test_two_versions_side_by_side_lose_nothing(make_stack: MakeStack, server: FramelaneServer, name: str) -> None:
    """On one queue, the older one in the lead, and ended by SIGTERM in the middle; every task runs, and pays, once."""
    stack = make_stack(name, server)
    with (
        stack.worker(*OLDER, name="older", **without("promo", "guarded")) as older,
        stack.worker(*ALL, name="newer"),
        stack.events() as events,
    ):
        assert leader(stack) == older.node
        pieces = [chain(stack.sig("promo", f"{n}"), stack.sig("guarded")).apply_async() for n in range(12)]
        known = [stack.sig("framelane.render", composition(f"{n}")).apply_async() for n in range(4)]
        wait_for(lambda: warnings(older) >= 2 and any(piece.ready() for piece in pieces))
        older.signal(signal.SIGTERM)
        for result in (*pieces, *known):
            assert result.get(timeout=90)
        wait_for(stack.is_idle)
    assert failures(events) == []
    assert {len(jobs_of(server, one.id)) for one in [*known, *(piece.parent for piece in pieces)]} == {1}
    assert sorted(note["id"] for note in stack.journal("plain")) == sorted(piece.id for piece in pieces)
    # Raised by moves alone (running, job, start, running, done), not by what is sent again.
    assert {stack.record(piece.parent.id).step for piece in pieces} == {5}


@on_both
@pytest.mark.celery55
def test_rolled_back_while_jobs_are_rendered(make_stack: MakeStack, server: FramelaneServer, name: str) -> None:
    """The older version finishes what it knows; what it does not know it keeps, its ended job too, for the next try."""
    stack = make_stack(name, server)
    with stack.worker(*ALL, name="newer") as new:
        known = chain(stack.sig("framelane.render", composition(seconds="4")), stack.sig("note")).apply_async()
        unknown = chain(stack.sig("montage", [{"id": "a"}], seconds="4"), stack.sig("note", tag="after")).apply_async()
        for one in (known, unknown):
            stack.until(one.parent.id, "job")
        new.stop()
    with stack.worker(*OLDER, name="older", **without("montage")) as older:
        assert known.get(timeout=60)["status"] == "completed"
        wait_for(lambda: warnings(older) == 1)
        record = stack.record(unknown.parent.id)
        assert (record.until, record.outcome) == ("start", "completed")
        assert unknown.parent.state == "PROGRESS"
        new.start()
        older.stop()
        assert unknown.get(timeout=60)["status"] == "completed"
        wait_for(stack.is_idle)
        new.end()
    assert [len(jobs_of(server, one.parent.id)) for one in (known, unknown)] == [1, 1]


@on_both
@pytest.mark.celery55
def test_a_next_task_that_a_worker_does_not_know_gets_its_record_from_the_message(
    make_stack: MakeStack, server: FramelaneServer, name: str
) -> None:
    """It was published by its chain's first task, by a worker that does not know it either, so without a record."""
    stack = make_stack(name, server)
    with stack.worker(*OLDER, name="older", **without("montage", "guarded")) as older, stack.events() as events:
        result = chain(
            stack.sig("note", [{"id": "a"}]), stack.sig("montage"), stack.sig("guarded", tag="next")
        ).apply_async()
        wait_for(lambda: warnings(older) == 1)
        wait_for(lambda: stack.record(result.parent.id) is not None)
        record = stack.record(result.parent.id)
        assert (record.until, record.step, record.task) == ("start", 0, "tests.worker.project.montage")
        assert result.parent.state == "PENDING"
        with stack.worker(*ALL, name="newer"):
            older.stop()
            assert result.get(timeout=60) == jobs_of(server, result.parent.id)[0]
            wait_for(stack.is_idle)
    assert failures(events) == []
    assert len(jobs_of(server, result.parent.id)) == 1


def test_what_is_not_ours_is_left_to_celery(make_stack: MakeStack, server: FramelaneServer) -> None:
    stack = make_stack("redis", server)
    with stack.worker(*OLDER, name="older", **without("ping")) as older:
        result = stack.sig("ping").delay()
        wait_for(lambda: result.state == "FAILURE")
        assert isinstance(result.result, NotRegistered)
        assert warnings(older) == 0


# --- records of a newer version ----------------------------------------------------------------------------------


@pytest.fixture
def reads_newer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make this process, the caller, one of the newer version."""

    def upgrade() -> None:
        monkeypatch.setattr(shelf, "FORMAT", newer.FORMAT)
        monkeypatch.setattr(shelf, "NEWEST", newer.FORMAT)

    return upgrade


@on_both
def test_records_of_a_newer_format_wait_for_a_worker_that_reads_them(
    make_stack: MakeStack, server: FramelaneServer, name: str, reads_newer: Callable[[], None]
) -> None:
    """However long an older worker leads: called, rendered or finished meanwhile, nothing is written or told."""
    stack = make_stack(name, server)
    reads_newer()
    env = newer.ENVIRONMENT
    with stack.worker(*NEWER, name="newer", **env) as new:
        waiting = stack.sig("framelane.render", composition(seconds="2")).apply_async()
        stack.until(waiting.id, "job")
        new.stop()
    called = stack.sig("framelane.render", composition()).apply_async()
    with stack.worker(*OLDER, name="older", **without()) as older:
        before = [stack.record(one.id) for one in (waiting, called)]
        left_queue(stack)
        time.sleep(stack.framelane["resend_after_s"] + 3)  # both are due, and their message is taken
        assert [stack.record(one.id) for one in (waiting, called)] == before
        assert (waiting.state, called.state) == ("PROGRESS", "PENDING")
        assert leader(stack) == older.node
        own = stack.sig("ping").delay()
        assert own.get(timeout=60)
        new.start()
        older.stop()
        assert [one.get(timeout=60)["status"] for one in (waiting, called)] == ["completed", "completed"]
        wait_for(stack.is_idle)
        new.end()
    assert [len(jobs_of(server, one.id)) for one in (waiting, called)] == [1, 1]


@contextmanager
def _state(stack: Stack, task_id: str) -> Iterator[dict[str, Any]]:
    """The stored state of a record that rests, to be changed behind the room's back."""
    if stack.framelane["room_url"] == POSTGRES:
        engine = sa.create_engine(POSTGRES.replace("postgresql://", "postgresql+psycopg://"))
        where = "WHERE namespace = :namespace AND id = :id"
        values = {"namespace": stack.namespace, "id": task_id}
        with engine.begin() as connection:
            row = connection.execute(sa.text(f"SELECT state FROM framelane_records {where}"), values)
            yield (state := json.loads(row.scalar_one()))
            change = sa.text(f"UPDATE framelane_records SET state = :state {where}")
            connection.execute(change, {**values, "state": json.dumps(state)})
        engine.dispose()
        return
    with redis.Redis.from_url(f"{REDIS}/12") as client:
        key = f"{{framelane:{stack.namespace}}}:record:{task_id}"
        yield (state := json.loads(client.hget(key, "state")))  # type: ignore[arg-type]
        client.hset(key, "state", json.dumps(state))


@on_both
def test_rolled_back_to_a_version_that_does_not_know_a_field(
    make_stack: MakeStack, server: FramelaneServer, name: str
) -> None:
    """It goes on with the record, and carries the field along."""
    stack = make_stack(name, server)
    called = stack.sig("framelane.render", composition()).apply_async()
    with _state(stack, called.id) as state:
        state["added_at"] = 7.5
    with stack.worker("-c", "1"):
        assert called.get(timeout=60)["status"] == "completed"
        stack.until(called.id, "done")
    with _state(stack, called.id) as state:
        assert (state["added_at"], state["outcome"]) == (7.5, "completed")
