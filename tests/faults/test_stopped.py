"""A worker that is stopped (SIGSTOP) past its lease and its lead, and goes on when others have done its work.

broker_facts.md, rule 4: two holders go unnoticed, so a fencing token is checked inside each of the watcher's writes, and
the run's own id inside each of the run's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from framelane_celery.testing import FramelaneServer
from tests.faults.attack import ARMED, Piece, bystander, make_server, make_stack, order, pieces_of, same_bytes, struck
from tests.faults.attack import wait_until_over
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(200)]

RUNS = dict.fromkeys(["body", "bytes:after", "post:before", "post:after", "progress:after", "completed"], "chain")
WATCHERS = ("seen", "decide:before", "decide:after")


class Scene(NamedTuple):
    server: FramelaneServer
    stack: Stack
    pieces: dict[str, Piece]
    leads: int


def _stop_and_continue(name: str, point: str, folder: Path) -> Scene:
    """Runs stop one by one, then the main process, its watcher between two steps; another worker does it all."""
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        stack = opened.enter_context(make_stack(name, folder, server))
        opened.enter_context(bystander(stack))
        first = opened.enter_context(stack.worker("-c", str(len(RUNS) + 1), *ARMED))
        pieces = dict(zip(RUNS, pieces_of(stack, RUNS, "stop", "run"), strict=True))
        wait_for(lambda: {piece.id for piece in pieces.values()} <= struck(stack), 40, "all runs stopped")
        watched = pieces[point] = Piece(stack, f"watcher {point}")
        order(stack, point, "stop", watched.id)
        watched.call()
        wait_for(lambda: watched.id in struck(stack), 40, "the watcher stopped")
        second = opened.enter_context(stack.worker("-c", "2", name="w2"))
        wait_until_over(list(pieces.values()), 60)

        os.killpg(first.pid, signal.SIGCONT)
        # It has come back to itself when it answers, and its runs have seen that they are not wanted any more.
        inspect = stack.app.control.inspect(destination=[first.node], timeout=1.0)
        wait_for(lambda: (inspect.active() or {}).get(first.node) == [], 30, "w1 has nothing to do")
        wait_for(lambda: "another watcher leads" in first.log, 15)
        stack.sig("note", tag="last").apply_async().get(timeout=20)
        wait_for(stack.is_idle)
        assert second.process is not None
        assert second.process.poll() is None
        return Scene(server, stack, pieces, first.log.count("watching, token") + second.log.count("watching, token"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: Any) -> Iterator[dict[tuple[str, str], Future[Scene]]]:
    with ThreadPoolExecutor(6) as pool:
        yield {
            (name, point): pool.submit(_stop_and_continue, name, point, tmp_path_factory.mktemp("stopped"))
            for name in ("redis", "rabbitmq")
            for point in WATCHERS
        }


@pytest.mark.parametrize("point", WATCHERS)
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_a_stopped_worker_that_goes_on_finishes_nothing_twice(
    scenes: dict[tuple[str, str], Future[Scene]], name: str, point: str
) -> None:
    scene = scenes[name, point].result(timeout=180)
    is_same = same_bytes(scene.server)
    for piece in scene.pieces.values():
        assert piece.jobs(scene.server) == [1, 1], piece.label
        assert is_same(piece.id), piece.label
        notes = [note["tag"] for note in scene.stack.journal("plain")]
        assert (notes.count(f"link {piece.label}"), notes.count(f"after {piece.label}")) == (1, 1), piece.label
    assert scene.leads == 2  # the first one's, then the second one's for good
