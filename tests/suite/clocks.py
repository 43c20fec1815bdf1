"""(k) The clock of one host is off by an hour. The room has a clock of its own, and all instants are of that."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.suite.crew import Crew, Kept
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger
from tests.suite.servers import OwnRedis
from tests.worker.stacks import wait_for

HOUR_S = 3600
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Skews(NamedTuple):
    skews: tuple[int, ...]
    jobs: int
    """While the odd host leads, and again while it stands by."""
    stands_by: bool = True


SKEWS: dict[Form, Skews] = {"full": Skews((HOUR_S, -HOUR_S), 50), "short": Skews((HOUR_S,), 10, stands_by=False)}


def _odd(ground: Ground, skew_s: int) -> Crew:
    """A worker on a host whose clock is off."""
    options = ("-c", "2", "--without-gossip", "--without-heartbeat")  # others need not hear of its clock
    if _LIBRARIES:
        env = {"LD_PRELOAD": str(_LIBRARIES[0]), "FAKETIME": f"{skew_s:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return Crew(ground.stack, 1, *options, name="odd", **env)
    return Crew(ground.stack, 1, *options, "-I", "tests.suite.skewed", name="odd", TEST_SKEW_S=str(skew_s))


def _skewed(skew_s: int, skews: Skews, transport: str, folder: Path) -> Ledger:
    """The odd host leads at first, then it stands by; both run tasks all the time.

    On Redis with a broker of its own: kombu has an index of unacknowledged messages for the whole database, by the wall
    clock, so an hour is enough to put back what any worker of it holds.
    """
    with ExitStack() as opened:
        own: dict[str, Any] = {}
        if transport == "redis":
            own = {"broker_url": opened.enter_context(OwnRedis(folder / "broker")).url}
        ground = opened.enter_context(make_ground(transport, folder / "ground", celery=own))
        crew = opened.enter_context(_odd(ground, skew_s))
        (odd,) = crew.workers
        wait_for(lambda: odd.token() > 0, 60, "the odd one leads")
        with Crew(ground.stack, 1, "-c", "2") as others:
            _work(ground, skews.jobs)
            ground.plan(ground.in_flight() > 0 and odd.token() > 0)
            wait_for(lambda: _runs_of(ground, odd, skew_s), 100, "the odd one runs something")
            ground.until_over()
            ground.plan(_runs_of(ground, odd, skew_s) > 0)
            if skews.stands_by:
                with odd.lock:  # it is not started again before another leads: it might be the first to ask
                    odd.kill()
                    wait_for(lambda: others.workers[0].token() > 0, 60, "the other one leads")
                wait_for(lambda: odd.is_up, 150, "the odd one is back")
                _work(ground, skews.jobs)
                ground.until_over()
                ground.plan(_runs_of(ground, odd, skew_s) > 0)
        return ground.count(crew.killed)


def _work(ground: Ground, jobs: int) -> None:
    for number in range(jobs // 2):
        ground.call(lasts(0.5 + number % 3 / 2), is_chain=number % 4 == 0)
        ground.call(countdown=1)


def _runs_of(ground: Ground, odd: Kept, skew_s: int) -> int:
    """What was noted by the odd worker as it is now, in its own time."""
    pids = odd.pids()
    return sum(
        note["pid"] in pids and abs(note["at"] - skew_s - time.time()) < HOUR_S / 2 for note in ground.stack.journal()
    )


def _rounds(form: Form) -> Mapping[str, Round]:
    skews = SKEWS[form]
    return {f"{skew_s / HOUR_S:+.0f} h": partial(_skewed, skew_s, skews) for skew_s in skews.skews}


CLOCK = Fault("clock of one host off by an hour, either way", _rounds)
