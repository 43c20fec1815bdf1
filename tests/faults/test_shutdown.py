"""A worker that is told to end while runs are in the middle of something: SIGTERM (warm) and SIGQUIT (cold)."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attack import (
    ARMED,
    End,
    Scene,
    by_label,
    bystander,
    make_server,
    make_stack,
    pieces_of,
    struck,
    wait_until_over,
)
from tests.worker.stacks import wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

POINTS = dict.fromkeys(["body", "post:before", "post:after", "completed"], "chain")


def _end(name: str, how: str, folder: Path) -> dict[str, End]:
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        stack = opened.enter_context(make_stack(name, folder, server))
        opened.enter_context(bystander(stack))
        first = opened.enter_context(stack.worker("-c", str(len(POINTS) + 1), *ARMED))
        go = stack.folder / "go"
        pieces = pieces_of(stack, POINTS, f"wait {go}", "run")
        wait_for(lambda: {piece.id for piece in pieces} <= struck(stack), 100, "all at their points")
        first.signal(signal.SIGTERM if how == "warm" else signal.SIGQUIT)
        if how == "warm":
            wait_for(lambda: "Warm shutdown" in first.log)
            go.touch()
        assert first.process is not None
        first.process.wait(100)
        go.touch()
        opened.enter_context(stack.worker("-c", "2", name="w2"))
        wait_until_over(pieces, 180)
        return {piece.label: piece.end(server) for piece in pieces}


ENDS = [Scene(f"{name}, {how}", _end, (name, how)) for name in ("redis", "rabbitmq") for how in ("warm", "cold")]


@pytest.mark.parametrize("end", ENDS, ids=by_label)
def test_a_worker_that_is_shut_down_in_the_middle_loses_and_doubles_nothing(stage: Any, end: Scene) -> None:
    for label, one in stage.outcome(end).items():
        assert one.errbacks == 0, label
        assert (one.until, one.state, one.jobs, one.is_same, one.plain) == ("done", "SUCCESS", [1, 1], True, [1, 1]), (
            label
        )
