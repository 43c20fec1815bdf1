"""While a job runs: what is shown, what is free, and what ends the wait."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord
from celery.events.state import State
from celery.exceptions import ChordError, TaskRevokedError

from framelane_celery import JobCancelled, JobFailed, JobTimedOut, records
from framelane_celery.records import Record
from framelane_celery.testing import FramelaneServer, Switches
from framelane_celery.watching.watcher import LEAD_S
from tests.worker.project import composition
from tests.worker.stacks import Stack, Worker, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker]
on_redis = pytest.mark.parametrize("stack", ["redis"], indirect=True)
MakeStack = Callable[..., Stack]

PROGRESS_KEYS = {
    "job_id", "job_kind", "status", "until", "percent", "current", "total", "pending", "description", "stage",
    "attempt", "submitted_at", "next_look_at",
}  # fmt: skip


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


def job_of(stack: Stack, task_id: str) -> str:
    return str(stack.until(task_id, "job").job_id)


# --- nothing is held ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_50_waiting_jobs_hold_no_worker(make_stack: MakeStack, pool: str) -> None:
    """One process serves them and other tasks within half a second; then all end."""
    with make_server() as server:
        stack = make_stack("redis", server, framelane={"renders_per_minute": 10000, "reads_per_minute": 6000})
        with stack.worker("-P", pool, "-c", "1"):
            results = [render(stack, str(n), outcome="never").apply_async() for n in range(50)]
            wait_for(lambda: len(server.jobs) == 50 and all(stack.record(one.id).until == "job" for one in results))
            took_s = []
            for _ in range(9):
                called_at = time.monotonic()
                stack.sig("ping").delay().get(timeout=60, interval=0.01)
                took_s.append(time.monotonic() - called_at)
            assert median(took_s) < 0.5, took_s  # a busy machine may hold up one of them, a held slot every one
            for job_id in list(server.jobs):
                server.finish(job_id)
            assert all(result.get(timeout=60)["status"] == "completed" for result in results)


# --- what is shown -----------------------------------------------------------------------------------------------


@on_redis
@pytest.mark.celery55
def test_progress_is_shown_when_it_changes(stack: Stack, server: FramelaneServer, worker: Worker) -> None:
    """celery_facts row 2, "Flower", "celery-progress": meta, events, node name; design §6, while waiting."""
    with stack.events() as events:
        stuck = render(stack, outcome="never", seconds="0.2").apply_async()  # soon at 99 %, for ever
        result = chain(render(stack, seconds="5"), stack.sig("note", tag="shown")).apply_async().parent
        metas: list[dict[str, Any]] = []
        while not result.ready():
            info = stack.app.AsyncResult(result.id)._get_task_meta()
            if info["status"] == "PROGRESS" and (not metas or metas[-1] != info["result"]):
                metas.append(info["result"])
            time.sleep(0.02)
        wait_for(lambda: any(e["type"] == "task-succeeded" and e["uuid"] == result.id for e in events))
    assert all(set(meta) == PROGRESS_KEYS for meta in metas)
    assert (metas[0]["status"], metas[0]["percent"], metas[0]["total"]) == ("queued", 0, 100)
    percents = [meta["percent"] for meta in metas]
    assert len(percents) >= 2
    assert percents == sorted(set(percents))  # nothing is written twice
    assert metas[-1]["description"] == f"processing: {metas[-1]['stage']}"
    assert metas[-1]["job_id"] in server.jobs
    assert time.time() - 60 < metas[-1]["submitted_at"] < metas[-1]["next_look_at"] + 1 < time.time() + 60
    stack.app.control.revoke(stuck.id)
    news = [event for event in events if event["type"] == "task-progress" and "percent" in event]  # the watcher's
    assert len([event for event in news if event["uuid"] == stuck.id]) == 1
    shown = [event for event in news if event["uuid"] == result.id]
    told = [event["percent"] for event in shown]
    assert told == sorted(set(told))
    assert told[: len(percents) - 1] == percents[1:]  # the first one is the run's own
    assert len(told) <= len(percents)  # what is stored just before the end may be over before it is read here
    assert {event["hostname"] for event in events if event.get("uuid") == result.id} - {worker.node} <= {
        event["hostname"] for event in events if event["type"] == "task-sent"
    }
    assert {event["hostname"] for event in shown} == {worker.node}
    monitor = State()
    for event in events:
        monitor.event(dict(event))
        if event in shown:
            assert monitor.tasks[result.id].state == "PROGRESS"
    assert monitor.tasks[result.id].state == "SUCCESS"
    assert [name for name in monitor.workers if name.startswith("gen")] == []


@on_redis
def test_get_tells_progress(stack: Stack) -> None:
    """celery_facts, "Clients": get(on_message=...) delivers PROGRESS."""
    messages: list[dict[str, Any]] = []
    render(stack, seconds="0.5").apply_async().get(timeout=60, on_message=messages.append)
    assert [message["status"] for message in messages][-1] == "SUCCESS"
    assert "PROGRESS" in {message["status"] for message in messages}


@on_redis
def test_ignored_is_never_stored_over_progress(stack: Stack) -> None:
    """celery_facts, "celery-progress": it stores IGNORED from `task_postrun`."""
    result = render(stack, outcome="never").apply_async()
    stack.until(result.id, "job")
    stack.app.tasks["framelane.render"].update_state(result.id, "IGNORED", {"pending": False})
    assert result.state == "PROGRESS"
    stack.app.control.revoke(result.id)
    stack.until(result.id, "done")


# --- revoke ------------------------------------------------------------------------------------------------------


@contextmanager
def revoked(stack: Stack, server: FramelaneServer, result: Any, job_id: str | None) -> Iterator[list[dict[str, Any]]]:
    """What every revoke comes to: the job is cancelled, REVOKED is stored, Flower is told, no errback runs."""
    with stack.events() as events:
        yield events
        stack.until(result.id, "done", timeout_s=12)  # less than a lease
        assert result.state == "REVOKED"
        assert isinstance(result.result, TaskRevokedError)
        wait_for(lambda: [e for e in events if e["type"] == "task-revoked" and e["uuid"] == result.id])
    if job_id is not None:
        assert server.jobs[job_id]["status"] == "cancelled"
    assert [note for note in stack.journal("told") if note["id"] == result.id] == []
    monitor = State()
    for event in events:
        monitor.event(dict(event))
    assert monitor.tasks[result.id].state == "REVOKED"


@on_redis
@pytest.mark.celery55
@pytest.mark.parametrize("terminate", [False, True])
def test_revoked_while_waiting(stack: Stack, server: FramelaneServer, worker: Worker, terminate: bool) -> None:
    """celery_facts row 8."""
    call = chain(render(stack, outcome="never"), stack.sig("note", tag="never"))
    call.link_error(stack.sig("told"))
    result = call.apply_async().parent
    job_id = job_of(stack, result.id)
    with revoked(stack, server, result, job_id) as events:
        stack.app.control.revoke(result.id, terminate=terminate)
    ours = [event for event in events if event["type"] == "task-revoked" and event["uuid"] == result.id]
    assert [(event["hostname"], event["expired"]) for event in ours] == [(worker.node, False)]


@on_redis
@pytest.mark.celery55
def test_revoked_by_its_stamp(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 8: `revoked_stamps` lives in a worker's memory only."""
    results = [
        render(stack, outcome="never").apply_async(customer=customer, stamped_headers=["customer"])
        for customer in (f"{stack.queue}-acme", f"{stack.queue}-other")
    ]
    job_id = job_of(stack, results[0].id)
    job_of(stack, results[1].id)
    with revoked(stack, server, results[0], job_id):
        stack.app.control.revoke_by_stamped_headers({"customer": [f"{stack.queue}-acme"]})
    assert stack.record(results[1].id).until == "job"
    with revoked(stack, server, results[1], None):
        stack.app.control.revoke(results[1].id)


@on_redis
@pytest.mark.celery55
def test_revoked_before_its_start(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 8."""
    stack.sig("ping").delay().get(timeout=60)  # a worker that has just begun may not yet hear what is told to all
    result = render(stack).apply_async(countdown=60)
    with revoked(stack, server, result, None):
        stack.app.control.revoke(result.id)
    assert jobs_of(server, result.id) == []


@on_redis
def test_revoked_while_its_body_runs(stack: Stack, server: FramelaneServer) -> None:
    """As in Celery, a running body is let be; the job that it makes is cancelled."""
    result = stack.sig("long_body", 1.0).apply_async()
    wait_for(lambda: [note for note in stack.journal("body") if note["id"] == result.id])
    with revoked(stack, server, result, None):
        stack.app.control.revoke(result.id)
    assert [server.jobs[job]["status"] for job in jobs_of(server, result.id)] == ["cancelled"]


@on_redis
def test_terminated_while_its_body_runs(stack: Stack, server: FramelaneServer) -> None:
    result = stack.sig("long_body", 60.0).apply_async()
    wait_for(lambda: [note for note in stack.journal("body") if note["id"] == result.id])
    with revoked(stack, server, result, None):
        stack.app.control.revoke(result.id, terminate=True)
    assert jobs_of(server, result.id) == []


@pytest.mark.celery55
def test_revoked_before_a_restart(make_stack: MakeStack, server: FramelaneServer) -> None:
    """celery_facts row 8: what one worker heard, another does: it is in the room.

    The first worker leads nothing (watcher=False), the second has never heard of the revoke.
    """
    stack = make_stack("redis", server)
    result = chain(render(stack, outcome="never"), stack.sig("note", tag="never")).apply_async().parent
    queued = render(stack).apply_async(countdown=300)
    standby = json.dumps({**stack.framelane, "watcher": False})
    with stack.worker("-c", "1", name="w1", TEST_FRAMELANE=standby):
        job_id = job_of(stack, result.id)
        stack.app.control.revoke([result.id, queued.id])
        wait_for(lambda: {f"id:{result.id}", f"id:{queued.id}"} <= set(stack.room.revokes_since(0)[0]))
        assert stack.record(result.id).until == "job"
    with stack.worker("-c", "1", "-E", name="w2"):
        stack.until(result.id, "done")
        stack.until(queued.id, "done")
    assert (result.state, queued.state) == ("REVOKED", "REVOKED")
    assert server.jobs[job_id]["status"] == "cancelled"


@on_redis
def test_a_revoked_record_of_a_newer_version_stops_nothing(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad record never stops the others."""
    task_id = str(uuid4())
    with monkeypatch.context() as newer:
        newer.setattr(records, "FORMAT", 99)
        stack.room.create(Record(id=task_id, task="framelane.render", call="", digest=""))
    stack.app.control.revoke(task_id)
    wait_for(lambda: f"id:{task_id}" in stack.room.revokes_since(0)[0])
    results = [render(stack).apply_async(countdown=0.5) for _ in range(2)]  # the clock goes on
    assert [result.get(timeout=60)["status"] for result in results] == ["completed", "completed"]


@on_redis
def test_a_revoked_member_of_a_chord_ends_as_celerys_own(stack: Stack, server: FramelaneServer, worker: Worker) -> None:
    def outcome(member: Any, other: Any, wait: Callable[[str], object]) -> tuple[str, str, int]:
        body = stack.sig("ids")
        body.link_error(stack.sig("told"))
        result = chord([member, other], body).apply_async()
        first = result.parent.children[0]
        wait(first.id)
        stack.app.control.revoke(first.id)
        wait_for(result.ready)
        wait_for(lambda: [note for note in stack.journal("told") if note["id"] == result.id])
        told = [note for note in stack.journal("told") if note["id"] == result.id]
        return first.state, type(result.result).__name__, len(told)

    def scheduled(task_id: str) -> None:
        inspect = stack.app.control.inspect([worker.node], timeout=5)
        wait_for(lambda: task_id in json.dumps(inspect.scheduled(), default=str))

    plain = outcome(stack.sig("note", 1).set(countdown=5), stack.sig("note", 1), scheduled)
    ours = outcome(render(stack, outcome="never"), render(stack), lambda task_id: stack.until(task_id, "job"))
    assert ours == plain
    assert plain[:2] == ("REVOKED", ChordError.__name__)


# --- the job ends otherwise --------------------------------------------------------------------------------------


@on_redis
@pytest.mark.celery55
def test_a_deadline_looks_again_cancels_and_times_out(stack: Stack, server: FramelaneServer) -> None:
    result = stack.sig("impatient", outcome="never").apply_async()
    [job_id] = wait_for(lambda: jobs_of(server, result.id))  # its record waits for a second only
    with pytest.raises(JobTimedOut) as caught:
        result.get(timeout=60)
    assert caught.value.job_id == job_id
    assert server.jobs[job_id]["status"] == "cancelled"
    traffic = [entry.method for entry in server.ledger if job_id in entry.path]
    assert traffic.count("DELETE") == 1
    assert "GET" in traffic[traffic.index("DELETE") :]  # the last look


@on_redis
def test_a_job_that_ends_in_time_is_no_timeout(stack: Stack, server: FramelaneServer) -> None:
    result = stack.sig("impatient", seconds="0.9").apply_async()
    assert result.get(timeout=60)["status"] == "completed"


@on_redis
@pytest.mark.celery55
def test_a_job_cancelled_in_the_console(stack: Stack, server: FramelaneServer) -> None:
    result = render(stack, outcome="never").apply_async()
    server.cancel(job_of(stack, result.id))
    with pytest.raises(JobCancelled):
        result.get(timeout=60)


@on_redis
def test_a_job_that_fails_while_it_is_watched(stack: Stack, server: FramelaneServer) -> None:
    result = render(stack, outcome="never").apply_async()
    server.fail(job_of(stack, result.id), "asset_timeout", "The asset did not come.")
    with pytest.raises(JobFailed, match="did not come") as caught:
        result.get(timeout=60)
    assert caught.value.code == "asset_timeout"


# --- a server that is otherwise ----------------------------------------------------------------------------------


def test_a_server_that_ignores_wait(make_stack: MakeStack) -> None:
    with make_server(switches=Switches(has_wait=False)) as server:
        stack = make_stack("redis", server)
        with stack.worker("-c", "1") as worker:
            assert render(stack, seconds="2").apply_async().get(timeout=60)["status"] == "completed"
            assert render(stack, seconds="0.5").apply_async().get(timeout=60)["status"] == "completed"
            assert worker.log.count("ignores ?wait") == 1
            # One, or two if the first answer took so long that it could have been a wait.
            assert 1 <= len([read for read in server.ledger.reads() if read.query.get("wait")]) <= 2
            assert len(server.ledger.reads()) <= 10


def test_an_unknown_status_is_not_finished(make_stack: MakeStack) -> None:
    with make_server(switches=Switches(unknown_status="levitating", short_post_body=True)) as server:
        stack = make_stack("redis", server)
        with stack.worker("-c", "1") as worker:
            result = render(stack, outcome="never", seconds="12").apply_async()
            wait_for(lambda: (result.info or {}).get("status") == "levitating")
            server.finish(job_of(stack, result.id))
            assert result.get(timeout=60)["status"] == "completed"
            assert "Traceback" not in worker.log


def test_one_worker_leads_and_another_takes_over(make_stack: MakeStack, server: FramelaneServer) -> None:
    """On SIGTERM the lead is handed over at once; nothing waits for the dead one's lease."""
    stack = make_stack("redis", server)
    with stack.worker("-c", "1", name="w1") as first, stack.worker("-c", "1", name="w2") as second:
        result = render(stack, outcome="never").apply_async()
        job_id = job_of(stack, result.id)
        leads = ": watching, token"
        leader = wait_for(lambda: next((each for each in (first, second) if leads in each.log), None))
        other = second if leader is first else first
        asked_at = time.monotonic()
        leader.signal(signal.SIGTERM)
        wait_for(lambda: leads in other.log)
        assert time.monotonic() - asked_at < LEAD_S - 2  # what is not handed over ends LEAD_S after its last renewal
        assert leader.process is not None
        leader.process.wait(60)
        server.finish(job_id)
        result.get(timeout=60)
