"""The four pools: whatever runs the tasks, they wait, go on, fail, are replayed and stop alike. On both brokers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord

from framelane_celery import JobFailed, dead_letters
from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, jobs_of, wait_for

pytestmark = [pytest.mark.worker]

CONCURRENCY = {"prefork": "2", "threads": "2", "gevent": "20", "solo": "1"}
"""With `-P gevent -c 1` Celery takes one message in two seconds from Redis, of whatever tasks."""

BROKERS = ("redis", pytest.param("rabbitmq", marks=pytest.mark.slow))
ROUTES = [{"code": "internal", "action": "retry", "backoff_s": 0.1, "max_attempts": 2}]


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("pool", CONCURRENCY)
def test_a_pool(make_stack: Callable[..., Stack], server: FramelaneServer, pool: str, broker: str) -> None:
    stack = make_stack(broker, server, framelane={"routes": ROUTES})
    with stack.worker("-P", pool, "-c", CONCURRENCY[pool]) as worker:
        waiting = [render(stack, str(number), outcome="never").apply_async() for number in range(3)]
        for result in waiting:
            stack.until(result.id, "job")

        chained = chain(render(stack), stack.sig("framelane.transcribe"), stack.sig("ids")).apply_async()
        members = [render(stack, str(number)) for number in range(3)]
        chorded = chord([*members, stack.sig("note", {"id": "plain"})], stack.sig("ids")).apply_async()
        again = render(stack, fails="1").apply_async()
        failing = render(stack, outcome="fail", code="source_unreachable")
        failing.link_error(stack.sig("told"))
        failed = chain(failing, stack.sig("note", tag="never")).apply_async().parent

        assert len(chained.get(timeout=60)) == 1
        assert len(set(chorded.get(timeout=60))) == 4
        assert again.get(timeout=60)["status"] == "completed"
        with pytest.raises(JobFailed) as caught:
            failed.get(timeout=60)
        assert caught.value.code == "source_unreachable"
        wait_for(lambda: stack.journal("told"))

        stack.until(failed.id, "dead")
        [letter] = dead_letters.letters(stack.room)
        mended = [composition("mended")]
        replayed = dead_letters.replay(stack.app, letter.id, args=mended)
        wait_for(lambda: [note for note in stack.journal("plain") if note["tag"] == "never"])  # the tail of the replay
        stack.app.control.revoke(waiting[0].id)
        stack.until(waiting[0].id, "done")
        for result in waiting[1:]:
            server.finish(stack.record(result.id).job_id)
            assert result.get(timeout=60)["status"] == "completed"
        wait_for(stack.is_idle)

        worker.stop()
        assert "Traceback" not in worker.log
    paid = [jobs_of(server, one.id) for one in (chained.parent.parent, again, failed, *waiting)]
    assert [len(jobs) for jobs in paid] == [1, 2, 1, 1, 1, 1]
    assert len(jobs_of(server, replayed.task_id)) == 1
