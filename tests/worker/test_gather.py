"""`gather` in real workers: what a body gets of tasks that fail, on Redis and on RabbitMQ, with their rooms."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain
from celery.exceptions import ChordError

from framelane_celery import Gathered, JobFailed, TaskFailure, dead_letters, gather
from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, wait_for

pytestmark = [
    pytest.mark.worker,
    pytest.mark.celery55,
    pytest.mark.parametrize("stack", ["redis", "rabbitmq"], indirect=True),
]

FAILS = {"outcome": "fail", "code": "source_gone"}


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


def of_kind(failed: list[TaskFailure]) -> list[tuple[str, str, bool]]:
    """Code, task, and whether there was a job."""
    return [(one.code, one.task.rpartition(".")[2], one.job_id is not None) for one in failed]


def test_a_body_gets_successes_and_failures_side_by_side(stack: Stack, server: FramelaneServer) -> None:
    twice = {"elements": [{"type": "text", "id": "a", "text": "hello", "duration": 2}] * 2}
    tasks = [
        render(stack, "first"),
        render(stack, **FAILS),
        render(stack, outcome="cancel"),
        stack.sig("impatient", outcome="never"),
        stack.sig("framelane.render", twice),  # refused by the server
        stack.sig("returns", 7),  # refused by ourselves
        stack.sig("with_routes", fails="1", code="mine"),  # tried again, and then finished
        stack.sig("with_routes", fails="9", code="mine"),
        stack.sig("retrying", **FAILS),
        stack.sig("replacing", "render", **FAILS),
        render(stack, "last"),
    ]
    result = gather(tasks, stack.sig("note", tag="gathered")).apply_async()
    got = result.get(timeout=60)
    assert [TaskFailure.of(item) is None for item in got] == [True, *[False] * 5, True, *[False] * 3, True]
    finished, failed = Gathered.of(got)
    assert [job["status"] for job in finished] == ["completed"] * 3
    assert of_kind(failed) == [
        ("source_gone", "render", True),
        ("cancelled", "render", True),
        ("timed_out", "impatient", True),
        ("invalid_request", "render", False),
        ("invalid_request", "returns", False),
        ("mine", "with_routes", True),
        ("source_gone", "retrying", True),
        ("source_gone", "render", True),
    ]
    members = [member.id for member in result.parent.children]
    assert [failure.task_id for failure in failed] == [members[at] for at, item in enumerate(got) if "failed" in item]
    assert [len(jobs_of(server, members[n])) for n in (0, 1, 6, 7)] == [1, 1, 2, 2]
    letters = {letter.id for letter in dead_letters.letters(stack.room)} & set(members)
    assert letters == {members[at] for at in (1, 3, 4, 5, 8, 9)}


def test_in_a_chain_what_follows_a_failure_submits_nothing(stack: Stack, server: FramelaneServer) -> None:
    def steps(**metadata: str) -> Any:
        first = render(stack, **metadata)
        return chain(first, stack.sig("framelane.transcribe"), stack.sig("guarded"), stack.sig("note", tag="plain"))

    result = gather([steps(), steps(**FAILS)], stack.sig("note", tag="gathered")).apply_async()
    fine, failed = result.get(timeout=60)
    assert fine.startswith("task_")
    failure = TaskFailure.of(failed)
    assert failure is not None
    assert (failure.code, failure.task) == ("source_gone", "framelane.render")
    wait_for(stack.is_idle)
    transcribed = result.parent.children[1].parent.parent
    assert (transcribed.get(timeout=60), jobs_of(server, transcribed.id)) == (failed, [])
    guarded = result.parent.children[1].parent
    assert [note["id"] for note in stack.journal("plain") if note["tag"] == "guarded"].count(guarded.id) == 0


@pytest.mark.parametrize("metadata", [{}, FAILS])
def test_one_task_makes_a_list_too(stack: Stack, metadata: dict[str, str]) -> None:
    with_body = gather([render(stack, **metadata)], stack.sig("note", tag="gathered")).apply_async()
    alone = gather([chain(render(stack, **metadata), stack.sig("framelane.transcribe"))]).apply_async()
    of_another = gather([stack.sig("montage", **metadata)])
    inside = chain(render(stack), of_another, stack.sig("note", tag="end")).apply_async()
    for result in (with_body, alone, inside):
        [item] = result.get(timeout=60)
        assert (TaskFailure.of(item) is None) == (not metadata)


def test_without_a_body_the_list_is_what_get_gives(stack: Stack) -> None:
    got = gather([render(stack, **FAILS), render(stack)]).apply_async().get(timeout=60)
    assert [TaskFailure.of(item) is None for item in got] == [False, True]


def test_headers_of_the_callers_own_do_not_end_it(stack: Stack) -> None:
    """Celery gives a call's headers to each task of the canvas, in place of its own."""

    def made() -> Any:
        steps = chain(render(stack, **FAILS), stack.sig("framelane.transcribe"))
        return gather([steps, render(stack, **FAILS), render(stack)], stack.sig("note", tag="gathered"))

    for result in (made().apply_async(headers={"request": "7"}), made().set(headers={"request": "7"}).apply_async()):
        got = result.get(timeout=60)
        assert [TaskFailure.of(item) is None for item in got] == [False, False, True]


def test_it_stands_in_a_chain(stack: Stack) -> None:
    middle = gather([stack.sig("montage"), stack.sig("montage", **FAILS)], stack.sig("note", tag="gathered"))
    got = chain(render(stack), middle, stack.sig("note", tag="end")).apply_async().get(timeout=60)
    assert [TaskFailure.of(item) is None for item in got] == [True, False]


def test_neither_links_nor_errbacks_run_for_a_failure_that_is_gathered(stack: Stack) -> None:
    failing = render(stack, **FAILS)
    failing.link(stack.sig("note", tag="linked"))
    failing.link_error(stack.sig("told"))
    fine = render(stack)
    fine.link(stack.sig("note", tag="linked"))
    result = gather([failing, fine], stack.sig("note", tag="gathered")).apply_async()
    result.get(timeout=60)
    ended = {member.id for member in result.parent.children}
    wait_for(lambda: [note for note in stack.journal("plain") if note["tag"] == "linked"])
    wait_for(stack.is_idle)
    assert len([note for note in stack.journal("plain") if note["tag"] == "linked"]) == 1
    assert not ended & {note["id"] for note in stack.journal("told")}


def test_a_message_without_a_record_is_gathered_too(stack: Stack) -> None:
    """As a worker sends it that does not know the task."""
    sent = stack.app.send_task(
        "framelane.render", [composition(**FAILS)], headers={"framelane_gathered": True}, queue=stack.queue
    )
    assert TaskFailure.of(sent.get(timeout=60)) is not None


def test_a_replay_is_outside_so_it_raises(stack: Stack) -> None:
    steps = chain(render(stack, **FAILS), stack.sig("framelane.transcribe"))
    result = gather([steps, render(stack)], stack.sig("note", tag="gathered")).apply_async()
    failure = TaskFailure.of(result.get(timeout=60)[0])
    assert failure is not None
    letter = wait_for(lambda: [one for one in dead_letters.letters(stack.room) if one.id == failure.task_id])[0]
    again = stack.app.AsyncResult(dead_letters.replay(stack.app, letter.id).task_id)
    with pytest.raises(JobFailed):
        again.get(timeout=60)
    assert len([note for note in stack.journal("plain") if note["id"] == result.id]) == 1


def test_a_later_step_of_a_replay_runs_outside_too(stack: Stack) -> None:
    """Though its id has passed the failure on, and is over."""
    once = {"fails": "1", "code": "source_gone", "counted_as": f"later-{stack.namespace}"}
    steps = chain(render(stack, **once), stack.sig("montage", **FAILS))
    failure = TaskFailure.of(gather([steps]).apply_async().get(timeout=60)[0])
    assert failure is not None
    wait_for(lambda: stack.record(failure.task_id).is_letter)
    before = {letter.id for letter in dead_letters.letters(stack.room)}
    again = stack.app.AsyncResult(dead_letters.replay(stack.app, failure.task_id).task_id)
    assert again.get(timeout=60)["status"] == "completed"
    rest = "tests.worker.project.montage"
    last = wait_for(lambda: [one for one in dead_letters.letters(stack.room, task=rest) if one.id not in before])
    assert stack.app.AsyncResult(last[0].id).state == "FAILURE"


def test_an_exception_of_the_users_own_fails_the_whole(stack: Stack) -> None:
    result = gather([render(stack), stack.sig("raising", "bug")], stack.sig("note", tag="gathered")).apply_async()
    wait_for(result.ready)
    assert isinstance(result.result, ChordError)


def test_a_replacement_with_an_immutable_step_is_not_gathered(stack: Stack) -> None:
    """That step would run after the failure, and its result stand in the list as if nothing had failed."""
    result = gather([render(stack), stack.sig("replacing", "immutable", **FAILS)], stack.sig("note", tag="gathered"))
    result = result.apply_async()
    wait_for(result.ready)
    assert isinstance(result.result, JobFailed | ChordError)
    assert not [note for note in stack.journal("plain") if note["tag"] == "after"]


def test_a_revoke_fails_the_whole(stack: Stack) -> None:
    result = gather([render(stack), render(stack, outcome="never")], stack.sig("note", tag="gathered")).apply_async()
    member = result.parent.children[1]
    stack.until(member.id, "job")
    member.revoke()
    wait_for(result.ready)
    assert isinstance(result.result, ChordError)
    assert member.state == "REVOKED"
