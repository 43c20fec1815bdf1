"""GuardedTask: a plain task with a record: not lost, whatever dies; not run again once its result is stored."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord

from framelane_celery import DuplicateTask
from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, Worker, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.parametrize("stack", ["redis", "rabbitmq"], indirect=True)]


def runs(stack: Stack, task_id: str) -> int:
    return sum(note["id"] == task_id for note in stack.journal("plain"))


@pytest.mark.celery55
def test_after_a_render_and_before_a_plain_task(stack: Stack, server: FramelaneServer) -> None:
    sig = stack.sig
    result = chain(sig("framelane.render", composition()), sig("guarded"), sig("note", tag="last")).apply_async()
    assert result.get(timeout=20) in server.jobs
    stack.until(result.parent.id, "done")
    assert runs(stack, result.parent.id) == 1


def test_in_a_chord_and_as_its_body(stack: Stack) -> None:
    result = chord([stack.sig("guarded", n) for n in range(3)], stack.sig("guarded")).apply_async()
    assert result.get(timeout=20) == [0, 1, 2]


def test_its_own_errors_and_retries_are_celerys(stack: Stack) -> None:
    failed = stack.sig("guarded_failure").apply_async(link_error=stack.sig("told"))
    with pytest.raises(ValueError, match="a plain failure"):
        failed.get(timeout=20)
    wait_for(lambda: [note for note in stack.journal("told") if note["id"] == failed.id])
    stack.until(failed.id, "done")
    assert stack.sig("guarded_retry").apply_async().get(timeout=20) == 1


def test_the_same_id_is_the_same_work(stack: Stack) -> None:
    task_id = str(uuid4())
    for _ in range(3):
        assert stack.sig("guarded", 1).apply_async(task_id=task_id).get(timeout=20) == 1
    stack.until(task_id, "done")
    assert runs(stack, task_id) == 1
    with pytest.raises(DuplicateTask):
        stack.sig("guarded", 2).apply_async(task_id=task_id)


@pytest.mark.celery55
@pytest.mark.parametrize("point", ["body", "after_return"])
def test_a_killed_child_is_made_good(stack: Stack, point: str) -> None:
    """In its body it runs again; once its result is stored it does not, and its tail is not sent again."""
    stack.order(point, "kill child")
    result = chain(stack.sig("guarded", 7), stack.sig("note", tag=f"tail {point}")).apply_async()
    assert result.get(timeout=30) == 7
    stack.until(result.parent.id, "done", timeout_s=30)
    assert runs(stack, result.parent.id) == 1
    assert sum(note["tag"] == f"tail {point}" for note in stack.journal("plain")) == 1


def test_what_it_shows_hides_what_it_was_given(stack: Stack, worker: Worker) -> None:
    job = {"id": "render_1", "status": "completed", "output": {"url": "https://signed.example/x?sig=secret"}}
    with stack.events() as events:
        result = stack.sig("guarded", job).apply_async()
        assert result.get(timeout=20) == "render_1"
        wait_for(lambda: [e for e in events if e["type"] == "task-succeeded" and e["uuid"] == result.id])
    assert "secret" not in repr(events)


def test_called_directly_it_is_a_function(stack: Stack, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TEST_JOURNAL", str(tmp_path / "journal"))
    assert stack.app.tasks["tests.worker.project.guarded"](5) == 5
    assert stack.sig("guarded", 6).apply().get() == 6


@pytest.mark.fault
def test_a_killed_worker_costs_a_lease_and_not_an_hour(stack: Stack, make_stack: Any, server: Any) -> None:
    """broker_facts.md, "What follows", 2: a plain task would come back after `visibility_timeout`."""
    own = make_stack(stack.name, server)
    with own.worker("-c", "1") as first:
        own.order("body", "kill worker")
        result = own.sig("guarded", 3).apply_async()
        assert first.process is not None
        wait_for(lambda: first.process.poll() is not None)
        killed_at = time.monotonic()
    with own.worker("-c", "1", name="w2"):
        assert result.get(timeout=60) == 3
    assert time.monotonic() - killed_at < own.framelane["lease_s"] + 15
