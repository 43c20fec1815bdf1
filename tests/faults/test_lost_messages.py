"""Messages that get lost between a record and its run: broker_facts.md, rules 2 and 5."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.faults.attack import Scene, by_label, make_server, make_stack, order
from tests.worker.project import composition
from tests.worker.stacks import REDIS, ROOT, Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

HOWS = ("purged", "deleted", "never sent")
TASKS = 5


def _empty(stack: Stack, how: str) -> None:
    if stack.name == "redis" and how == "deleted":  # kombu deletes only what the same connection has declared
        with redis.Redis.from_url(f"{REDIS}/10") as client:
            assert client.delete(stack.queue)
        return
    with stack.app.connection_for_write() as connection:
        channel = connection.default_channel
        if how == "deleted":
            channel.queue_delete(stack.queue)
        else:
            # RabbitMQ takes messages in without an answer: they may come later than this.
            wait_for(lambda: channel.queue_declare(stack.queue, passive=True).message_count == TASKS)
            assert channel.queue_purge(stack.queue) == TASKS


CALL = """
import tests.faults.points
from tests.worker.project import framelane
framelane.render.apply_async({args!r}, task_id={id!r})
"""


def _call_and_die(stack: Stack, task_id: str) -> None:
    """A caller that is killed between its record and its message."""
    order(stack, "create:after", "kill process", task_id)
    script = CALL.format(args=(composition(),), id=task_id)
    caller = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, **stack.environment()}, timeout=90
    )
    assert caller.returncode == -signal.SIGKILL


def _lose(name: str, how: str, folder: Path) -> dict[str, Any]:
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        stack = opened.enter_context(make_stack(name, folder, server))
        with stack.app.connection_for_write() as connection:  # so that what is published arrives, and can be lost
            stack.app.amqp.queues[stack.queue].bind(connection.default_channel).declare()
        if how == "never sent":
            ids = [str(uuid4())]
            _call_and_die(stack, ids[0])
        else:
            ids = [stack.sig("framelane.render", composition()).apply_async().id for _ in range(TASKS)]
            _empty(stack, how)
        assert {stack.record(id).until for id in ids} == {"start"}
        opened.enter_context(stack.worker("-c", "1"))
        jobs = [stack.app.AsyncResult(id).get(timeout=180) for id in ids]
        wait_for(stack.is_idle)
        return {
            "jobs": [job["status"] for job in jobs],
            "per_task": sorted(len(made) for made in server.ledger.jobs_per_task().values()),
        }


LOSSES = [Scene(f"{name}, {how}", _lose, (name, how)) for name in ("redis", "rabbitmq") for how in HOWS]


@pytest.mark.parametrize("loss", LOSSES, ids=by_label)
def test_tasks_whose_message_was_lost_run_all_the_same(stage: Any, loss: Scene) -> None:
    outcome = stage.outcome(loss)
    tasks = 1 if loss.arguments[1] == "never sent" else TASKS
    assert outcome["jobs"] == ["completed"] * tasks
    assert outcome["per_task"] == [1] * tasks
