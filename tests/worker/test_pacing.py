"""A burst never hits the wall: submissions are paced for all workers together, in order, and hinder nothing else.

A minute has fewer seconds here (`tests/worker/scaled.py`); with whole ones `benchmarks/pacing.py` measures the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from framelane_celery.testing import FramelaneServer
from tests.worker.pipelines import Scene, Stage, by_label, opened_stack, playing
from tests.worker.project import composition
from tests.worker.scaled import SCALED, minute
from tests.worker.stacks import Stack, jobs_of, make_server, wait_for

pytestmark = [pytest.mark.worker]

CHILDREN = 2
UNDER_WAY = 30
"""How many tasks are woken, or in a child, at the same time: so far is one displaced at most."""


class Burst(NamedTuple):
    """What came of a burst."""

    used: float
    """The allowed rate that was used: how long the jobs of the whole minutes should take, by how long they took."""
    refused: int
    displaced: int
    idle_s: float
    busy_s: float
    """Median latency of a plain task before, and while the burst is paced."""

    @classmethod
    def of(cls, server: FramelaneServer, ids: list[str], per_minute: int, minute_s: float, **latency: float) -> Burst:
        posts = server.ledger.posts()
        made = [post for post in posts if post.is_new_job]
        order = [post.json()["metadata"]["celery_task_id"] for post in made]
        minutes = (len(made) - 1) // per_minute
        took_s = made[minutes * per_minute].at - made[0].at
        refused = sum(post.status == 429 for post in posts)
        return cls(minutes * minute_s / took_s, refused, displaced_by(ids, order), **latency)


def displaced_by(called: list[str], order: list[str]) -> int:
    """The largest distance of a task's place in an order from its place in the order of calls."""
    places = {task_id: place for place, task_id in enumerate(called)}
    return max(abs(places[task_id] - at) for at, task_id in enumerate(order))


def paced(
    opened: ExitStack, folder: Path, name: str, *, per_minute: int, minute_s: float, workers: int = 1, **celery: Any
) -> tuple[Stack, FramelaneServer]:
    """A server that counts by such minutes, and workers that know its limit."""
    server = opened.enter_context(
        make_server(renders_per_minute=per_minute, tasks_per_minute=per_minute, rate_window_s=minute_s)
    )
    framelane = {"renders_per_minute": per_minute, "media_tasks_per_minute": per_minute, "reads_per_minute": 6000}
    stack = opened_stack(opened, name, folder, server, framelane=framelane, celery=celery)
    for number in range(workers):
        options = ("-c", str(CHILDREN), *SCALED)
        opened.enter_context(stack.worker(*options, name=f"w{number}", **minute(minute_s)))
    stack.sig("ping").delay().get(timeout=60)
    return stack, server


def render(stack: Stack, text: str = "hello", **options: Any) -> str:
    return str(stack.sig("framelane.render", composition(text)).apply_async(**options).id)


def ping_s(stack: Stack) -> float:
    """Latency of a plain task."""
    called_at = time.perf_counter()
    stack.sig("ping").delay().get(timeout=60, interval=0.005)
    return time.perf_counter() - called_at


def accepted(server: FramelaneServer) -> list[str]:
    """The tasks whose jobs were made, in that order; jobs of somebody else have none."""
    bodies = [post.json() for post in server.ledger.posts() if post.is_new_job]
    return [body["metadata"]["celery_task_id"] for body in bodies if "celery_task_id" in (body.get("metadata") or {})]


def burst(folder: Path, name: str, count: int, *, per_minute: int, minute_s: float, workers: int) -> Burst:
    """Call so many renders; meanwhile, as long as they are paced, plain tasks."""
    with ExitStack() as opened:
        stack, server = paced(opened, folder, name, per_minute=per_minute, minute_s=minute_s, workers=workers)
        idle = [ping_s(stack) for _ in range(20)]
        ids = [render(stack, str(number)) for number in range(count)]
        wait_for(lambda: _are_taken_in(stack, ids), what="all taken in")
        busy = [ping_s(stack)]
        while len(accepted(server)) < count:
            time.sleep(0.05)
            busy.append(ping_s(stack))
        wait_for(stack.is_idle)
        medians = {"idle_s": statistics.median(idle), "busy_s": statistics.median(busy)}
        found = Burst.of(server, ids, per_minute, minute_s, **medians)
    print(f"{count} renders on {name}, {workers} workers: {found}")
    return found


def _are_taken_in(stack: Stack, ids: list[str]) -> bool:
    """Whether each has had its first run: what is left waits for a slot, not for a child."""
    return all(stack.record(task_id).begun or stack.record(task_id).until == "slot" for task_id in ids)


def check(found: Burst, count: int) -> None:
    assert found.used >= 0.95
    assert found.refused < 0.05 * count
    assert found.displaced <= UNDER_WAY
    assert found.busy_s < max(0.05, 4 * found.idle_s)


def test_a_burst_uses_the_allowed_rate(tmp_path: Path) -> None:
    """120 renders against 40 a minute of 8 s, with two workers."""
    check(burst(tmp_path, "redis", 120, per_minute=40, minute_s=8.0, workers=2), 120)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "workers"), [("redis", 1), ("redis", 2), ("rabbitmq", 2)])
def test_a_burst_of_600(tmp_path: Path, name: str, workers: int) -> None:
    """600 against 120 a minute of 12 s."""
    check(burst(tmp_path, name, 600, per_minute=120, minute_s=12.0, workers=workers), 600)


# --- what else takes slots, and who goes first -------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(request, tmp_path_factory) as stage:
        yield stage


class Refused(NamedTuple):
    refused: int
    later: int  # refused after the minute in which the first one was
    paid: list[int]
    displaced: int


def _brake(opened: ExitStack, folder: Path) -> Refused:
    """Somebody else behind the same address takes most of a minute's slots."""
    per_minute, minute_s = 50, 8.0
    stack, server = paced(opened, folder, "redis", per_minute=per_minute, minute_s=minute_s, workers=2)
    key = {"Authorization": f"Bearer {server.api_key}"}
    for number in range(per_minute - 10):
        requests.post(f"{server.base_url}/v1/renders", json=composition(str(number)), headers=key, timeout=30)
    ids = [render(stack, str(number)) for number in range(60)]
    wait_for(lambda: set(ids) <= {*accepted(server)}, what="all accepted")
    posts = server.ledger.posts()
    refused = [post.at for post in posts if post.status == 429]
    order = [task_id for task_id in accepted(server) if task_id in ids]
    paid = [len(jobs_of(server, task_id)) for task_id in ids]
    return Refused(len(refused), sum(at > posts[0].at + minute_s for at in refused), paid, displaced_by(ids, order))


@pytest.mark.parametrize("scene", [Scene("brake", _brake)], ids=["redis"])
def test_a_429_brakes_all(stage: Stage, scene: Scene) -> None:
    """A child is refused once at most then nobody asks until it is over. Who was refused keeps its place."""
    found: Refused = stage.outcome(scene)
    assert 1 <= found.refused <= 2 * CHILDREN
    assert found.later == 0
    assert found.paid == [1] * 60
    assert found.displaced <= UNDER_WAY


class Ahead(NamedTuple):
    before: int  # that had been accepted when they were called
    media: int
    urgent: int


BACKLOG, A_MINUTE = 60, 10


def _urgent(opened: ExitStack, folder: Path, name: str, usual: int, urgent: int) -> Ahead:
    """Behind six minutes of renders an urgent one is called, by Celery's priority, and a media task."""
    options = {"task_queue_max_priority": 10} if name.startswith("rabbitmq") else {}
    stack, server = paced(opened, folder, name, per_minute=A_MINUTE, minute_s=3.0, **options)
    backlog = [render(stack, str(number), priority=usual) for number in range(BACKLOG)]
    wait_for(lambda: _are_taken_in(stack, backlog), what="all taken in")
    before = len(accepted(server))
    media = str(stack.sig("framelane.transcribe", "https://example.com/a.mp4").apply_async().id)
    now = render(stack, "now", priority=urgent)
    wait_for(lambda: {media, now} <= {*accepted(server)}, what="the urgent one and the media task")
    order = accepted(server)
    stack.room.add_revokes([f"id:{task_id}" for task_id in backlog])
    wait_for(stack.is_idle)
    return Ahead(before, order.index(media), order.index(now))


URGENT = [Scene("on redis", _urgent, ("redis", 5, 0)), Scene("on rabbitmq", _urgent, ("rabbitmq+redis", 0, 9))]


@pytest.mark.parametrize("scene", URGENT, ids=by_label)
def test_the_urgent_goes_first(stage: Stage, scene: Scene) -> None:
    """On Redis 0 is first, on RabbitMQ 9. Media tasks have slots of their own, and do not wait for renders at all."""
    found: Ahead = stage.outcome(scene)
    assert found.before < BACKLOG - 2 * A_MINUTE - CHILDREN
    assert found.media <= found.before + A_MINUTE  # the next minute may have begun meanwhile
    assert found.urgent <= found.before + A_MINUTE + CHILDREN
