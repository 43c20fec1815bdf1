"""The room, or the broker, goes away for the workers: nothing is told that is not so, and all is done later."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from celery import states
from celery.exceptions import TimeLimitExceeded

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
    struck,
    wait_until_over,
)
from tests.faults.proxy import Proxy
from tests.faults.tasks import LOADED
from tests.worker.project import composition
from tests.worker.stacks import AMQP, POSTGRES, REDIS, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

ROOMS = {"redis": f"{REDIS}/12", "rabbitmq": POSTGRES}
BROKERS = {"redis": f"{REDIS}/10", "rabbitmq": AMQP}
PORTS = {"redis": 6379, "amqp": 5672, "postgresql+psycopg": 5432}
POINTS = ("begin:before", "bytes:before", "post:after", "completed", "finish:before")


def _through(url: str, opened: ExitStack) -> tuple[str, Proxy]:
    """A URL that leads to the same service through a proxy."""
    parts = urlsplit(url)
    proxy = opened.enter_context(Proxy(parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme]))
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}").geturl(), proxy


class Outcome(NamedTuple):
    ends: dict[str, End]
    told: set[str]


def _room_away(name: str, folder: Path) -> Outcome:
    """Runs are held at their points; the room goes; they go on without it; it comes back."""
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        url, proxy = _through(ROOMS[name], opened)
        stack = opened.enter_context(make_stack(name, folder, server))
        stack.framelane["room_url"] = url  # for workers; this process goes straight to it
        opened.enter_context(bystander(stack))
        opened.enter_context(stack.worker("-c", str(len(POINTS) + 1), *ARMED))
        pieces = {point: Piece(stack, point) for point in POINTS}
        for point, piece in pieces.items():
            order(stack, point, f"wait {stack.folder / 'go'}", piece.id)
            piece.call()
        wait_for(lambda: {piece.id for piece in pieces.values()} <= struck(stack), 100, "all at their points")
        proxy.cut()
        (stack.folder / "go").touch()
        log = stack.folder / "w1.log"
        wait_for(lambda: "the room is away, put back" in log.read_text(), 100, "begin without a room")
        wait_for(lambda: "the end was not written" in log.read_text(), 100, "an end without a room")
        told = {stack.app.AsyncResult(piece.id).state for piece in pieces.values()}
        proxy.restore()
        wait_until_over(list(pieces.values()), 180)
        return Outcome({point: piece.end(server) for point, piece in pieces.items()}, told)


def _room_away_at_a_hard_limit(name: str, folder: Path) -> dict[str, Any]:
    """The time limit comes while the room is away: FAILURE is told, so the task must not run, and pay, afterwards."""
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        url, proxy = _through(ROOMS[name], opened)
        stack = opened.enter_context(make_stack(name, folder, server))
        stack.framelane["room_url"] = url
        worker = opened.enter_context(stack.worker("-c", "2", *LOADED))
        limited = stack.sig("tests.faults.tasks.limited_body").apply_async()
        wait_for(lambda: stack.journal("body"), 100, "the body")
        proxy.cut()
        wait_for(lambda: "the record was not told" in worker.log, 100, "the limit")
        proxy.restore()
        wait_for(stack.is_idle, 180, "the record over")
        return {"error": limited.result, "bodies": len(stack.journal("body")), "jobs": server.ledger.counts()["jobs"]}


def _broker_away(name: str, folder: Path) -> dict[str, Any]:
    """A call without a broker; then the broker goes while workers run, and comes back."""
    with ExitStack() as opened:
        server = opened.enter_context(make_server())
        url, proxy = _through(BROKERS[name], opened)
        options = {"broker_url": url, "task_publish_retry": False}
        if name == "rabbitmq":
            options |= {"broker_heartbeat": 2}
        stack = opened.enter_context(make_stack(name, folder, server, celery=options))
        queues = ("-Q", f"{stack.queue},{stack.queue}-plain")
        proxy.cut()
        early = stack.sig("framelane.render", composition()).apply_async()
        written = stack.record(early.id)
        proxy.restore()
        worker = opened.enter_context(stack.worker("-c", "2", *queues, *ARMED))
        before = early.get(timeout=180)["status"]

        pieces = [Piece(stack, f"broker {number}", "held").call() for number in range(4)]
        wait_for(lambda: all(stack.record(piece.id).until == "job" for piece in pieces), 100, "all waiting")
        # Nothing is to be acknowledged any more: kombu 5.7 ends the worker when it cannot put such a message back.
        inspect = stack.app.control.inspect(destination=[worker.node], timeout=5.0)
        wait_for(lambda: (inspect.active() or {}).get(worker.node) == [], 100, "all runs over")
        proxy.cut()
        for piece in pieces:
            server.finish(stack.record(piece.id).job_id)
        wait_for(lambda: all(stack.record(piece.id).outcome for piece in pieces), 100, "decided without a broker")
        proxy.restore()
        wait_until_over(pieces, 180)
        assert worker.process is not None
        return {
            "written": written.until,
            "before": before,
            "alive": worker.process.poll() is None,
            "jobs": [piece.jobs(server) for piece in pieces],
            "plain": [[len(piece.plain("link")), len(piece.plain("after"))] for piece in pieces],
        }


LIMIT_SCENES = [Scene(f"limit, {name}", _room_away_at_a_hard_limit, (name,)) for name in ROOMS]
ROOM_SCENES = [Scene(f"room, {name}", _room_away, (name,)) for name in ROOMS]
BROKER_SCENES = [Scene(f"broker, {name}", _broker_away, (name,)) for name in BROKERS]


@pytest.mark.parametrize("away", ROOM_SCENES, ids=by_label)
def test_a_room_that_is_away_at_begin_and_at_the_end_delays_and_doubles_nothing(stage: Any, away: Scene) -> None:
    outcome: Outcome = stage.outcome(away)
    assert states.FAILURE not in outcome.told
    for point, end in outcome.ends.items():
        assert (end.state, end.jobs, end.is_same, end.plain) == (states.SUCCESS, [1, 1], True, [1, 1]), point
        assert end.errbacks == 0, point


@pytest.mark.parametrize("away", LIMIT_SCENES, ids=by_label)
def test_a_room_that_is_away_at_a_hard_limit_hears_of_the_end_later(stage: Any, away: Scene) -> None:
    outcome = stage.outcome(away)
    assert isinstance(outcome["error"], TimeLimitExceeded)
    assert (outcome["bodies"], outcome["jobs"]) == (1, 0)


@pytest.mark.parametrize("away", BROKER_SCENES, ids=by_label)
def test_a_broker_that_is_away_at_the_call_and_while_jobs_run_delays_only(stage: Any, away: Scene) -> None:
    outcome = stage.outcome(away)
    assert (outcome["written"], outcome["before"], outcome["alive"]) == ("start", "completed", True)
    assert outcome["jobs"] == [[1, 1]] * 4
    assert outcome["plain"] == [[1, 1]] * 4
