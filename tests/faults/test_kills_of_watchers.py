"""SIGKILL of a worker while its watcher is between two of its steps; then another worker is started.

Every point is attacked on a stack of its own, all at the same time. The worker that comes later finds the lead taken
for up to LEAD_S, and whatever wake-up was lost is sent again after `resend_after_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from framelane_celery.testing import Fault, FramelaneServer
from tests.faults.attack import ARMED, End, Piece, Scene, by_label, make_server, make_stack, order, wait_until_over
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]


class Case(NamedTuple):
    point: str
    prepare: Callable[[Stack, FramelaneServer], None] | None = None
    meanwhile: Callable[[Piece], None] | None = None
    by_task: bool = True
    job_seconds: float = 0.3
    kind: str = "chain"


def _refuse_once(stack: Stack, server: FramelaneServer) -> None:
    server.faults.add(Fault("status", method="POST", status=503, times=1))


def _brake(stack: Stack, server: FramelaneServer) -> None:
    stack.room.brake("render", 8)  # longer than a call takes to its begin


def _kill_the_child(piece: Piece) -> None:
    order(piece.stack, "body", "kill process", piece.id)


def _revoke(piece: Piece) -> None:
    wait_for(lambda: piece.stack.record(piece.id).until == "job")
    piece.stack.app.control.revoke(piece.id)


def _strike_when_it_waits(piece: Piece) -> None:
    wait_for(lambda: piece.stack.record(piece.id).until == "job")
    order(piece.stack, "lead:after", "kill worker")


CASES = {
    "between the lead and what is due": Case("lead:after", None, _strike_when_it_waits, by_task=False, job_seconds=3),
    "between a look and the transition": Case("seen"),
    "between the transition and its wake-up": Case("decide:after"),
    "after the wake-up": Case("publish:after"),
    "between PROGRESS and the transition": Case("shown:after", job_seconds=6),
    "between a backoff's end and its wake-up": Case("wake:after", _refuse_once),
    "between a slot and its wake-up": Case("wake:after", _brake),
    "between a dead run's reclaim and its wake-up": Case("reclaim:after", None, _kill_the_child),
    "between REVOKED and the record's end": Case("revoked:stored", None, _revoke, job_seconds=60, kind="revoked"),
    "after a revoked record's end": Case("end:after", None, _revoke, job_seconds=60, kind="revoked"),
}


class Outcome(NamedTuple):
    end: End
    completed: int
    cancelled: int


def _attack(name: str, label: str, folder: Path) -> Outcome:
    case = CASES[label]
    with ExitStack() as opened:
        server = opened.enter_context(make_server(job_seconds=case.job_seconds))
        stack = opened.enter_context(make_stack(name, folder, server))
        piece = Piece(stack, "x", case.kind)
        if case.by_task:
            order(stack, case.point, "kill worker", piece.id)
        order(stack, "completed", "hang", piece.id)  # a wake-up that is out must not be done before the worker dies
        queues = ("-Q", f"{stack.queue},{stack.queue}-plain")
        first = opened.enter_context(stack.worker("-c", "1", *queues, *ARMED))
        if case.prepare:
            case.prepare(stack, server)
        if case.meanwhile is _kill_the_child:
            _kill_the_child(piece)
        piece.call()
        if case.meanwhile and case.meanwhile is not _kill_the_child:
            case.meanwhile(piece)
        wait_for(lambda: any(note["what"] == "kill worker" for note in stack.journal("struck")), 100, case.point)
        first.kill()
        opened.enter_context(stack.worker("-c", "1", *queues, name="w2"))
        wait_until_over([piece], 200)
        return Outcome(piece.end(server), len(stack.journal("completed")), len(server.ledger.cancels()))


ATTACKS = [Scene(f"{name}, {label}", _attack, (name, label)) for name in ("redis", "rabbitmq") for label in CASES]


@pytest.mark.parametrize("attack", ATTACKS, ids=by_label)
def test_a_watcher_killed_between_two_steps_loses_and_doubles_nothing(stage: Any, attack: Scene) -> None:
    outcome: Outcome = stage.outcome(attack)
    end = outcome.end
    assert end.until == "done"
    assert end.is_same
    if CASES[attack.arguments[1]].kind == "revoked":
        assert (end.state, end.jobs, outcome.completed) == ("REVOKED", [1, 0], 0)
        assert outcome.cancelled >= 1
    else:
        assert end.jobs == [1, 1]
        assert end.plain == [1, 1]
        assert outcome.completed == 1
        assert end.result["metadata"]["celery_task_id"] == end.tail_id
