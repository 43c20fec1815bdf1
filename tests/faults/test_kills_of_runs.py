"""SIGKILL of a run, at every point from its begin to its end: of the pool's child, and of the whole worker.

All points of a transport are attacked at once, each in a process of its own. First each child kills itself at its
point; then as many runs stop at their points and the whole worker is killed, with all of them in it, and another one
is started. On Redis the killed worker's messages lie there for the visibility timeout of an hour: nothing may wait for
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.attack import (
    ARMED,
    End,
    Piece,
    Scene,
    bystander,
    make_server,
    make_stack,
    pieces_of,
    struck,
    wait_until_over,
)
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

POINTS = {
    # the first run
    "begin:after": "chain",
    "body": "chain",
    "bytes:before": "chain",
    "bytes:after": "chain",
    "post:before": "chain",
    "post:after": "chain",
    "progress:after": "chain",
    "accept:after": "chain",
    # the second run
    "completed": "chain",
    "hold:after": "chain",
    "tail:before-result": "chain",
    "result:stored": "chain",
    "chord:before": "chord",
    "failure:stored": "failing",
    "after_return": "chain",
    "finish:after": "chain",
}
# Where the second run publishes the task of ours after it: its record is sent, then written; its message may be lost.
TAIL_POINTS = {"create:sent": "tail", "publish:before": "tail", "create:after": "tail", "publish:after": "tail"}
DOUBLED = {"tail:before-result", *TAIL_POINTS}
"""Between the publication of the first plain task of the tail and the storing of the result."""

TAIL_IS_OUT = {"tail:before-result", "create:after", "publish:after", "result:stored", "after_return", "finish:after"}
"""While a run stands still here, the task after it goes on. (One that is just sent to the room may have come there.)"""

ATTACKS = [("child", point) for point in POINTS] + [("worker", point) for point in {**POINTS, **TAIL_POINTS}]


def _battle(name: str, folder: Path) -> dict[tuple[str, str], End]:
    with make_server() as server, make_stack(name, folder, server) as stack, bystander(stack):
        all_points = {**POINTS, **TAIL_POINTS}
        with stack.worker("-c", str(len(all_points) + 1), *ARMED) as first:
            by_child = pieces_of(stack, POINTS, "kill process", "child")
            wait_until_over(by_child, 200)
            by_worker = pieces_of(stack, all_points | {"accept:after": "held"}, "hang", "worker")
            wait_for(lambda: all(_is_struck(piece) for piece in by_worker), 150, "all at their points")
            # What goes on beside them is over, or held: else the kill would find it anywhere.
            out = [piece for piece in by_worker if piece.label.removeprefix("worker ") in TAIL_IS_OUT]
            wait_for(lambda: all(_is_over(stack, piece.tail_id) for piece in out), 150, "their tails over")
            first.kill()
            for held in (piece for piece in by_worker if piece.kind == "held"):
                server.finish(stack.record(held.id).job_id)
        with stack.worker("-c", "2", name="w2"):
            wait_until_over(by_worker, 200)
            stack.sig("note", tag="last").apply_async().get(timeout=60)  # behind every other plain task
            pieces = zip(ATTACKS, by_child + by_worker, strict=True)
            return {attack: piece.end(server) for attack, piece in pieces}


def _is_over(stack: Stack, task_id: str) -> bool:
    record = stack.record(task_id)
    return record is not None and bool(record.is_over)


def _is_struck(piece: Piece) -> bool:
    return bool({piece.id, piece.tail_id} & struck(piece.stack))


BATTLES = [
    pytest.param(Scene("redis", _battle, ("redis",)), marks=pytest.mark.celery55, id="redis"),
    pytest.param(Scene("rabbitmq", _battle, ("rabbitmq",)), id="rabbitmq"),
]


@pytest.mark.parametrize(("victim", "point"), ATTACKS)
@pytest.mark.parametrize("battle", BATTLES)
def test_a_run_killed_anywhere_ends_once_and_is_paid_once(stage: Any, battle: Scene, victim: str, point: str) -> None:
    end = stage.outcome(battle)[victim, point]
    assert end.is_struck
    assert end.until == ("dead" if POINTS.get(point) == "failing" else "done")
    assert end.is_same
    assert end.errbacks == 0 or end.state == "FAILURE"
    kind = POINTS.get(point, "tail")
    if kind == "chord":
        assert len(set(end.result)) == 2
        assert end.jobs == [1, 0]
    elif kind == "failing":
        assert (end.state, end.error.code) == ("FAILURE", "source_unreachable")
        assert end.jobs == [1, 0]
        assert end.errbacks == (2 if point == "failure:stored" else 1)  # the same window as for a plain tail
    else:
        assert (end.result["kind"], end.result["status"]) == ("task", "completed")
        assert end.result["metadata"]["celery_task_id"] == end.tail_id
        assert end.jobs == [1, 1]


@pytest.mark.parametrize(("victim", "point"), [attack for attack in ATTACKS if POINTS.get(attack[1]) != "failing"])
@pytest.mark.parametrize("battle", BATTLES)
def test_a_plain_tail_is_doubled_only_between_its_publication_and_the_result(
    stage: Any, battle: Scene, victim: str, point: str
) -> None:
    end = stage.outcome(battle)[victim, point]
    assert end.plain_ids == 1  # doubled or not, it is the same task
    assert end.plain == [2 if point in DOUBLED else 1, 0 if POINTS.get(point) == "chord" else 1]
