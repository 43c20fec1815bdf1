"""What waits long: for a submit slot, for results that expire, for a POST whose answer never came."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import chord

from framelane_celery import FramelaneClient, JobFailed, wakeups
from framelane_celery.models import RenderRequest
from framelane_celery.records import KEY_LIFE_S, Record
from framelane_celery.testing import Completed, FramelaneServer, Never
from tests.worker.project import composition
from tests.worker.stacks import REDIS, Stack, wait_for

pytestmark = [pytest.mark.worker]


def test_a_burst_queues_for_slots_in_order_and_makes_no_429(
    make_stack: Callable[..., Stack], server: FramelaneServer
) -> None:
    stack = make_stack("redis", server, framelane={"renders_per_minute": 3})
    with stack.worker("-c", "1", name="slow"):
        results = [stack.sig("framelane.render", composition(str(n))).apply_async() for n in range(8)]
        wait_for(lambda: stack.room.waiting("slot:render") == 5, what="five wait for a slot")
        assert [result.get(timeout=60)["status"] for result in results[:3]] == ["completed"] * 3
        queued, _ = stack.room.due("slot:render", 10)
        assert [record.id for record in queued] == [result.id for result in results[3:]]
    stack.framelane["renders_per_minute"] = 1000
    with stack.worker("-c", "1", name="fast"):
        assert [result.get(timeout=60)["status"] for result in results] == ["completed"] * 8
    ours = {result.id for result in results}
    posts = [entry for entry in server.ledger.posts() if json.loads(entry.body)["metadata"]["celery_task_id"] in ours]
    assert [json.loads(entry.body)["metadata"]["celery_task_id"] for entry in posts] == [r.id for r in results]
    assert {entry.status for entry in posts} == {202}


def test_results_and_a_chord_outlive_a_wait_that_is_longer_than_results_are_kept(
    make_stack: Callable[..., Stack],
) -> None:
    """celery_facts row 7: else the member's state and the chord's counters are gone, and the body never runs."""
    ends = {"short": Completed(), "long": Never()}
    with FramelaneServer(outcome=lambda job: ends[job.body["elements"][0]["text"]]) as server:
        stack = make_stack("redis", server, celery={"result_expires": 6}, framelane={"long_polls": 0})
        with stack.worker("-c", "1"):
            members = [stack.sig("framelane.render", composition(text)) for text in ends]
            result = chord(members, stack.sig("ids")).apply_async()
            long = result.parent.results[1]
            record = stack.until(long.id, "job")
            silent_until = time.monotonic() + 13
            wait_for(lambda: long.state == "PROGRESS" and time.monotonic() > silent_until, what="its state is kept")
            server.finish(record.job_id)
            assert len(result.get(timeout=60)) == 2


@pytest.mark.parametrize("made", [True, False], ids=["a job was made", "no job was made"])
def test_a_post_that_is_older_than_its_key_is_looked_for_and_never_repeated(
    make_stack: Callable[..., Stack], server: FramelaneServer, made: bool
) -> None:
    stack = make_stack("redis", server)
    task = stack.app.tasks["framelane.render"]
    call = wakeups.call_of(task, [composition()], {}, {})
    task_id = f"forgotten-{stack.namespace}"
    body = RenderRequest.model_validate(composition()).body(
        metadata={"celery_task_id": task_id, "celery_task": "framelane.render"}
    )
    now = time.time()
    stack.room.create(
        Record(
            id=task_id, task=task.name, call=call.to_text(), digest=wakeups.digest_of(call), created_at=now,
            due_at=now + 60, request=json.dumps({"kind": "render", "path": "/v1/renders", "body": body.decode()}),
            job_kind="render", first_post_at=now - KEY_LIFE_S + 60,
        )
    )  # fmt: skip
    if made:
        with FramelaneClient("fl_test_key", server.base_url) as client:
            job_id = client.submit("/v1/renders", body, "a key that the API has forgotten").job.id
    record: Any = stack.record(task_id)
    with stack.worker("-c", "1"):
        wakeups.publish(stack.app, record)
        result = task.AsyncResult(task_id)
        if made:
            assert result.get(timeout=60)["id"] == job_id
        else:
            with pytest.raises(JobFailed, match="not answered") as failed:
                result.get(timeout=60)
            assert failed.value.code == "outcome_unknown"
    assert len(server.ledger.jobs_per_task().get(task_id, [])) == int(made)


def test_progress_is_stored_before_the_record_waits(make_stack: Callable[..., Stack], server: FramelaneServer) -> None:
    """celery_facts row 2: stored later, it could come after the end, and some backends would show it over SUCCESS."""
    stack = make_stack("redis", server, celery={"result_backend": f"tests.worker.noting:NotingBackend+{REDIS}/11"})
    with stack.worker("-c", "1"):
        result = stack.sig("framelane.render", composition()).apply_async()
        assert result.get(timeout=60)["status"] == "completed"
    assert [note["until"] for note in stack.journal("progress")] == ["running"]
