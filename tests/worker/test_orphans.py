"""A room that comes back empty, with jobs in flight: the waits are brought back, and nothing is paid twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis
from celery import chain, states

from framelane_celery import JobFailed, wakeups
from framelane_celery.testing import FramelaneServer, Never
from tests.worker.project import composition
from tests.worker.stacks import REDIS, ROOT, WAIT_S, Stack, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker]
MakeStack = Callable[..., Stack]

LIMITS = {"renders_per_minute": 10000, "media_tasks_per_minute": 10000, "reads_per_minute": 6000}


@contextmanager
def old_server() -> Iterator[FramelaneServer]:
    """A server whose clock is behind, so that nobody has to wait until its jobs are older than a lease."""
    with make_server(start_at=time.time() - 60) as server:
        yield server


def empty_room(stack: Stack) -> int:
    """Forget every key of the stack's own room, as a Redis that restarted without AOF would; how many."""
    with redis.Redis.from_url(f"{REDIS}/12") as client:
        keys = list(client.scan_iter(f"{{framelane:{stack.namespace}}}:*", count=1000))
        return sum(client.delete(key) for key in keys)


def run(stack: Stack, *words: str) -> Any:
    """`celery framelane orphans …`, as an operator types it."""
    command = [sys.executable, "-m", "celery", "-A", "tests.worker.project", "framelane", "orphans", *words, "--json"]
    env = {"PATH": "/usr/bin:/bin", **stack.environment()}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_flight(stack: Stack, count: int, **metadata: str) -> list[Any]:
    """So many renders, each with its job and its PROGRESS."""
    render = stack.sig("framelane.render", composition("hello", outcome="never", **metadata))
    results = [render.apply_async() for _ in range(count)]
    for result in results:
        stack.until(result.id, "job")
        wait_for(lambda one=result: one.state == "PROGRESS", what="PROGRESS")
    return results


@pytest.mark.celery55
def test_20_waits_come_back_after_the_room_came_back_empty(make_stack: MakeStack) -> None:
    """Some of their jobs end before somebody adopts them. Their results come under their old ids; each is paid once."""
    with old_server() as server:
        stack = make_stack("redis", server, framelane=LIMITS)
        with stack.worker("-c", "2"):
            results = in_flight(stack, 19)
            tailed = chain(
                stack.sig("framelane.render", composition("tail", outcome="never")), stack.sig("note", tag="tail")
            ).apply_async()
            results.append(tailed.parent)
            stack.until(tailed.parent.id, "job")
            jobs = {result.id: jobs_of(server, result.id)[0] for result in results}
            assert empty_room(stack) > 20
            for job_id in list(jobs.values())[:7]:
                server.finish(job_id)
            assert {row["id"] for row in run(stack, "list")} == set(jobs.values())
            assert {result.state for result in results} == {"PROGRESS"}
            rows = run(stack, "adopt", "--all")
            assert {row["task_id"]: row["id"] for row in rows} == jobs
            for job_id in list(jobs.values())[7:]:
                server.finish(job_id)
            ends = {result.id: result.get(timeout=WAIT_S) for result in results}
            assert {task_id: (job["id"], job["status"]) for task_id, job in ends.items()} == {
                task_id: (job_id, "completed") for task_id, job_id in jobs.items()
            }
            wait_for(stack.is_idle)
            assert run(stack, "list") == []
    assert {result.state for result in results} == {states.SUCCESS}
    assert {task_id: jobs_of(server, task_id) for task_id in jobs} == {task_id: [job] for task_id, job in jobs.items()}
    assert len(server.ledger.posts()) == 20
    assert stack.journal("plain") == []  # the canvas was in the record alone


def test_the_watcher_brings_them_back_unasked(make_stack: MakeStack) -> None:
    """It takes the lead of a room that has forgotten it, and a lease later searches. Only what our own results know."""
    with old_server() as server:
        stack = make_stack("redis", server, framelane=LIMITS)
        with stack.worker("-c", "2") as worker:
            results = in_flight(stack, 3)
            foreign = in_flight(stack, 1)[0]
            jobs = {result.id: jobs_of(server, result.id)[0] for result in results}
            foreign.forget()
            empty_room(stack)
            wait_for(lambda: all(stack.record(task_id) is not None for task_id in jobs), what="all adopted")
            for job_id in jobs.values():
                server.finish(job_id)
            assert {result.id: result.get(timeout=WAIT_S)["id"] for result in results} == jobs
            assert stack.record(foreign.id) is None
        assert "3 jobs adopted, whose records were lost; left: 1 no_record" in worker.log
    assert len(server.ledger.posts()) == 4


def test_what_has_failed_meanwhile_fails_and_its_body_is_not_run_without_arguments(make_stack: MakeStack) -> None:
    """`promo` has defaults: run again, it would pay for a job that nobody asked for."""
    with FramelaneServer(outcome=lambda job: Never(), start_at=time.time() - 60) as server:
        stack = make_stack("redis", server, framelane={**LIMITS, "routes": []})  # so that `internal` is a retry
        with stack.worker("-c", "1"):
            result = stack.sig("promo", "hello").apply_async()
            job_id = stack.until(result.id, "job").job_id
            empty_room(stack)
            server.fail(job_id)
            run(stack, "adopt", job_id)
            with pytest.raises(JobFailed, match=f"job {job_id} failed"):
                result.get(timeout=WAIT_S)
            letter = stack.until(result.id, "dead")
    assert letter.failure["code"] == "internal"
    assert len(stack.journal("body")) == 1
    assert jobs_of(server, result.id) == [job_id]


def test_a_message_that_comes_again_finds_the_adopted_record(make_stack: MakeStack) -> None:
    """It was in the broker, and outlived the room: it is stale, also once the job has ended."""
    with old_server() as server:
        stack = make_stack("redis", server, framelane=LIMITS)
        with stack.worker("-c", "1"):
            result = in_flight(stack, 1)[0]
            first = stack.record(result.id)
            job_id = jobs_of(server, result.id)[0]
            empty_room(stack)
            run(stack, "adopt", job_id)
            old = [replace(first, until="start", step=step) for step in range(first.step + 1)]
            for message in old:
                wakeups.publish(stack.app, message)
            server.finish(job_id)
            for message in old:
                wakeups.publish(stack.app, message)
            assert result.get(timeout=WAIT_S)["id"] == job_id
            wait_for(stack.is_idle)
            wait_for(lambda: not stack.waiting_in(stack.queue), what="all are taken")
    assert jobs_of(server, result.id) == [job_id]
    assert len(server.ledger.posts()) == 1
