"""A Framelane that misbehaves: answers lost, errors, HTML, resets, slowness, 429, and replays of an old state.

Each scenario has a server, a stack and a worker of its own; they run at the same time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from framelane_celery.testing import Entry, Fault, FramelaneServer, Switches, limits
from tests.faults.attack import Scene, by_label, make_server, make_stack, posts_of, same_bytes
from tests.worker.stacks import wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

CHILDREN = 4
WINDOW_S = 5.0
"""The server's rate limits count over so many seconds here."""


class ShortWindow(limits.FixedWindow):
    """The server's minute, in WINDOW_S."""

    def take(self, address: str, now: float) -> int | None:
        seconds = super().take(address, now * limits.WINDOW_S / WINDOW_S)
        return None if seconds is None else max(1, math.ceil(seconds * WINDOW_S / limits.WINDOW_S))


class Played(NamedTuple):
    statuses: list[str]
    per_task: list[int]
    ids: list[str]
    posts: list[Entry]
    reads: list[Entry]
    is_same: Callable[[str], bool]
    keys: dict[str, list[tuple[str | None, bytes]]]


class Scenario(NamedTuple):
    tasks: int
    faults: tuple[Fault, ...] = ()
    server: Mapping[str, Any] = MappingProxyType({})
    name: str = "redis"
    read_timeout_s: float = 30.0
    """Short where answers are slow on purpose; elsewhere a busy machine must not make a repetition of it."""


SCENARIOS = {
    "answers lost": Scenario(40, (Fault("answer_lost", method="POST", probability=0.2, seed=7),)),
    "answers lost on rabbitmq": Scenario(
        20, (Fault("answer_lost", method="POST", probability=0.2, seed=8),), name="rabbitmq"
    ),
    "posts in trouble": Scenario(
        24,
        (
            Fault("status", method="POST", status=500, probability=0.3, times=3, seed=1),
            Fault("status", method="POST", status=503, html=True, probability=0.3, times=3, seed=2),
            Fault("html", method="POST", probability=0.3, times=3, seed=3, accepted=True),
            Fault("reset", method="POST", probability=0.3, times=3, seed=4),
            Fault("slow", method="POST", probability=0.3, times=3, seed=5, seconds=2.5, accepted=True),
            Fault("garbage", method="POST", probability=0.3, times=3, seed=6, accepted=True),
        ),
        read_timeout_s=1.5,
    ),
    "reads in trouble": Scenario(
        12,
        (
            Fault("status", method="GET", status=500, probability=0.2, seed=1),
            Fault("status", method="GET", status=429, probability=0.1, seed=2),
            Fault("html", method="GET", probability=0.2, seed=3),
            Fault("reset", method="GET", probability=0.2, seed=4),
            Fault("slow", method="GET", probability=0.2, seed=5, seconds=2.5),
            Fault("garbage", method="GET", probability=0.2, seed=6),
        ),
        read_timeout_s=1.5,
    ),
    "429 with Retry-After": Scenario(15, server={"renders_per_minute": 5}),
    "429 without Retry-After": Scenario(
        15, server={"renders_per_minute": 5, "switches": Switches(retry_after_header=False)}
    ),
    "replays show an old state": Scenario(
        8,
        (Fault("answer_lost", method="POST", times=8),),
        {"switches": Switches(replay_shows="original"), "job_seconds": 0.05},
    ),
}


def _play(label: str, folder: Path) -> Played:
    scenario = SCENARIOS[label]
    with ExitStack() as opened:
        server: FramelaneServer = opened.enter_context(make_server(**scenario.server))
        server._api.renders = ShortWindow(server._api.renders.limit)
        for fault in scenario.faults:
            server.faults.add(fault)
        settings = {"read_timeout_s": scenario.read_timeout_s}
        stack = opened.enter_context(make_stack(scenario.name, folder, server, framelane=settings))
        opened.enter_context(stack.worker("-c", str(CHILDREN)))
        results = [stack.sig("promo", f"text {number}").apply_async() for number in range(scenario.tasks)]
        wait_for(lambda: all(result.ready() for result in results), 300, "all results")
        wait_for(stack.is_idle)
        made = server.ledger.jobs_per_task()
        return Played(
            [result.result["status"] for result in results],
            [len(made[result.id]) for result in results],
            [result.id for result in results],
            server.ledger.posts(),
            server.ledger.reads(),
            same_bytes(server),
            posts_of(server),
        )


def scene(label: str) -> Scene:
    return Scene(label, _play, (label,))


def played(stage: Any, play: Scene) -> Played:
    """What came of it; in every scenario all tasks end well, and each is paid once."""
    found: Played = stage.outcome(play)
    assert found.statuses == ["completed"] * SCENARIOS[play.label].tasks
    assert found.per_task == [1] * SCENARIOS[play.label].tasks
    assert all(found.is_same(task_id) for task_id in found.ids)
    return found


def plays(*labels: str) -> Any:
    return pytest.mark.parametrize("play", [scene(label) for label in labels], ids=by_label)


@plays("answers lost", "answers lost on rabbitmq")
def test_an_answer_lost_after_acceptance_makes_no_second_job(stage: Any, play: Scene) -> None:
    """The body of `promo` would build another request the second time; key and bytes are those of the first."""
    found = played(stage, play)
    repeated = [task_id for task_id in found.ids if len(found.keys[task_id]) > 1]
    assert len(repeated) >= 2
    assert sum(entry.is_replay for entry in found.posts) == sum(len(found.keys[id]) - 1 for id in repeated)
    assert len({key for sent in found.keys.values() for key, _ in sent}) == len(found.ids)


@plays("posts in trouble")
def test_posts_in_trouble_are_repeated_with_the_same_bytes(stage: Any, play: Scene) -> None:
    found = played(stage, play)
    seen = Counter(entry.fault for entry in found.posts)
    assert {"status", "html", "reset", "slow", "garbage"} <= set(seen), seen


@plays("reads in trouble")
def test_reads_in_trouble_only_delay(stage: Any, play: Scene) -> None:
    found = played(stage, play)
    seen = Counter(entry.fault for entry in found.reads)
    assert {"status", "html", "reset", "slow", "garbage"} <= set(seen), seen


@plays("429 with Retry-After", "429 without Retry-After")
def test_a_429_brakes_everybody(stage: Any, play: Scene) -> None:
    found = played(stage, play)
    refused = [entry for entry in found.posts if entry.status == 429]
    assert refused
    # In each of the three windows, those may be refused who had begun when the first 429 came: one for each child.
    assert len(refused) <= 3 * CHILDREN
    # The first window began with the first POST; until it is over nobody posts but those.
    over_at = found.posts[0].at + WINDOW_S - 0.1
    assert len([entry for entry in found.posts if refused[0].at < entry.at < over_at]) <= CHILDREN


@plays("replays show an old state")
def test_a_replay_that_shows_an_old_state_is_read_again(stage: Any, play: Scene) -> None:
    found = played(stage, play)
    replays = [entry for entry in found.posts if entry.is_replay]
    assert len(replays) == SCENARIOS["replays show an old state"].tasks
    for replay in replays:
        later = [read for read in found.reads if read.job_id == replay.job_id and read.number > replay.number]
        assert later[0].wait_s is None  # the run's own; the watcher's are long-polls
