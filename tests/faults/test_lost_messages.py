"""Messages that get lost between a record and its run: broker_facts.md, rules 2 and 5."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attack import make_server, make_stack
from tests.worker.project import composition
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(150)]

HOWS = ("purged", "deleted")
TASKS = 5


def _empty(stack: Stack, how: str) -> None:
    with stack.app.connection_for_write() as connection:
        channel = connection.default_channel
        if how == "deleted":
            channel.queue_delete(stack.queue)
        else:
            channel.queue_purge(stack.queue)


def _lose(name: str, how: str, folder: Path) -> dict[str, Any]:
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        stack = opened.enter_context(make_stack(name, folder, server))
        with stack.app.connection_for_write() as connection:  # so that what is published arrives, and can be lost
            stack.app.amqp.queues[stack.queue].bind(connection.default_channel).declare()
        results = [stack.sig("framelane.render", composition()).apply_async() for _ in range(TASKS)]
        _empty(stack, how)
        opened.enter_context(stack.worker("-c", "1"))
        jobs = [result.get(timeout=60) for result in results]
        wait_for(stack.is_idle)
        return {
            "jobs": [job["status"] for job in jobs],
            "per_task": sorted(len(made) for made in server.ledger.jobs_per_task().values()),
        }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: Any) -> Iterator[dict[tuple[str, str], Future[dict[str, Any]]]]:
    with ThreadPoolExecutor(4) as pool:
        yield {
            (name, how): pool.submit(_lose, name, how, tmp_path_factory.mktemp("lost"))
            for name in ("redis", "rabbitmq")
            for how in HOWS
        }


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_tasks_whose_queue_was_lost_run_all_the_same(
    outcomes: dict[tuple[str, str], Future[dict[str, Any]]], name: str, how: str
) -> None:
    outcome = outcomes[name, how].result(timeout=100)
    assert outcome["jobs"] == ["completed"] * TASKS
    assert outcome["per_task"] == [1] * TASKS
