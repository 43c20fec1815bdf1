"""celery-progress reads the result as it is: while a task waits, at its end, and on failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import group
from celery_progress.backend import GroupProgress, Progress

from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.celery55]
MakeStack = Callable[..., Stack]
SHOWN = {"pending", "current", "total", "percent", "description"}


def render(stack: Stack, **metadata: str) -> Any:
    return stack.sig("framelane.render", composition("hello", **metadata))


@pytest.fixture(params=["redis", "redis+sql"])
def stack(request: pytest.FixtureRequest, make_stack: MakeStack, server: FramelaneServer) -> Stack:
    return make_stack(request.param, server)


def test_a_bar_moves_and_ends(stack: Stack, server: FramelaneServer) -> None:
    with stack.worker("-c", "1"):
        result = render(stack, seconds="4").apply_async()
        bar = Progress(stack.app.AsyncResult(result.id))
        seen = []
        while not (info := bar.get_info())["complete"]:
            assert info["success"] is None
            if info["state"] == "PROGRESS" and (not seen or seen[-1] != info["progress"]):
                seen.append(info["progress"])
        assert (info["state"], info["success"], info["progress"]["percent"]) == ("SUCCESS", True, 100)
        assert info["result"]["status"] == "completed"
    assert all(set(progress) >= SHOWN and progress["total"] == 100 for progress in seen)
    percents = [progress["percent"] for progress in seen]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 2
    assert all(progress["current"] == progress["percent"] and not progress["pending"] for progress in seen)
    assert all(progress["description"] for progress in seen)


def test_a_failure_is_one_line(stack: Stack, server: FramelaneServer) -> None:
    with stack.worker("-c", "1"):
        result = render(stack, outcome="fail").apply_async()
        bar = Progress(stack.app.AsyncResult(result.id))
        wait_for(lambda: bar.get_info()["complete"])
        info = bar.get_info()
    assert (info["state"], info["success"]) == ("FAILURE", False)
    [job_id] = jobs_of(server, result.id)
    assert info["result"] == f"job {job_id} failed: Unexpected error while rendering."
    assert bar.is_failed


def test_every_kind_of_waiting_goes_on(make_stack: MakeStack, server: FramelaneServer) -> None:
    """A backoff and a hold are no end: other states than PROGRESS would be failures there."""
    routes = [{"code": "internal", "action": "retry", "backoff_s": 600}, {"code": "codec_*", "action": "hold"}]
    stack = make_stack("redis", server, framelane={"routes": routes})
    with stack.worker("-c", "1"):
        for metadata, until in (({"code": "internal"}, "instant"), ({"code": "codec_unsupported"}, "release")):
            result = render(stack, outcome="fail", **metadata).apply_async()
            stack.until(result.id, until)
            info = Progress(stack.app.AsyncResult(result.id)).get_info()
            assert (info["state"], info["complete"], info["success"]) == ("PROGRESS", False, None)
            assert info["progress"]["until"] == until


def test_a_group(stack: Stack, server: FramelaneServer) -> None:
    with stack.worker("-c", "1"):
        result = group(render(stack), render(stack, outcome="never")).apply_async()
        bar = GroupProgress(result)
        wait_for(lambda: result.children[0].ready())
        info = bar.get_info()
        assert not info["complete"]
        assert 50 <= info["progress"]["percent"] < 100
        stack.app.control.revoke(result.children[1].id)
        wait_for(lambda: bar.get_info()["complete"])
