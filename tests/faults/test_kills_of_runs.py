"""SIGKILL of a run, at every point from its begin to its end: of the pool's child, and of the whole worker.

All points of a transport are attacked at once, each in a process of its own. First each child kills itself at its
point; then as many runs stop at their points and the whole worker is killed, with all of them in it, and another one
is started. On Redis the killed worker's messages lie there for the visibility timeout of an hour: nothing may wait for
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from framelane_celery.testing import FramelaneServer
from tests.faults.attack import ARMED, Piece, bystander, make_server, make_stack, pieces_of, same_bytes, struck
from tests.faults.attack import wait_until_over, workers
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(180)]

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
VICTIMS = ("child", "worker")


class Battle(NamedTuple):
    server: FramelaneServer
    stack: Stack
    pieces: dict[tuple[str, str], Piece]
    took_s: dict[str, float]


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def battle(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Battle]:
    folder = tmp_path_factory.mktemp("kills")
    with make_server() as server, make_stack(request.param, folder, server) as stack:
        armed = stack.worker("-c", str(len(POINTS) + 1), *ARMED)
        with workers(bystander(stack), armed) as (_, first):
            by_child = pieces_of(stack, POINTS, "kill process", "child")
            wait_until_over(by_child, 60)
            by_worker = pieces_of(stack, POINTS, "hang", "worker")
            wait_for(lambda: {piece.id for piece in by_worker} <= struck(stack), 40, "all at their points")
            first.kill()
            with stack.worker("-c", "2", name="w2"):
                wait_until_over(by_worker, 60)
                pieces = {("child", point): piece for point, piece in zip(POINTS, by_child, strict=True)}
                pieces |= {("worker", point): piece for point, piece in zip(POINTS, by_worker, strict=True)}
                yield Battle(server, stack, pieces, {})


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_run_killed_anywhere_ends_once_and_is_paid_once(battle: Battle, victim: str, point: str) -> None:
    piece = battle.pieces[victim, point]
    assert piece.id in struck(battle.stack)
    assert battle.stack.record(piece.id).until == "done"
    assert same_bytes(battle.server)(piece.id)
    if piece.kind == "chord":
        assert len(set(piece.result.get(timeout=5))) == 2
        assert piece.jobs(battle.server) == [1, 0]
    elif piece.kind == "failing":
        result = battle.stack.app.AsyncResult(piece.id)
        assert (result.state, result.result.code) == ("FAILURE", "source_unreachable")
        assert piece.jobs(battle.server) == [1, 0]
    else:
        job = piece.result.get(timeout=5)
        assert (job["kind"], job["status"]) == ("task", "completed")
        assert job["metadata"]["celery_task_id"] == piece.tail_id
        assert piece.jobs(battle.server) == [1, 1]


@pytest.mark.parametrize("point", [point for point, kind in POINTS.items() if kind != "failing"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_plain_tail_is_doubled_only_between_its_publication_and_the_result(
    battle: Battle, victim: str, point: str
) -> None:
    piece = battle.pieces[victim, point]
    links, afters = piece.plain("link"), piece.plain("after")
    assert len(set(links)) == 1  # doubled or not, it is the same task
    assert len(links) == (2 if point == "tail:before-result" else 1)
    assert len(afters) == (0 if piece.kind == "chord" else 1)
