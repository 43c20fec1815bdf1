"""Stacks with a running worker, shared by the tests of a module; and stacks of a test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import pools

from framelane_celery.testing import FramelaneServer
from tests.worker.stacks import Stack, Worker, make_server


@pytest.fixture(scope="session", autouse=True)
def _close_kombus_pools() -> Iterator[None]:
    """Connections are pooled by broker, for all stacks together."""
    yield
    pools.reset()


@pytest.fixture(scope="module")
def server() -> Iterator[FramelaneServer]:
    with make_server() as running:
        yield running


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Build stacks of the test's own; they are cleaned up after it."""
    made: list[Stack] = []

    def make(name: str, server: FramelaneServer, **settings: Any) -> Stack:
        folder = tmp_path / f"{name}-{len(made)}"
        folder.mkdir()
        made.append(Stack(name, folder, server.base_url, **settings))
        os.environ["TEST_JOURNAL"] = str(made[-1].journal_file)
        return made[-1]

    yield make
    for stack in made:
        stack.close()


_in_both = pytest.mark.celery55


@pytest.fixture(
    scope="module",
    params=[pytest.param("redis", marks=_in_both), pytest.param("rabbitmq", marks=_in_both), "filesystem"],
)
def stack(request: pytest.FixtureRequest, server: FramelaneServer, tmp_path_factory: Any) -> Iterator[Stack]:
    """One stack of each kind, for a whole module, with a worker that runs."""
    stack = Stack(
        request.param,
        tmp_path_factory.mktemp(request.param),
        server.base_url,
        celery={"task_track_started": True},
        framelane={"renders_per_minute": 10000, "media_tasks_per_minute": 10000},
    )
    with stack.worker("-c", "2", "-E") as worker:
        stack.running = worker  # type: ignore[attr-defined]
        yield stack
    stack.close()


@pytest.fixture
def worker(stack: Stack) -> Worker:
    """The worker of the module's stack."""
    return stack.running  # type: ignore[attr-defined,no-any-return]
