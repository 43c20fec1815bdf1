"""(f) The watcher's process stands still, past its lead and its leases, and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from framelane_celery.watching.watcher import LEAD_S
from tests.suite.crew import Crew, Kept
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import lasts, make_ground
from tests.suite.ledger import Ledger
from tests.worker.stacks import wait_for

MARGIN_S = 1.0


class Stops(NamedTuple):
    rounds: int
    stops: int
    jobs: int
    """Called before each stop."""


STOPS: dict[Form, Stops] = {"full": Stops(2, 5, 20), "short": Stops(1, 1, 6)}


def _stopped(stops: Stops, transport: str, folder: Path) -> Ledger:
    """In turn the main process alone, its children going on, and all of the worker."""
    with make_ground(transport, folder) as ground, Crew(ground.stack) as crew:
        lease_s = float(ground.stack.framelane["lease_s"])
        leads_lost = 0
        for number in range(stops.stops):
            leader = crew.leader()
            other = next(kept for kept in crew.workers if kept is not leader)
            ground.calls(stops.jobs // 2, lasts(2), is_chain=True)
            ground.waiting_for_jobs(1)
            ground.plan(ground.in_flight() > 0)
            send = os.kill if number % 2 == 0 else os.killpg
            stopped_at, before = time.monotonic(), other.token()
            send(leader.pid, signal.SIGSTOP)
            wait_for(_took_over(other, before), LEAD_S + 30, "another leads")
            wait_for(lambda since=stopped_at: time.monotonic() - since > lease_s + MARGIN_S, lease_s + 30)
            send(leader.pid, signal.SIGCONT)
            wait_for(_noticed(leader), 60, "it sees that another leads")
            leads_lost += 1
        ground.until_over()
        ground.ledger.figures["leads_lost"] = leads_lost
        ground.ledger.figures["workers_ended"] = crew.ended_by_themselves
        return ground.count()


def _took_over(kept: Kept, before: int) -> Callable[[], bool]:
    return lambda: kept.token() > before


def _noticed(kept: Kept) -> Callable[[], bool]:
    """Its last word on the lead is that it has none."""

    def noticed() -> bool:
        assert kept.worker is not None
        log = kept.worker.log
        return log.rfind("another watcher leads") > log.rfind("watching, token")

    return noticed


def _rounds(form: Form) -> Mapping[str, Round]:
    return {f"round {number + 1}": partial(_stopped, STOPS[form]) for number in range(STOPS[form].rounds)}


STOPPED = Fault("watcher stopped past lead and lease, and continued, 10 times", _rounds)
