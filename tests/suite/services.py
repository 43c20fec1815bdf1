"""(d) Broker and room are killed; (i) the result backend is away; (j) the room is emptied."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.proxy import Proxy
from tests.suite.crew import Crew
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger
from tests.suite.servers import OwnRedis, OwnServer, make_broker
from tests.worker.stacks import ROOT, wait_for

# --- (d) ---------------------------------------------------------------------------------------------------------


class Kills(NamedTuple):
    kills: int
    """Of each service."""
    jobs: int
    """Called before each kill."""
    down_s: float


KILLS: dict[Form, Kills] = {"full": Kills(10, 20, 2.0), "short": Kills(1, 6, 0.5)}


def _killed(kills: Kills, transport: str, folder: Path) -> Ledger:
    with ExitStack() as opened:
        broker = opened.enter_context(make_broker(transport, folder))
        room = opened.enter_context(OwnRedis(folder / "room"))
        ground = opened.enter_context(
            make_ground(
                transport, folder / "ground", celery={"broker_url": broker.url}, framelane={"room_url": room.url}
            )
        )
        crew = opened.enter_context(Crew(ground.stack, 1, "-c", "4"))
        for _ in range(kills.kills):
            for service in (broker, room):
                _kill(ground, service, kills)
        ground.until_over()
        ground.ledger.figures["workers_ended"] = crew.ended_by_themselves
        return ground.count()


def _kill(ground: Ground, service: OwnServer, kills: Kills) -> None:
    before = len(ground.server.ledger.posts())
    ground.calls(kills.jobs // 2, lasts(1), is_chain=True)
    wait_for(lambda: len(ground.server.ledger.posts()) > before, 100, "jobs are submitted")
    ground.plan(ground.in_flight() > 0)
    service.kill()
    time.sleep(kills.down_s)  # the fault's own length
    service.start()


# --- (i) ---------------------------------------------------------------------------------------------------------

BACKEND_AWAY: dict[Form, tuple[int, float]] = {"full": (200, 60.0), "short": (10, 3.0)}
"""Jobs that end meanwhile; how long it is away."""


def _backend_away(jobs: int, away_s: float, transport: str, folder: Path) -> Ledger:
    with ExitStack() as opened:
        ground = opened.enter_context(make_ground(transport, folder))
        proxy = opened.enter_context(Proxy("127.0.0.1", 6379))
        direct = ground.stack.celery["result_backend"]  # this process goes straight to it
        ground.stack.celery["result_backend"] = f"redis://127.0.0.1:{proxy.port}/{direct.rsplit('/', 1)[1]}"
        crew = opened.enter_context(Crew(ground.stack, 1, "-c", "4"))
        ground.calls(jobs, "held")
        ground.waiting_for_jobs(jobs)
        job_ids = [record.job_id for record in ground.stack.room.scan("look")]
        proxy.cut()
        away_until = time.monotonic() + away_s
        for job_id in job_ids:
            ground.server.finish(job_id)
        while time.monotonic() < away_until:  # the fault's own length
            time.sleep(0.1)
        ground.ledger.faults_planned = jobs
        ground.ledger.faults_hit = sum(not result.ready() for result in ground.results.values())
        proxy.restore()
        restored = time.monotonic()
        ground.until_over()
        ground.ledger.figures["over_after_s"] = round(time.monotonic() - restored, 1)
        ground.ledger.figures["workers_ended"] = crew.ended_by_themselves
        return ground.count()


# --- (j) ---------------------------------------------------------------------------------------------------------

EMPTIED: dict[Form, int] = {"full": 200, "short": 10}


def _emptied(jobs: int, transport: str, folder: Path) -> Ledger:
    """`celery framelane orphans adopt --all` brings all back: the arguments are lost, but `completed` needs none."""
    with ExitStack() as opened:
        room = opened.enter_context(OwnRedis(folder / "room"))
        ground = opened.enter_context(make_ground(transport, folder / "ground", framelane={"room_url": room.url}))
        opened.enter_context(Crew(ground.stack, 1, "-c", "4"))
        ground.calls(jobs, "held")
        ground.waiting_for_jobs(jobs)
        job_ids = [record.job_id for record in ground.stack.room.scan("look")]
        ground.ledger.faults_planned = jobs
        ground.ledger.faults_hit = ground.in_flight()
        room.empty()
        started = time.monotonic()
        # Half of them end before they are adopted, half while they wait again. None is an orphan before its lease.
        for job_id in job_ids[::2]:
            ground.server.finish(job_id)
        wait_for(lambda: _adopt(ground) >= jobs, 180, "all adopted", every_s=1)
        ground.ledger.figures["adopted_after_s"] = round(time.monotonic() - started, 1)
        for job_id in job_ids[1::2]:
            ground.server.finish(job_id)
        ground.until_over()
        return ground.count()


def _adopt(ground: Ground) -> int:
    """Adopt what can be; how many have come back by now, by this or by the watcher itself."""
    command = [sys.executable, "-m", "celery", "-A", "tests.worker.project", "framelane", "orphans", "adopt", "--all"]
    env: dict[str, Any] = {**ground.stack.environment(), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=120, check=False)
    return sum(ground.stack.record(task_id) is not None for task_id in ground.results)


def _one(label: str, play: Any, by_form: Mapping[Form, Any]) -> Any:
    """A fault of one round."""

    def rounds(form: Form) -> Mapping[str, Round]:
        wanted = by_form[form]
        return {label: partial(play, *(wanted if type(wanted) is tuple else (wanted,)))}

    return rounds


SERVICES = Fault("broker and room SIGKILLed, 10 times each", _one("killed", _killed, KILLS))
BACKEND = Fault("result backend away for 60 s while 200 jobs end", _one("away", _backend_away, BACKEND_AWAY))
EMPTY_ROOM = Fault("room emptied with 200 in flight", _one("emptied", _emptied, EMPTIED))
