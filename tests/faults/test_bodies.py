"""Bodies that take too long, kill their process, or end it in ways of their own: each task ends once.

They run at the same time on one worker for each transport; a lease is 15 s long here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from celery.exceptions import TimeLimitExceeded

from framelane_celery import JobFailed
from tests.faults import tasks
from tests.faults.attack import Scene, by_label, bystander, make_server, make_stack, order, posts_of
from tests.worker.stacks import wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.celery55, pytest.mark.timeout(600)]

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
    "the hard limit when its job was accepted": (f"{OURS}.limited_wait", []),
    "the hard limit at the end": (f"{OURS}.limited_end", [600]),
}


class Ended(NamedTuple):
    """What came of one call."""

    result: Any
    until: str
    call: str
    jobs: int
    posts: int
    tail: int
    errbacks: int
    bodies: int
    completed: int


def _play(name: str, folder: Path) -> dict[str, Ended]:
    settings = {"max_lost_runs": MAX_LOST_RUNS, "lease_s": LEASE_S}
    with (
        make_server() as server,
        make_stack(name, folder, server, framelane=settings) as stack,
        bystander(stack),
        stack.worker("-c", str(len(CALLS) + 2), *tasks.LOADED),
    ):
        ids = {label: str(uuid4()) for label in CALLS}
        for label, (task, args) in CALLS.items():
            call = stack.sig(task, *args).set(task_id=ids[label])
            call.link(stack.sig("note", tag=label))
            call.link_error(stack.sig("errback"))
            if "before it has begun" in label:
                order(stack, "begin:before", "hang", ids[label])
            if "was accepted" in label:
                order(stack, "accept:after", "hang", ids[label])
            call.apply_async()
        try:
            wait_for(lambda: all(stack.record(task_id).is_over for task_id in ids.values()), 300, "all records over")
        except AssertionError as error:
            left = {label: record for label, one in ids.items() if not (record := stack.record(one)).is_over}
            raise AssertionError(f"not over within 300 s: {left}") from error
        stack.sig("note", tag="last").apply_async().get(timeout=60)  # behind every other plain task

        def count(event: str, **fields: str) -> int:
            return sum(fields.items() <= note.items() for note in stack.journal(event))

        return {
            label: Ended(
                result=stack.app.AsyncResult(task_id).result,
                until=stack.record(task_id).until,
                call=stack.record(task_id).call,
                jobs=len(server.ledger.jobs_per_task().get(task_id, [])),
                posts=len(posts_of(server).get(task_id, [])),
                tail=count("plain", tag=label),
                errbacks=count("errback", id=task_id),
                bodies=count("body", id=task_id),
                completed=count("slow completed", id=task_id),
            )
            for label, task_id in ids.items()
        }


SCENES = [Scene(name, _play, (name,)) for name in ("redis", "rabbitmq")]


@pytest.fixture(params=SCENES, ids=by_label)
def ended(request: pytest.FixtureRequest, stage: Any) -> dict[str, Ended]:
    return stage.outcome(request.param)  # type: ignore[no-any-return]


def test_a_body_of_three_leases_submits_once(ended: dict[str, Ended]) -> None:
    one = ended["a body of three leases"]
    assert one.result["status"] == "completed"
    assert (one.jobs, one.posts, one.tail) == (1, 1, 1)


def test_a_completed_of_more_than_a_lease_runs_once(ended: dict[str, Ended]) -> None:
    one = ended["a `completed` of more than a lease"]
    assert one.result["status"] == "completed"
    assert (one.jobs, one.completed, one.tail) == (1, 1, 1)


@pytest.mark.parametrize("label", ["a body that kills its child", "a body that exits"])
def test_a_body_that_ends_its_process_in_every_run_is_a_dead_letter(ended: dict[str, Ended], label: str) -> None:
    one = ended[label]
    assert isinstance(one.result, JobFailed)
    assert one.result.code == "worker_lost"
    assert one.until == "dead"
    assert one.call  # all that is needed to run it again
    assert (one.jobs, one.errbacks, one.tail) == (0, 1, 0)
    if label == "a body that exits":
        assert one.bodies == MAX_LOST_RUNS + 1


@pytest.mark.parametrize("label", [label for label in CALLS if "Ignore" in label or "Reject" in label])
def test_ignore_and_reject_end_the_record(ended: dict[str, Ended], label: str) -> None:
    one = ended[label]
    assert (one.until, one.bodies, one.tail) == ("done", 1, 0)
    assert one.jobs == (1 if "end" in label else 0)


@pytest.mark.parametrize("label", [label for label in CALLS if "hard limit" in label])
def test_a_hard_time_limit_ends_the_task_once(ended: dict[str, Ended], label: str) -> None:
    one = ended[label]
    assert isinstance(one.result, TimeLimitExceeded)
    assert one.until == "done"
    assert one.jobs == (1 if "end" in label or "accepted" in label else 0)
    assert one.completed == (1 if "at the end" in label else 0)
    assert (one.errbacks, one.tail) == (1, 0)
