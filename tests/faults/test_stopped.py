"""A worker that is stopped (SIGSTOP) past its lease and its lead, and goes on when others have done its work.

broker_facts.md, rule 4: two holders go unnoticed, so a fencing token is checked inside each of the watcher's
writes, and the run's own id inside each of the run's.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.attack import (
    ARMED,
    End,
    Piece,
    Scene,
    by_label,
    bystander,
    make_server,
    make_stack,
    order,
    pieces_of,
    struck,
    wait_until_over,
)
from tests.worker.stacks import wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

RUNS = dict.fromkeys(
    ["body", "bytes:after", "post:before", "post:after", "progress:within", "progress:after", "completed"], "chain"
)


class Outcome(NamedTuple):
    ends: dict[str, End]
    leads: int


def _stop_and_continue(name: str, point: str, folder: Path) -> Outcome:
    """Runs stop one by one, then the main process, its watcher between two steps; another worker does it all."""
    with ExitStack() as opened:
        server = opened.enter_context(make_server(**({"job_seconds": 6} if point.startswith("shown") else {})))
        stack = opened.enter_context(make_stack(name, folder, server))
        opened.enter_context(bystander(stack))
        first = opened.enter_context(stack.worker("-c", str(len(RUNS) + 1), *ARMED))
        pieces = dict(zip(RUNS, pieces_of(stack, RUNS, "stop", "run"), strict=True))
        wait_for(lambda: {piece.id for piece in pieces.values()} <= struck(stack), 100, "all runs stopped")
        watched = pieces[point] = Piece(stack, f"watcher {point}")
        order(stack, point, "stop", watched.id)
        watched.call()
        wait_for(lambda: watched.id in struck(stack), 100, "the watcher stopped")
        second = opened.enter_context(stack.worker("-c", "2", name="w2"))
        wait_until_over(list(pieces.values()), 180)

        os.killpg(first.pid, signal.SIGCONT)
        # It has come back to itself when it answers, and its runs have seen that they are not wanted any more.
        inspect = stack.app.control.inspect(destination=[first.node], timeout=5.0)
        wait_for(lambda: (inspect.active() or {}).get(first.node) == [], 100, "w1 has nothing to do")
        wait_for(lambda: "another watcher leads" in first.log)
        stack.sig("note", tag="last").apply_async().get(timeout=60)
        wait_for(stack.is_idle)
        with suppress(AssertionError):  # a late PROGRESS is mended by a message; what is left is told below
            wait_for(lambda: all(stack.app.AsyncResult(piece.id).ready() for piece in pieces.values()), 30)
        assert second.process is not None
        assert second.process.poll() is None
        leads = first.log.count("watching, token") + second.log.count("watching, token")
        return Outcome({label: piece.end(server) for label, piece in pieces.items()}, leads)


STOPS = [
    Scene(f"{name}, {point}", _stop_and_continue, (name, point))
    for name, point in (
        ("redis", "seen"),
        ("redis", "decide:before"),
        ("redis", "shown:within"),
        ("rabbitmq", "decide:before"),
    )
]
MORE_STOPS = [
    Scene(f"{name}, {point}", _stop_and_continue, (name, point))
    for name, point in (("redis", "decide:after"), ("rabbitmq", "seen"), ("rabbitmq", "decide:after"))
]


@pytest.mark.parametrize(
    "stop", [*STOPS, *(pytest.param(stop, marks=pytest.mark.slow) for stop in MORE_STOPS)], ids=by_label
)
def test_a_stopped_worker_that_goes_on_finishes_nothing_twice(stage: Any, stop: Scene) -> None:
    outcome: Outcome = stage.outcome(stop)
    for label, end in outcome.ends.items():
        assert end.state == "SUCCESS", label
        assert end.jobs == [1, 1], label
        assert end.is_same, label
        assert end.errbacks == 0, label
        assert end.plain == [1, 1], label
    assert outcome.leads == 2  # the first one's, then the second one's for good
