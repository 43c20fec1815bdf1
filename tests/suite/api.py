"""(c) Answers lost after acceptance; (g) the API down for minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from framelane_celery.testing import Fault as Misbehaviour
from tests.suite.crew import Crew
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger

# --- (c) ---------------------------------------------------------------------------------------------------------

LOST: dict[Form, tuple[int, int, int]] = {"full": (5, 200, 40), "short": (1, 30, 6)}
"""Rounds; jobs of each; answers that are lost."""


def _answers_lost(jobs: int, answers: int, number: int, transport: str, folder: Path) -> Ledger:
    with make_ground(transport, folder, job_seconds=0.5) as ground:
        lost = Misbehaviour("answer_lost", method="POST", probability=2 * answers / jobs, times=answers, seed=number)
        ground.server.faults.add(lost)
        with Crew(ground.stack, 1, "-c", "4"):
            ground.calls(jobs)
            ground.until_over()
        posts = ground.server.ledger.posts()
        struck = [entry for entry in posts if entry.fault == "answer_lost"]
        ground.ledger.faults_planned = answers
        ground.ledger.faults_hit = sum(entry.is_new_job for entry in struck)
        ground.ledger.figures["replays"] = sum(entry.is_replay for entry in posts)
        return ground.count()


def _lost(form: Form) -> Mapping[str, Round]:
    rounds, jobs, answers = LOST[form]
    return {f"round {number + 1}": partial(_answers_lost, jobs, answers, number) for number in range(rounds)}


# --- (g) ---------------------------------------------------------------------------------------------------------


class Outage(NamedTuple):
    jobs: int
    ended: int
    """So many of them end while the API is down; the others when it is over."""
    called: int
    """Calls while it is down."""
    phase_s: float
    """How long each of its three ways to be down lasts."""
    pick_up_s: float = 60.0


OUTAGES: dict[Form, Outage] = {"full": Outage(2000, 500, 30, 100.0), "short": Outage(30, 15, 3, 2.0)}
PHASES = (
    Misbehaviour("status", path="/v1/*", status=503, html=True),
    Misbehaviour("status", path="/v1/*", status=429),
    Misbehaviour("slow", path="/v1/*", seconds=40),
)


def _down(outage: Outage, transport: str, folder: Path) -> Ledger:
    options = {"read_timeout_s": 10 if outage.phase_s > 10 else 2}
    with make_ground(transport, folder, framelane=options) as ground, Crew(ground.stack, 1, "-c", "4") as crew:
        ground.calls(outage.jobs, "held")
        ground.waiting_for_jobs(outage.jobs, 400)
        held = [(record.id, record.job_id) for record in ground.stack.room.scan("look")]
        down_s = outage.phase_s * len(PHASES)
        ends: dict[str, float] = {}
        started = time.monotonic()
        for number, phase in enumerate(PHASES):
            ground.plan(ground.in_flight() >= outage.jobs - outage.ended)
            ground.server.faults.clear()
            ground.server.faults.add(phase)
            ground.calls(outage.called // len(PHASES), lasts(1))
            while (gone_s := time.monotonic() - started) < (number + 1) * outage.phase_s:
                _end(ground, held[len(ends) : int(outage.ended * gone_s / down_s)], ends)
                time.sleep(0.1)
        _end(ground, held[len(ends) : outage.ended], ends)
        struck = sum(entry.fault is not None for entry in ground.server.ledger)
        ground.server.faults.clear()
        up_at = ground.stack.room.read("")[1]
        _until_seen(ground, ends)
        _figures(ground, ends, up_at, outage)
        _end(ground, held[outage.ended :], ends)
        ground.until_over(400)
        ground.ledger.figures["requests_struck"] = struck
        ground.ledger.figures["workers_ended"] = crew.ended_by_themselves
        attempts = [ground.stack.record(task_id).attempt for task_id in ground.results]
        ground.ledger.check(max(attempts) == 1, f"{sum(made > 1 for made in attempts)} tasks spent an attempt")
        return ground.count()


def _end(ground: Ground, jobs: list[tuple[str, str]], ends: dict[str, float]) -> None:
    """Have jobs end now; note when, by the room's clock."""
    for task_id, job_id in jobs:
        ground.server.finish(job_id)
        ends[task_id] = ground.stack.room.read("")[1]


def _seen_at(ground: Ground, task_id: str) -> float | None:
    """When the watcher saw the end of the task's job."""
    record = ground.stack.record(task_id)
    return next((entry["at"] for entry in record.history if entry["outcome"] == "completed"), None)


def _until_seen(ground: Ground, ends: Mapping[str, float], timeout_s: float = 180) -> None:
    """Until the watcher has seen all these ends; who is missing then counts as late."""
    left = set(ends)
    give_up_at = time.monotonic() + timeout_s
    while left and time.monotonic() < give_up_at:
        left = {task_id for task_id in left if _seen_at(ground, task_id) is None}
        time.sleep(0.5)


def _figures(ground: Ground, ends: Mapping[str, float], up_at: float, outage: Outage) -> None:
    seen = {task_id: _seen_at(ground, task_id) for task_id in ends}
    late_s = sorted(float("inf") if at is None else at - max(up_at, ends[id]) for id, at in seen.items())
    p95_s = late_s[int(len(late_s) * 0.95)]
    ground.ledger.figures |= {"pick_up_p50_s": late_s[len(late_s) // 2], "pick_up_p95_s": p95_s}
    ground.ledger.check(p95_s <= outage.pick_up_s, f"p95 of the pick-up after the outage: {p95_s:.1f} s")


ANSWERS = Fault("200 answers of 1,000 lost after acceptance", _lost)
DOWN = Fault(
    "API down (503, 429, hanging) for 5 min, 2,000 in flight", lambda form: {"down": partial(_down, OUTAGES[form])}
)
