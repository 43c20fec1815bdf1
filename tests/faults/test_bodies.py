"""Bodies that take too long, kill their process, or end it in ways of their own: each task ends once.

They run at the same time on one worker for each transport; a lease is 15 s long here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from celery.exceptions import TimeLimitExceeded

from framelane_celery import JobFailed
from framelane_celery.testing import FramelaneServer
from tests.faults import tasks
from tests.faults.attack import bystander, make_server, make_stack, order
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.celery55, pytest.mark.timeout(200)]

LEASE_S, MAX_LOST_RUNS = 15, 2
OURS = "tests.faults.tasks"
CALLS: dict[str, tuple[str, list[Any]]] = {
    "a body of three leases": ("long_body", [3 * LEASE_S + 1]),
    "a `completed` of more than a lease": (f"{OURS}.slow_end", [LEASE_S + 8]),
    "a body that kills its child": ("deadly", []),
    "a body that exits": (f"{OURS}.gives_up", ["exit"]),
    "Ignore": (f"{OURS}.gives_up", ["ignore"]),
    "Reject": (f"{OURS}.gives_up", ["reject"]),
    "Reject with requeue": (f"{OURS}.gives_up", ["requeue"]),
    "Ignore at the end": (f"{OURS}.gives_up_at_the_end", ["ignore"]),
    "Reject at the end": (f"{OURS}.gives_up_at_the_end", ["reject"]),
    "the hard limit in the body": ("slow_body", [600]),
    "the hard limit before it has begun": ("slow_body", [0]),
    "the hard limit at the end": (f"{OURS}.limited_end", [600]),
}


class Scene(NamedTuple):
    server: FramelaneServer
    stack: Stack
    ids: dict[str, str]

    def notes(self, event: str, label: str) -> int:
        return sum(note.get("id") == self.ids[label] for note in self.stack.journal(event))

    def tail(self, label: str) -> int:
        return sum(note.get("tag") == label for note in self.stack.journal("plain"))

    def jobs(self, label: str) -> int:
        return len(self.server.ledger.jobs_per_task().get(self.ids[label], []))

    def posts(self, label: str) -> int:
        ids = [(entry.json().get("metadata") or {}).get("celery_task_id") for entry in self.server.ledger.posts()]
        return ids.count(self.ids[label])

    def result(self, label: str) -> Any:
        return self.stack.app.AsyncResult(self.ids[label])

    def record(self, label: str) -> Any:
        return self.stack.record(self.ids[label])


def _play(name: str, folder: Path, opened: ExitStack) -> Scene:
    server = opened.enter_context(make_server())
    stack = opened.enter_context(
        make_stack(name, folder, server, framelane={"max_lost_runs": MAX_LOST_RUNS, "lease_s": LEASE_S})
    )
    opened.enter_context(bystander(stack))
    opened.enter_context(stack.worker("-c", str(len(CALLS) + 2), *tasks.LOADED))
    ids = {}
    for label, (task, args) in CALLS.items():
        ids[label] = str(uuid4())
        call = stack.sig(task, *args).set(task_id=ids[label])
        call.link(stack.sig("note", tag=label))
        call.link_error(stack.sig("errback"))
        if "before it has begun" in label:
            order(stack, "begin:before", "hang", ids[label])
        call.apply_async()
    wait_for(lambda: all(stack.record(task_id).is_over for task_id in ids.values()), 100, "all records over")
    # A task behind everything on the plain queue: what the others had sent there has run.
    stack.sig("note", tag="last").apply_async().get(timeout=20)
    return Scene(server, stack, ids)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: Any) -> Iterator[dict[str, Scene]]:
    names = ("redis", "rabbitmq")
    with ExitStack() as opened, ThreadPoolExecutor(2) as pool:
        yield dict(zip(names, pool.map(_play, names, [tmp_path_factory.mktemp("bodies") for _ in names], [opened] * 2)))


@pytest.fixture(params=["redis", "rabbitmq"])
def scene(request: pytest.FixtureRequest, scenes: dict[str, Scene]) -> Scene:
    return scenes[request.param]


def test_a_body_of_three_leases_submits_once(scene: Scene) -> None:
    label = "a body of three leases"
    assert scene.result(label).result["status"] == "completed"
    assert (scene.jobs(label), scene.posts(label), scene.tail(label)) == (1, 1, 1)


def test_a_completed_of_more_than_a_lease_runs_once(scene: Scene) -> None:
    label = "a `completed` of more than a lease"
    assert scene.result(label).result["status"] == "completed"
    assert (scene.jobs(label), scene.notes("slow completed", label), scene.tail(label)) == (1, 1, 1)


@pytest.mark.parametrize("label", ["a body that kills its child", "a body that exits"])
def test_a_body_that_ends_its_process_in_every_run_is_a_dead_letter(scene: Scene, label: str) -> None:
    error = scene.result(label).result
    assert isinstance(error, JobFailed)
    assert error.code == "worker_lost"
    assert scene.record(label).until == "dead"
    assert scene.record(label).call  # all that is needed to run it again
    assert (scene.jobs(label), scene.notes("errback", label), scene.tail(label)) == (0, 1, 0)
    if label == "a body that exits":
        assert scene.notes("body", label) == MAX_LOST_RUNS + 1


@pytest.mark.parametrize("label", [label for label in CALLS if "Ignore" in label or "Reject" in label])
def test_ignore_and_reject_end_the_record(scene: Scene, label: str) -> None:
    assert scene.record(label).until == "done"
    assert scene.notes("body", label) == 1
    assert scene.jobs(label) == (1 if "end" in label else 0)
    assert scene.tail(label) == 0


@pytest.mark.parametrize("label", [label for label in CALLS if "hard limit" in label])
def test_a_hard_time_limit_ends_the_task_once(scene: Scene, label: str) -> None:
    assert isinstance(scene.result(label).result, TimeLimitExceeded)
    assert scene.record(label).until == "done"
    assert scene.jobs(label) == (1 if "end" in label else 0)
    assert scene.notes("slow completed", label) == (1 if "end" in label else 0)
    assert (scene.notes("errback", label), scene.tail(label)) == (1, 0)
