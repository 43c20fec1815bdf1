"""A burst never hits the wall: submissions are paced for all workers together, in order, and hinder nothing else.

A minute has fewer seconds here (`tests/worker/scaled.py`); with whole ones `benchmarks/pacing.py` measures the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
import requests

from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.scaled import SCALED, minute
from tests.worker.stacks import Stack, make_server, wait_for

pytestmark = [pytest.mark.worker]
MakeStack = Callable[..., Stack]

CHILDREN = 2


class Burst(NamedTuple):
    """What came of a burst."""

    used: float
    """The allowed rate that was used: how long the jobs of the whole minutes should take, by how long they took."""
    refused: int
    displaced: int
    """The largest distance of a job's place in the order of acceptance from its place in the order of calls."""
    idle_s: float
    busy_s: float
    """Median latency of a plain task before, and while the burst is paced."""

    @classmethod
    def of(cls, server: FramelaneServer, ids: list[str], per_minute: int, minute_s: float, **latency: float) -> Burst:
        posts = server.ledger.posts()
        accepted = [post for post in posts if post.is_new_job]
        places = {task_id: place for place, task_id in enumerate(ids)}
        order = [places[post.json()["metadata"]["celery_task_id"]] for post in accepted]
        minutes = (len(accepted) - 1) // per_minute
        took_s = accepted[minutes * per_minute].at - accepted[0].at
        refused = sum(post.status == 429 for post in posts)
        displaced = max(abs(place - at) for at, place in enumerate(order))
        return cls(minutes * minute_s / took_s, refused, displaced, **latency)


@contextmanager
def paced(
    make_stack: MakeStack, name: str, *, per_minute: int, minute_s: float, workers: int = 1, **celery: Any
) -> Iterator[tuple[Stack, FramelaneServer]]:
    with ExitStack() as opened:
        server = opened.enter_context(
            make_server(renders_per_minute=per_minute, tasks_per_minute=per_minute, rate_window_s=minute_s)
        )
        framelane = {"renders_per_minute": per_minute, "media_tasks_per_minute": per_minute, "reads_per_minute": 6000}
        stack = make_stack(name, server, framelane=framelane, celery=celery)
        for number in range(workers):
            options = ("-c", str(CHILDREN), *SCALED)
            opened.enter_context(stack.worker(*options, name=f"w{number}", **minute(minute_s)))
        stack.sig("ping").delay().get(timeout=30)
        yield stack, server


def render(stack: Stack, text: str = "hello", **options: Any) -> str:
    return str(stack.sig("framelane.render", composition(text)).apply_async(**options).id)


def ping_s(stack: Stack) -> float:
    """Latency of a plain task."""
    called_at = time.perf_counter()
    stack.sig("ping").delay().get(timeout=60, interval=0.005)
    return time.perf_counter() - called_at


def accepted(server: FramelaneServer) -> list[str]:
    """The tasks whose jobs were made, in that order."""
    return [post.json()["metadata"]["celery_task_id"] for post in server.ledger.posts() if post.is_new_job]


def burst(stack: Stack, server: FramelaneServer, count: int, per_minute: int, minute_s: float) -> Burst:
    """Call so many renders; meanwhile, as long as they are paced, plain tasks."""
    idle = [ping_s(stack) for _ in range(20)]
    ids = [render(stack, str(number)) for number in range(count)]
    wait_for(
        lambda: all(stack.record(task_id).until != "start" for task_id in ids[-CHILDREN * 4 :]), what="all taken in"
    )
    busy = [ping_s(stack)]
    while len(accepted(server)) < count:
        time.sleep(0.05)
        busy.append(ping_s(stack))
    wait_for(stack.is_idle)
    medians = {"idle_s": statistics.median(idle), "busy_s": statistics.median(busy)}
    return Burst.of(server, ids, per_minute, minute_s, **medians)


def _are_taken_in(stack: Stack, ids: list[str]) -> bool:
    """Whether each has had its first run: what is left waits for a slot, not for a child."""
    return all(stack.record(task_id).begun or stack.record(task_id).until == "slot" for task_id in ids)


def check(found: Burst, count: int) -> None:
    assert found.used >= 0.95
    assert found.refused < 0.05 * count
    assert found.displaced <= 30  # the tasks that are on their way to a child at the same time
    assert found.busy_s < max(0.05, 4 * found.idle_s)


def test_a_burst_uses_the_allowed_rate(make_stack: MakeStack) -> None:
    """120 renders against 40 a minute of 10 s, with two workers."""
    with paced(make_stack, "redis", per_minute=40, minute_s=10.0, workers=2) as (stack, server):
        found = burst(stack, server, 120, 40, 10.0)
    print(found)
    check(found, 120)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "workers"), [("redis", 1), ("redis", 2), ("rabbitmq", 2)])
def test_a_burst_of_600(make_stack: MakeStack, name: str, workers: int) -> None:
    """600 against 120 a minute of 12 s."""
    with paced(make_stack, name, per_minute=120, minute_s=12.0, workers=workers) as (stack, server):
        found = burst(stack, server, 600, 120, 12.0)
    print(name, workers, found)
    check(found, 600)


def test_a_429_brakes_all(make_stack: MakeStack) -> None:
    """Somebody else behind the same address takes half of the slots: each child is refused once at most."""
    per_minute, minute_s, count = 40, 5.0, 70
    with paced(make_stack, "redis", per_minute=per_minute, minute_s=minute_s, workers=2) as (stack, server):
        began_at = time.time()
        key = {"Authorization": f"Bearer {server.api_key}"}
        for number in range(per_minute // 2):
            requests.post(f"{server.base_url}/v1/renders", json=composition(str(number)), headers=key, timeout=5)
        ids = [render(stack, str(number)) for number in range(count)]
        wait_for(lambda: set(ids) <= {*_known(server)}, what="all accepted")
        wait_for(stack.is_idle)
        posts = server.ledger.posts()
    refused = [post for post in posts if post.status == 429]
    assert 1 <= len(refused) <= 2 * CHILDREN
    assert max(post.at for post in refused) < began_at + minute_s
    order = [task_id for task_id in _known(server) if task_id in ids]
    assert sorted(order) == sorted(ids)  # each once
    places = {task_id: place for place, task_id in enumerate(ids)}
    displaced = max(abs(places[task_id] - at) for at, task_id in enumerate(order))
    print(f"{len(refused)} refused, displaced by {displaced}")
    assert displaced <= 30


def _known(server: FramelaneServer) -> list[str]:
    posts = [post.json() for post in server.ledger.posts() if post.is_new_job]
    return [body["metadata"]["celery_task_id"] for body in posts if "celery_task_id" in (body.get("metadata") or {})]


@pytest.mark.parametrize(("name", "usual", "urgent"), [("redis", 5, 0), ("rabbitmq+redis", 0, 9)])
def test_the_urgent_goes_first(make_stack: MakeStack, name: str, usual: int, urgent: int) -> None:
    """Behind 60 renders, six minutes of them: by Celery's priority, as each transport has it. Media tasks have a queue
    of their own."""
    per_minute, options = 10, {"task_queue_max_priority": 10} if name.startswith("rabbitmq") else {}
    with paced(make_stack, name, per_minute=per_minute, minute_s=3.0, **options) as (stack, server):
        backlog = [render(stack, str(number), priority=usual) for number in range(60)]
        wait_for(lambda: _are_taken_in(stack, backlog), what="all taken in")
        before = len(accepted(server))
        media = str(stack.sig("framelane.transcribe", "https://example.com/a.mp4").apply_async().id)
        now = render(stack, "now", priority=urgent)
        wait_for(lambda: {media, now} <= {*accepted(server)}, what="the urgent one and the media task")
        order = accepted(server)
        stack.room.add_revokes([f"id:{task_id}" for task_id in backlog])
        wait_for(stack.is_idle)
    one_minute = per_minute + CHILDREN  # the next one may have begun meanwhile
    assert order.index(media) <= before + one_minute
    assert order.index(now) <= before + one_minute + 1
    assert before < 60 - 2 * one_minute
