"""The log of a whole render, a retry, a dead letter and its replay: a line for each transition, with both ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from framelane_celery import dead_letters
from framelane_celery.errors import Unauthorized
from framelane_celery.testing import FramelaneServer
from tests.worker.lines import lines_in
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.celery55]
MakeStack = Callable[..., Stack]


def lines(stack: Stack) -> list[dict[str, Any]]:
    return lines_in(stack.folder / "lines")


def moves(stack: Stack, task_id: str) -> list[tuple[str | None, str, str | None, str]]:
    """A task's transitions: from, to, job, level."""
    own = [one for one in lines(stack) if one["logger"] == "framelane_celery.transitions" and one["task_id"] == task_id]
    return [(one["was"], one["until"], one["job_id"], one["level"]) for one in own]


def lined(stack: Stack) -> Any:
    return stack.worker("-c", "1", "-I", "tests.worker.lined", TEST_LINES=str(stack.folder / "lines"))


def render(stack: Stack, **metadata: str) -> Any:
    return stack.sig("framelane.render", composition("words of the customer", **metadata))


def test_a_line_for_each_transition(make_stack: MakeStack, server: FramelaneServer) -> None:
    routes = [{"code": "internal", "action": "retry", "max_attempts": 2, "backoff_s": 0.1}]
    stack = make_stack("redis", server, framelane={"routes": routes})
    with lined(stack):
        well, again = render(stack).apply_async(), render(stack, fails="1").apply_async()
        dead = render(stack, fails="2").apply_async()
        for result in (well, again, dead):
            result.get(timeout=60, propagate=False)
        wait_for(lambda: dead_letters.letters(stack.room) and stack.record(dead.id).until == "dead")
        wait_for(stack.is_idle)
        first = jobs_of(server, well.id)[0]
        assert moves(stack, well.id) == [
            ("start", "running", None, "INFO"), ("running", "job", first, "INFO"), ("job", "start", first, "INFO"),
            ("start", "running", first, "INFO"), ("running", "done", first, "INFO"),
        ]  # fmt: skip
        first, second = jobs_of(server, again.id)
        assert moves(stack, again.id) == [
            ("start", "running", None, "INFO"), ("running", "job", first, "INFO"), ("job", "instant", first, "INFO"),
            ("instant", "start", None, "INFO"), ("start", "running", None, "INFO"), ("running", "job", second, "INFO"),
            ("job", "start", second, "INFO"), ("start", "running", second, "INFO"), ("running", "done", second, "INFO"),
        ]  # fmt: skip
        last = jobs_of(server, dead.id)[-1]
        assert moves(stack, dead.id)[-2:] == [("start", "running", last, "INFO"), ("running", "dead", last, "WARNING")]
        assert len(moves(stack, dead.id)) == 9
        replay = dead_letters.replay(stack.app, dead.id)
        stack.until(replay.task_id, "done", "dead")
        wait_for(lambda: moves(stack, replay.task_id)[-1:] and moves(stack, replay.task_id)[-1][1] in ("done", "dead"))


def test_no_line_about_a_task_is_without_its_id(make_stack: MakeStack, server: FramelaneServer) -> None:
    """Of every logger of ours, at every level; and none carries a key, a signed link or a request."""
    stack = make_stack("redis", server, framelane={"routes": [{"code": "internal", "action": "dead_letter"}]})
    with lined(stack):
        results = [
            render(stack).apply_async(),
            render(stack, outcome="fail").apply_async(),
            stack.sig("refused_dies").apply_async(),
            stack.sig("impatient", outcome="never").apply_async(),
        ]
        revoked = render(stack, outcome="never").apply_async()
        stack.until(revoked.id, "job")
        stack.app.control.revoke(revoked.id)
        for result in results:
            result.get(timeout=60, propagate=False)
        wait_for(stack.is_idle)
    found = lines(stack)
    assert len(found) > 20
    ids = {result.id for result in (*results, revoked)}
    for line in found:
        about = [task_id for task_id in ids if task_id in line["text"]]
        assert not about or line.get("task_id") == about[0], line
        assert not about or "job_id" in line, line
    text = (stack.folder / "lines").read_text()
    for secret in ("fl_test_key", "words of the customer", "signature=", "not-public.mp4?"):
        assert secret not in text


def test_a_worker_without_a_key_says_so_and_loses_nothing(make_stack: MakeStack, server: FramelaneServer) -> None:
    """What it refuses is replayed once another one has the key."""
    stack = make_stack("redis", server)
    keyless = json.dumps({**stack.framelane, "api_key": ""})
    with stack.worker("-c", "1", name="w1", TEST_FRAMELANE=keyless, FRAMELANE_API_KEY="") as worker:
        wait_for(lambda: "no API key is set" in worker.log, what="the worker's complaint")
        result = render(stack).apply_async()
        with pytest.raises(Unauthorized, match="no key is set"):
            result.get(timeout=60)
        stack.until(result.id, "dead")
    with stack.worker("-c", "1", name="w2"):
        replay = dead_letters.replay(stack.app, result.id)
        stack.until(replay.task_id, "done")
    assert len(jobs_of(server, replay.task_id)) == 1
