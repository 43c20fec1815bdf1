"""Every canvas that Celery knows, over jobs: on each transport, with its room.

Where the promise is "as Celery's own", the same canvas of plain tasks runs beside ours and is compared.
"""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, TimeoutError

from framelane_celery import JobCancelled, JobFailed
from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, wait_for

pytestmark = [pytest.mark.worker]  # celery55: see the fixture `stack`

FAILS = {"outcome": "fail", "code": "source_gone"}


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


def told(stack: Stack, task_id: str | None = None) -> list[dict[str, Any]]:
    return [note for note in stack.journal("told") if note["id"] == task_id]


# --- what goes well ----------------------------------------------------------------------------------------------


def test_a_chain_goes_on_when_the_job_ends(stack: Stack) -> None:
    result = chain(render(stack), stack.sig("note", tag="after")).apply_async()
    job = result.get(timeout=60)
    assert job["status"] == "completed"
    assert job["metadata"]["celery_task_id"] == result.parent.id
    assert job["metadata"]["celery_task"] == "framelane.render"


def test_a_chain_of_three_jobs(stack: Stack, server: FramelaneServer) -> None:
    last = chain(render(stack), stack.sig("framelane.transcribe", language="en"), stack.sig("montage")).apply_async()
    ends = last.get(timeout=60)
    middle, first = last.parent, last.parent.parent
    assert ends["kind"] == "render"
    assert [len(jobs_of(server, one.id)) for one in (first, middle, last)] == [1, 1, 1]
    # Celery stores a result only after it has published the next task: it may come later than that one's.
    rendered, of_it = first.get(timeout=60), middle.get(timeout=60)
    transcribed = next(post for post in server.ledger.posts() if post.job_id == of_it["id"]).json()
    assert rendered["id"] in transcribed["source_url"]
    assert transcribed["language"] == "en"
    assert wait_for(stack.is_idle)


def test_plain_tasks_before_and_after(stack: Stack) -> None:
    before = stack.sig("note", composition("from a plain task"), tag="before")
    result = chain(before, stack.sig("framelane.render"), stack.sig("publish")).apply_async()
    said = result.get(timeout=60)
    assert said == f"render completed {result.parent.get(timeout=60)['id']}"  # stored after the next was published
    wait_for(lambda: result.parent.parent.state == "SUCCESS")


def test_a_group(stack: Stack) -> None:
    result = group(render(stack, str(n)) for n in range(4)).apply_async()
    jobs = result.get(timeout=60)
    assert [job["metadata"]["celery_task_id"] for job in jobs] == [child.id for child in result.children]


def test_a_chord_of_20(stack: Stack, server: FramelaneServer) -> None:
    body = chord([render(stack, str(n)) for n in range(20)], stack.sig("ids")).apply_async()
    found = body.get(timeout=60)
    assert [jobs_of(server, child.id) for child in body.parent.children] == [[job] for job in found]
    assert len([note for note in stack.journal("body") if note["id"] == body.id]) == 1


def test_a_chord_of_chains_ends_in_a_job(stack: Stack) -> None:
    chains = [chain(render(stack, str(n)), stack.sig("framelane.transcribe")) for n in range(3)]
    body = chord(chains, stack.sig("montage")).apply_async()
    assert body.get(timeout=60)["kind"] == "render"


def test_a_chain_with_a_group_in_the_middle(stack: Stack) -> None:
    middle = group(stack.sig("framelane.transcribe"), stack.sig("framelane.remove_background"))
    result = chain(render(stack), middle, stack.sig("montage"), stack.sig("note", tag="end")).apply_async()
    assert result.get(timeout=60)["kind"] == "render"


def test_a_nested_chord(stack: Stack) -> None:
    inner = chord([render(stack, "a"), render(stack, "b")], stack.sig("montage"))
    assert len(chord([inner, render(stack, "c")], stack.sig("ids")).apply_async().get(timeout=60)) == 2


def test_links_run_once_each_with_the_job(stack: Stack) -> None:
    first, second = stack.sig("note", tag="first"), stack.sig("montage")
    call = render(stack)
    call.link(first)
    call.link(second)
    result = call.apply_async()
    job = result.get(timeout=60)
    linked = result.children[0].get(timeout=60)  # two links are a group
    assert [one["id"] == job["id"] for one in linked] == [True, False]
    wait_for(stack.is_idle)
    assert len([note for note in stack.journal("plain") if note["tag"] == "first"]) == 1


# --- what fails --------------------------------------------------------------------------------------------------


def test_a_failed_job_tells_its_errback_once(stack: Stack) -> None:
    call = render(stack, **FAILS)
    call.link(stack.sig("note", tag="never"))
    call.link_error(stack.sig("told"))
    result = chain(call, stack.sig("note", tag="never")).apply_async()
    with pytest.raises(JobFailed) as caught:
        result.parent.get(timeout=60)
    error = caught.value
    assert (error.code, error.job_id is not None) == ("source_gone", True)
    wait_for(stack.is_idle)
    [note] = told(stack, result.parent.id)
    assert (note["error"], note["code"], note["job"]) == ("JobFailed", "source_gone", error.job_id)
    assert not [note for note in stack.journal("plain") if note["tag"] == "never"]


def test_an_old_errback_gets_the_id(stack: Stack) -> None:
    call = render(stack, **FAILS)
    result = call.apply_async(link_error=stack.sig("errback"))
    wait_for(lambda: [note for note in stack.journal("errback") if note["id"] == result.id])
    assert isinstance(result.result, JobFailed)


def test_a_job_cancelled_by_somebody_fails_its_task(stack: Stack) -> None:
    result = render(stack, outcome="cancel").apply_async()
    with pytest.raises(JobCancelled):
        result.get(timeout=60)
    assert result.state == "FAILURE"


def _ended(stack: Stack, failing: Any, good: Any) -> dict[str, Any]:
    """What becomes of a chord with a member that fails."""
    body = stack.sig("ids")
    body.link_error(stack.sig("told"))
    result = chord([good.clone(), failing, good.clone()], body).apply_async()
    with pytest.raises((ChordError, JobFailed, ValueError)):  # a failed parent's error comes first if it is seen first
        result.get(timeout=60)
    wait_for(result.ready)
    members = result.parent.children
    wait_for(lambda: all(member.ready() for member in members))
    wait_for(lambda: told(stack, result.id))
    wait_for(stack.is_idle)
    return {
        "members": [member.state for member in members],
        "body": (result.state, type(result.result).__name__),
        "ran": len([note for note in stack.journal("body") if note["id"] == result.id]),
        "told": [note["error"] for note in told(stack, result.id)],
    }


def test_a_chord_with_a_member_that_fails_ends_as_celerys_own(stack: Stack) -> None:
    """celery_facts, "Failures": the body's errback once, no spinning."""
    ours = _ended(stack, render(stack, **FAILS), render(stack))
    assert ours == _ended(stack, stack.sig("fail"), stack.sig("note", 1, tag="member"))
    assert ours["members"] == ["SUCCESS", "FAILURE", "SUCCESS"]
    assert (ours["ran"], ours["told"]) == (0, ["ChordError"])


def test_a_chord_whose_body_is_a_job_that_fails(stack: Stack) -> None:
    body = stack.sig("montage", **FAILS)
    body.link_error(stack.sig("told"))
    result = chord([render(stack), render(stack)], body).apply_async()
    with pytest.raises(JobFailed):
        result.get(timeout=60)
    wait_for(lambda: told(stack, result.id))
    assert [note["code"] for note in told(stack, result.id)] == ["source_gone"]


def test_a_chain_in_a_chord_that_fails_in_its_middle(stack: Stack) -> None:
    result = chord(
        [chain(render(stack, **FAILS), stack.sig("framelane.transcribe")), render(stack)], stack.sig("ids")
    ).apply_async()
    wait_for(result.ready)
    assert isinstance(result.result, ChordError)


def test_a_nested_chord_that_fails_ends_as_celerys_own(stack: Stack) -> None:
    """celery_facts, "Failures": a failed nested chord leaves the outer one PENDING, with plain tasks too.

    Not so on files, where a task asks whether the chord is complete: there the outer one fails, a little later.
    """

    def state(failing: Any, good: Any) -> str:
        inner = chord([failing, good.clone()], stack.sig("ids"))
        outer = chord([inner, good.clone()], stack.sig("ids")).apply_async()
        wait_for(lambda: outer.parent.children[0].ready())
        if stack.name == "filesystem":
            wait_for(outer.ready)
        try:
            outer.get(timeout=1.0)
        except (TimeoutError, ChordError):
            return str(outer.state)
        return "SUCCESS"

    plain = state(stack.sig("fail"), stack.sig("note", 1, tag="member"))
    assert state(render(stack, **FAILS), render(stack)) == plain
