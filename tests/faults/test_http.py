"""A Framelane that misbehaves: answers lost, errors, HTML, resets, slowness, 429, and replays of an old state.

Each scenario has a server, a stack and a worker of its own; they run at the same time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from framelane_celery.testing import Entry, Fault, FramelaneServer, Switches, limits
from tests.faults.attack import make_server, make_stack, posts_of, same_bytes
from tests.worker.stacks import wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(200)]

CHILDREN = 4
WINDOW_S = 5.0
"""The server's rate limits count over so many seconds here."""


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
    server: dict[str, Any] = {}
    name: str = "redis"


SCENARIOS = {
    "answers lost": Scenario(40, (Fault("answer_lost", method="POST", probability=0.2, seed=7),)),
    "answers lost on rabbitmq": Scenario(
        20, (Fault("answer_lost", method="POST", probability=0.2, seed=8),), name="rabbitmq"
    ),
    "posts in trouble": Scenario(
        24,
        (
            Fault("status", method="POST", status=500, probability=0.15, seed=1),
            Fault("status", method="POST", status=503, html=True, probability=0.15, seed=2),
            Fault("html", method="POST", probability=0.15, seed=3, accepted=True),
            Fault("reset", method="POST", probability=0.15, seed=4),
            Fault("slow", method="POST", probability=0.1, seed=5, seconds=2.5, accepted=True),
            Fault("garbage", method="POST", probability=0.15, seed=6, accepted=True),
        ),
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


def _play(scenario: Scenario, folder: Path) -> Played:
    with ExitStack() as opened:
        server: FramelaneServer = opened.enter_context(make_server(**scenario.server))
        for fault in scenario.faults:
            server.faults.add(fault)
        settings = {"read_timeout_s": 1.5}
        stack = opened.enter_context(make_stack(scenario.name, folder, server, framelane=settings))
        opened.enter_context(stack.worker("-c", str(CHILDREN)))
        results = [stack.sig("promo", f"text {number}").apply_async() for number in range(scenario.tasks)]
        wait_for(lambda: all(result.ready() for result in results), 110, "all results")
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


@pytest.fixture(scope="module")
def played(tmp_path_factory: Any) -> Iterator[dict[str, Future[Played]]]:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(limits, "WINDOW_S", WINDOW_S)
        yield {
            label: pool.submit(_play, scenario, tmp_path_factory.mktemp("http")) for label, scenario in SCENARIOS.items()
        }


@pytest.fixture
def play(played: dict[str, Future[Played]]) -> Callable[[str], Played]:
    def play(label: str) -> Played:
        found = played[label].result(timeout=180)
        assert found.statuses == ["completed"] * SCENARIOS[label].tasks
        assert found.per_task == [1] * SCENARIOS[label].tasks
        assert all(found.is_same(task_id) for task_id in found.ids)
        return found

    return play


@pytest.mark.parametrize("label", ["answers lost", "answers lost on rabbitmq"])
def test_an_answer_lost_after_acceptance_makes_no_second_job(play: Callable[[str], Played], label: str) -> None:
    """The body of `promo` would build another request the second time; key and bytes are those of the first."""
    found = play(label)
    repeated = [task_id for task_id in found.ids if len(found.keys[task_id]) > 1]
    assert len(repeated) >= 2
    assert sum(entry.is_replay for entry in found.posts) == sum(len(found.keys[id]) - 1 for id in repeated)
    assert len({key for sent in found.keys.values() for key, _ in sent}) == len(found.ids)


def test_posts_in_trouble_are_repeated_with_the_same_bytes(play: Callable[[str], Played]) -> None:
    found = play("posts in trouble")
    seen = Counter(entry.fault for entry in found.posts)
    assert {"status", "html", "reset", "slow", "garbage"} <= set(seen), seen


def test_reads_in_trouble_only_delay(play: Callable[[str], Played]) -> None:
    found = play("reads in trouble")
    seen = Counter(entry.fault for entry in found.reads)
    assert {"status", "html", "reset", "slow", "garbage"} <= set(seen), seen


@pytest.mark.parametrize("label", ["429 with Retry-After", "429 without Retry-After"])
def test_a_429_brakes_everybody(play: Callable[[str], Played], label: str) -> None:
    found = play(label)
    refused = [entry for entry in found.posts if entry.status == 429]
    assert refused
    # In each of the three windows, those may be refused who had begun when the first 429 came: one for each child.
    assert len(refused) <= 3 * CHILDREN
    first, posted_at = refused[0].at, [entry.at for entry in found.posts]
    begun = first + 0.5
    # The first window began with the first POST; until it is over nobody posts.
    assert not [at for at in posted_at if begun < at < found.posts[0].at + WINDOW_S - 0.1]


def test_a_replay_that_shows_an_old_state_is_read_again(play: Callable[[str], Played]) -> None:
    found = play("replays show an old state")
    replays = [entry for entry in found.posts if entry.is_replay]
    assert len(replays) == SCENARIOS["replays show an old state"].tasks
    for replay in replays:
        assert any(read.job_id == replay.job_id and read.number > replay.number for read in found.reads)
