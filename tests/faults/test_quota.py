"""A quota that is spent in the middle of 100 submissions, while workers are killed.

The server's month is PERIOD_S long and lets QUOTA renders through, so that 100 need two of them. Two workers are
killed: one while the first period's renders are submitted, one while the rest is on hold.
"""

from __future__ import annotations

import math
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import chord

from framelane_celery.testing import FramelaneServer, Switches
from tests.faults.attack import Scene, by_label, bystander, make_stack, outcome_of
from tests.worker.project import composition
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(300)]

TASKS, QUOTA, PERIOD_S = 100, 60, 30.0
CHORD, HELD = 6, 3
WORKERS, CHILDREN = 2, 2
UNDER_WAY_S = 3.0
"""How long a POST may be under way that was begun before the account was put on hold."""


class Played(NamedTuple):
    states: Counter[str]
    chord: list[str]
    paid: Counter[int]
    refused: dict[int, int]  # POSTs that the quota refused, by period
    killed: dict[int, int]
    accepted: dict[int, int]
    meanwhile: dict[str, Any]
    quiet_posts: int  # that were made while the account was surely on hold, in the first period


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _play(name: str, status: int, folder: Path) -> Played:
    with ExitStack() as opened:
        server = FramelaneServer(
            port=_free_port(), outcome=outcome_of, job_seconds=0.3, renders_per_minute=None, quota_renders=QUOTA,
            quota_period_s=PERIOD_S, switches=Switches(quota_status=status),
        )  # fmt: skip
        stack = opened.enter_context(make_stack(name, folder, server))
        opened.enter_context(bystander(stack))
        workers = [opened.enter_context(stack.worker("-c", str(CHILDREN), name=f"w{n}")) for n in range(WORKERS)]
        opened.enter_context(server)  # the first period begins
        began_at, killed = time.time(), Counter[int]()

        def kill(number: int) -> None:
            workers[number].kill()
            killed[_period(began_at, time.time())] += 1

        held = [stack.sig("framelane.render", composition("held")).apply_async() for _ in range(HELD)]
        wait_for(lambda: len(server.jobs) == HELD, what="the first are accepted")
        alone = [stack.sig("framelane.render", composition(str(n))) for n in range(TASKS - HELD - CHORD)]
        results = [one.apply_async() for one in alone]
        members = [stack.sig("framelane.render", composition(f"member {n}")) for n in range(CHORD)]
        body = chord(members, stack.sig("ids")).apply_async()
        wait_for(lambda: len(server.jobs) >= QUOTA / 2, what="the middle of the first period")
        kill(0)
        with ThreadPoolExecutor(1) as starter:
            starting = starter.submit(workers[0].start)
            hold = wait_for(lambda: _hold(stack), what="the account is on hold")
            meanwhile = _meanwhile(stack, server, held)
            meanwhile["still on hold"] = _hold(stack) is not None
            starting.result()
        kill(1)
        workers[1].start()
        everything = [*held, *results, *body.parent.results]
        wait_for(lambda: all(one.ready() for one in everything), 120, "all have ended")
        wait_for(stack.is_idle)
        posts = server.ledger.posts()
        made = server.ledger.jobs_per_task()
        return Played(
            Counter(one.state for one in everything),
            body.get(timeout=60),
            Counter(len(made.get(one.id, [])) for one in everything),
            dict(Counter(_period(began_at, post.at) for post in posts if post.status == status)),
            dict(killed),
            dict(Counter(_period(began_at, post.at) for post in posts if post.is_new_job)),
            meanwhile,
            sum(hold.since + UNDER_WAY_S < post.at < began_at + PERIOD_S for post in posts),
        )


def _period(began_at: float, at: float) -> int:
    return math.floor((at - began_at) / PERIOD_S)


def _hold(stack: Stack) -> Any:
    return next((hold for hold in stack.room.holds()[0] if hold.is_on), None)


def _meanwhile(stack: Stack, server: FramelaneServer, held: list[Any]) -> dict[str, Any]:
    """What goes on while the account is on hold: jobs that were accepted end, and plain tasks run."""
    for job_id in server.jobs:
        with suppress(ValueError):  # that one has ended by itself
            server.finish(job_id)
    ended = [one.get(timeout=20)["status"] for one in held]
    return {"ended": ended, "plain": stack.sig("note", "plain").apply_async().get(timeout=20)}


SCENES = [Scene("redis, 429", _play, ("redis", 429)), Scene("rabbitmq, 402", _play, ("rabbitmq", 402))]
scenes = pytest.mark.parametrize("scene", SCENES, ids=by_label)


@scenes
def test_a_spent_quota_loses_nothing_and_pays_nothing_twice(stage: Any, scene: Scene) -> None:
    played: Played = stage.outcome(scene)
    assert played.states == {"SUCCESS": TASKS}
    assert played.paid == {1: TASKS}
    assert len(set(played.chord)) == CHORD


@scenes
def test_a_spent_quota_is_asked_once_by_each_process(stage: Any, scene: Scene) -> None:
    """A refused POST per process and period at most, and one for each kill; none while it is on hold."""
    played: Played = stage.outcome(scene)
    assert played.refused[min(played.refused)] >= 1
    for period, refused in played.refused.items():
        assert refused <= WORKERS * CHILDREN + played.killed.get(period, 0)
    assert max(played.accepted.values()) <= QUOTA
    assert played.quiet_posts == 0


@scenes
def test_what_waits_for_something_else_goes_on(stage: Any, scene: Scene) -> None:
    played: Played = stage.outcome(scene)
    assert played.meanwhile == {"ended": ["completed"] * HELD, "plain": "plain", "still on hold": True}
