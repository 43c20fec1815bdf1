"""How a task is called, and what its two runs make of it: arguments, ids, options, retries, replacements, limits."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, group
from celery.canvas import StampingVisitor
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery.states import READY_STATES

from framelane_celery import DuplicateTask, InvalidArguments, JobFailed, RenderRequest
from framelane_celery.models import TextElement
from framelane_celery.testing import Fault, FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, Worker, jobs_of, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.celery55, pytest.mark.parametrize("stack", ["redis"], indirect=True)]


def notes_of(stack: Stack, event: str, **fields: Any) -> list[dict[str, Any]]:
    return [note for note in stack.journal(event) if all(note[name] == value for name, value in fields.items())]


def posts(server: FramelaneServer) -> int:
    return len(server.ledger.posts())


# --- the same id -------------------------------------------------------------------------------------------------


def test_the_same_id_pays_once_also_concurrently_and_afterwards(stack: Stack, server: FramelaneServer) -> None:
    task_id = f"product-42-{uuid4()}"
    call = stack.sig("framelane.render", composition("same"))
    threads = [threading.Thread(target=call.apply_async, kwargs={"task_id": task_id}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job = stack.app.AsyncResult(task_id).get(timeout=60)
    stack.until(task_id, "done")
    assert call.apply_async(task_id=task_id).get(timeout=60)["id"] == job["id"]
    assert stack.record(task_id).until == "done"
    assert jobs_of(server, task_id) == [job["id"]]


def test_the_same_id_with_other_arguments_is_refused(stack: Stack, server: FramelaneServer) -> None:
    task_id = str(uuid4())
    result = stack.sig("framelane.render", composition("one")).apply_async(task_id=task_id)
    for _ in range(2):  # while it waits, and when it is done
        with pytest.raises(DuplicateTask, match="other arguments") as caught:
            stack.sig("framelane.render", composition("two")).apply_async(task_id=task_id)
        assert caught.value.task_id == task_id
        result.get(timeout=60)
        stack.until(task_id, "done")
    assert len(jobs_of(server, task_id)) == 1


def test_a_taken_id_inside_a_task_does_not_fail_that_task(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 14: what is raised in a worker's `apply_async` is the running task's failure."""
    task_id = str(uuid4())
    job = stack.sig("framelane.render", composition("one")).apply_async(task_id=task_id).get(timeout=60)
    assert stack.sig("call_render", "two", task_id=task_id).delay().get(timeout=60) == task_id
    assert jobs_of(server, task_id) == [job["id"]]


# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "field"),
    [
        ("framelane.render", [{"elements": [{"type": "text", "text": "x", "colour": "#ffffff"}]}], {}, "colour"),
        ("framelane.render", [], {"elements": "none"}, "elements"),
        ("framelane.render", [17], {}, "int"),
        ("framelane.transcribe", ["ftp://files.example.com/a.mp4"], {}, "source_url"),
        ("framelane.transcribe", ["https://files.example.com/a.mp4"], {"speakers_expected": 99}, "speakers_expected"),
        ("promo", [object()], {}, "JSON"),
        ("promo", [{1, 2}], {}, "JSON"),
    ],
)
def test_bad_arguments_fail_in_the_caller(
    stack: Stack, server: FramelaneServer, task: str, args: list[Any], kwargs: dict[str, Any], field: str
) -> None:
    task_id = str(uuid4())
    before = posts(server)
    with pytest.raises(InvalidArguments, match=field):
        stack.sig(task, *args, **kwargs).apply_async(task_id=task_id)
    assert stack.record(task_id) is None
    assert stack.app.AsyncResult(task_id).state == "PENDING"
    assert posts(server) == before


def test_a_wrong_number_of_arguments_fails_in_the_caller(stack: Stack) -> None:
    task_id = str(uuid4())
    with pytest.raises(TypeError):
        stack.app.tasks["tests.worker.project.promo"].apply_async(("a", "b", "c"), task_id=task_id)
    assert stack.record(task_id) is None


def test_bad_arguments_inside_a_canvas_fail_in_their_own_run(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 14: the previous task stays SUCCESS."""
    before = posts(server)
    bad = {"elements": [{"type": "text", "text": "x", "colour": "#ffffff"}]}
    result = chain(stack.sig("note", bad, tag="before"), stack.sig("framelane.render")).apply_async()
    wait_for(result.ready)
    assert isinstance(result.result, InvalidArguments)
    assert "colour" in str(result.result)
    assert result.parent.get(timeout=60) == bad  # Celery stores it only after it has published the next task
    assert result.parent.state == "SUCCESS"
    stack.until(result.id, "dead")
    assert posts(server) == before


def test_a_model_a_dict_and_fields_by_name_are_the_same_request(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 15: a model as an argument is dumped by the base class."""
    model = RenderRequest(elements=[TextElement(text="hello", duration=2)])
    calls = [
        stack.sig("framelane.render", model),
        stack.sig("framelane.render", composition()),
        stack.sig("framelane.render", **composition()),
        stack.sig("framelane.render", composition=composition()),
    ]
    results = [call.apply_async() for call in calls]
    ids = [result.get(timeout=60)["id"] for result in results]
    bodies = [post.json() for post in server.ledger.posts() if post.job_id in ids]
    assert [body["elements"] for body in bodies] == [bodies[0]["elements"]] * 4


def test_celerys_own_values_survive_both_runs(stack: Stack) -> None:
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    result = stack.sig("own_result", "x", note=at).apply_async()
    ended = result.get(timeout=60)
    assert ended["args"] == ["x"]
    assert ended["kwargs"] == {"note": at}


@pytest.mark.parametrize("what", [{"elements": []}, None, "render me"])
def test_a_body_that_returns_something_else_is_refused_clearly(stack: Stack, what: Any) -> None:
    result = stack.sig("returns", what).apply_async()
    with pytest.raises(InvalidArguments, match="must return a request model"):
        result.get(timeout=60)


def test_pydantic_true_is_refused_clearly(stack: Stack) -> None:
    """celery_facts row 15: with pydantic=True the base gets a dict."""
    with pytest.raises(InvalidArguments, match="pydantic=True"):
        stack.sig("as_dict").apply_async().get(timeout=60)


# --- retry and replace -------------------------------------------------------------------------------------------


def test_retry_in_the_body_runs_the_body_again(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 10: a retry publishes under the running id."""
    result = chain(stack.sig("retrying", "again"), stack.sig("note", tag="after-retry")).apply_async()
    job = result.get(timeout=60)
    assert [note["retries"] for note in notes_of(stack, "body", id=result.parent.id)] == [0, 1]
    assert jobs_of(server, result.parent.id) == [job["id"]]
    assert len(notes_of(stack, "plain", tag="after-retry")) == 1


def test_retry_in_completed_keeps_the_job(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 10: our header travels along; the record says what is asked."""
    result = stack.sig("retries_completed").apply_async()
    job = result.get(timeout=60)
    assert [(note["retries"], note["job"]) for note in notes_of(stack, "completed", job=job["id"])] == [
        (0, job["id"]),
        (1, job["id"]),
    ]
    assert jobs_of(server, result.id) == [job["id"]]


def test_retries_that_end_raise_what_they_were_for(stack: Stack) -> None:
    with pytest.raises(OSError, match="away"):
        stack.sig("never_ready").apply_async().get(timeout=60)


def test_autoretry_for_is_about_the_body(stack: Stack, server: FramelaneServer) -> None:
    result = stack.sig("flaky").apply_async()
    result.get(timeout=60)
    assert [note["retries"] for note in notes_of(stack, "body", id=result.id)] == [0, 1, 2]
    assert len(jobs_of(server, result.id)) == 1


@pytest.mark.parametrize(("shape", "jobs"), [("plain", 0), ("render", 1), ("chain", 1)])
def test_replace(stack: Stack, server: FramelaneServer, shape: str, jobs: int) -> None:
    """celery_facts row 10."""
    result = chain(stack.sig("replacing", shape), stack.sig("note", tag=f"after-{shape}")).apply_async()
    job = result.get(timeout=60)
    assert job["id"] == "plain" if shape == "plain" else job["status"] == "completed"
    wait_for(lambda: len(notes_of(stack, "plain", tag=f"after-{shape}")) == 1)
    assert len(jobs_of(server, result.parent.id)) == jobs


# --- when it starts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["countdown", "eta"])
def test_a_later_start_waits_in_the_room(stack: Stack, worker: Worker, how: str) -> None:
    """celery_facts row 9: no ETA message in the broker, and none in a worker's memory."""
    called_at = time.time()
    when = {"countdown": 2.5} if how == "countdown" else {"eta": datetime.now(timezone.utc) + timedelta(seconds=2.5)}
    result = stack.sig("promo", how).apply_async(**when)
    assert stack.record(result.id).until == "instant"
    assert stack.app.control.inspect([worker.node], timeout=20).scheduled() == {worker.node: []}
    result.get(timeout=60)
    assert notes_of(stack, "body", id=result.id)[0]["at"] >= called_at + 2.4


def test_expires_means_start_before(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 3: a wake-up after `expires` is not discarded."""
    result = stack.sig("framelane.render", composition("long", seconds="5")).apply_async(expires=4.0)
    assert result.get(timeout=60)["status"] == "completed"
    assert result.state == "SUCCESS"


def test_what_expired_before_its_start_is_revoked_and_costs_nothing(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 3."""
    result = stack.sig("framelane.render", composition("late")).apply_async(countdown=0.8, expires=0.3)
    stack.until(result.id, "done")
    wait_for(lambda: result.state == "REVOKED")
    assert isinstance(result.result, TaskRevokedError)
    assert "expired" in str(result.result)
    assert jobs_of(server, result.id) == []


# --- options -----------------------------------------------------------------------------------------------------


class Stamp(StampingVisitor):  # type: ignore[misc]
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return {"customer": "acme", "stamped_headers": ["customer"]}


def test_options_are_the_same_in_both_runs(stack: Stack) -> None:
    """celery_facts, "signature_from_request keeps / loses"."""
    call = stack.sig("reporting", "options", seconds="0.1")
    call.stamp(Stamp())
    result = call.apply_async(
        priority=3, headers={"x-mine": "kept"}, shadow="shown", time_limit=60, soft_time_limit=50, argsrepr="(hidden)",
        root_id=None, expires=60,
    )  # fmt: skip
    result.get(timeout=60)
    [first], [second] = notes_of(stack, "first", id=result.id), notes_of(stack, "second", id=result.id)
    same = {key for key in first if key not in ("at", "pid", "event")}
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
    assert second["own"] == "kept"
    assert second["priority"] == 3
    assert second["stamps"] == {"customer": ["acme"]} or second["stamps"] == {"customer": "acme"}
    assert (second["shadow"], second["argsrepr"], second["timelimit"]) == ("shown", "(hidden)", [60, 50])
    assert (second["expires"], second["eta"]) == (None, None)


def test_ignored_results_leave_nothing_behind(stack: Stack) -> None:
    """celery_facts row 12: no PROGRESS that stays for ever, in either run."""
    result = stack.sig("framelane.render", composition("quiet", seconds="0.6")).apply_async(ignore_result=True)
    key = stack.app.backend.get_key_for_task(result.id)
    seen = set()
    while stack.record(result.id).until != "done":
        seen.add(stack.app.backend.client.get(key))
        time.sleep(0.02)
    seen.add(stack.app.backend.client.get(key))
    assert seen == {None}


def test_the_soft_time_limit_in_the_body_is_the_bodys_own(stack: Stack, server: FramelaneServer) -> None:
    result = stack.sig("hurried", sleep_s=60).apply_async()
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=60)
    assert jobs_of(server, result.id) == []
    stack.until(result.id, "done")


def test_the_soft_time_limit_in_the_post_repeats_the_post(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 6: same attempt, same key, same bytes, again."""
    slow = server.faults.add(Fault("slow", method="POST", path="/v1/renders", seconds=8.0, times=1))
    result = stack.sig("hurried", "slow post").apply_async()
    job = result.get(timeout=60)
    sent = [post for post in server.ledger.posts() if post.job_id == job["id"]]
    assert server.faults.struck(slow) == 1
    assert len({(post.idempotency_key, post.body) for post in sent}) == 1
    assert jobs_of(server, result.id) == [job["id"]]
    assert len(notes_of(stack, "body", id=result.id)) == 1


def test_a_hard_time_limit_ends_the_task_once(stack: Stack, server: FramelaneServer) -> None:
    result = stack.sig("slow_body", 30).apply_async(time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=60)
    stack.until(result.id, "done")
    assert jobs_of(server, result.id) == []


def test_throws_of_the_users_own(stack: Stack, worker: Worker) -> None:
    result = stack.sig("throwing").apply_async()
    with pytest.raises(LookupError):
        result.get(timeout=60)
    failed = stack.sig("framelane.render", composition(outcome="fail")).apply_async()
    with pytest.raises(JobFailed):
        failed.get(timeout=60)
    for task_id in (result.id, failed.id):  # expected errors are told without a traceback
        said = f"{task_id}] raised expected"
        line = wait_for(lambda said=said: [line for line in worker.log.splitlines() if said in line])[0]
        assert "INFO" in line


def test_started_is_never_shown_over_progress(stack: Stack) -> None:
    """Though the project asks for it with task_track_started."""
    result = stack.sig("framelane.render", composition("states", seconds="1.5")).apply_async()
    states = {state := result.state}
    while state not in READY_STATES:
        time.sleep(0.01)
        states.add(state := result.state)
    assert states <= {"PENDING", "PROGRESS", "SUCCESS"}
    assert "PROGRESS" in states


# --- where it comes from -----------------------------------------------------------------------------------------


def test_trail_and_children(stack: Stack) -> None:
    result = stack.sig("parent_of").apply_async()
    result.get(timeout=60)
    [child] = result.children
    assert child.get(timeout=60) == "from completed"


def test_a_task_called_inside_a_task_knows_its_parent(stack: Stack) -> None:
    outer = stack.sig("call_render", "inner").delay()
    inner = outer.get(timeout=60)
    assert [child.id for child in outer.children] == [inner]
    wait_for(lambda: stack.app.AsyncResult(inner).state == "SUCCESS")


def test_a_task_published_by_name_from_elsewhere(stack: Stack, server: FramelaneServer) -> None:
    """An app without our package only knows the name: `begin` writes the record."""
    with Celery("elsewhere", set_as_current=False) as other:
        other.conf.update(stack.celery)
        result = other.send_task("framelane.render", [composition("by name")], link=stack.sig("note", tag="by-name"))
        job = stack.app.AsyncResult(result.id).get(timeout=60)
    assert jobs_of(server, result.id) == [job["id"]]
    wait_for(lambda: notes_of(stack, "plain", tag="by-name"))
    assert stack.until(result.id, "done")


def test_a_second_message_of_a_finished_task_does_nothing(stack: Stack, server: FramelaneServer) -> None:
    """celery_facts row 1: a wrong step or a finished record drops the message."""
    result = stack.sig("framelane.render", composition("twice")).apply_async(link=stack.sig("note", tag="twice"))
    job = result.get(timeout=60)
    stack.until(result.id, "done")
    for step in (0, 2, 7):
        stack.app.send_task(
            "framelane.render", [composition("twice")], task_id=result.id, headers={"framelane": {"step": step}},
            link=stack.sig("note", tag="twice"),
        )  # fmt: skip
    stack.sig("note", tag="behind").delay().get(timeout=60)
    stack.sig("note", tag="behind").delay().get(timeout=60)
    assert jobs_of(server, result.id) == [job["id"]]
    assert len(notes_of(stack, "plain", tag="twice")) == 1
    assert result.state == "SUCCESS"


def test_a_step_without_a_record_is_dropped(stack: Stack, server: FramelaneServer) -> None:
    task_id = str(uuid4())
    stack.app.send_task("framelane.render", [composition()], task_id=task_id, headers={"framelane": {"step": 3}})
    group(stack.sig("note", tag="behind") for _ in range(3)).apply_async().get(timeout=60)
    assert jobs_of(server, task_id) == []
    assert stack.record(task_id) is None
