"""(e) Connections of the workers to the broker, the room and the API are cut, or pass nothing on any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.faults.proxy import Proxy
from tests.suite.crew import Crew
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger, together
from tests.worker.stacks import wait_for

SERVICES = ("broker", "room", "API")
PORTS = {"redis": 6379, "amqp": 5672, "postgresql": 5432, "postgresql+psycopg": 5432}
BACK_S = 150.0
"""After a connection is back: until a new job has come and gone."""


class Cuts(NamedTuple):
    cuts: int
    lengths_s: tuple[float, ...]
    jobs: int
    """Called before each cut; as many while it lasts."""


CUTS: dict[Form, Cuts] = {"full": Cuts(10, (10.0, 30.0), 6), "short": Cuts(1, (2.0,), 4)}


def _through(url: str, opened: ExitStack) -> tuple[str, Proxy]:
    """A URL that leads to the same service through a proxy."""
    parts = urlsplit(url)
    proxy = opened.enter_context(Proxy(parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme]))
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{proxy.port}").geturl(), proxy


def _each_service(cuts: Cuts, length_s: float, how: str, transport: str, folder: Path) -> Ledger:
    """Each service has a stack of its own; they share the time, most of which is waiting."""
    with ThreadPoolExecutor(len(SERVICES)) as pool:
        play = partial(_one_service, cuts, length_s, how, transport)
        plays = {service: pool.submit(play, service, folder / service) for service in SERVICES}
        whole = together({service: played.result() for service, played in plays.items()})
    whole.seconds /= len(SERVICES)
    return whole


def _one_service(cuts: Cuts, length_s: float, how: str, transport: str, service: str, folder: Path) -> Ledger:
    with ExitStack() as opened:
        options = {"broker_heartbeat": 4} if transport == "rabbitmq" else {}
        ground = opened.enter_context(make_ground(transport, folder, celery=options))
        part, name = {
            "broker": ("celery", "broker_url"),
            "room": ("framelane", "room_url"),
            "API": ("framelane", "base_url"),
        }[service]
        direct: dict[str, Any] = getattr(ground.stack, part)
        through, proxy = _through(direct[name], opened)
        setattr(ground.stack, part, {**direct, name: through})  # for the workers; this process goes straight to it
        crew = opened.enter_context(Crew(ground.stack, 1, "-c", "1"))
        back_s: list[float] = []
        for _ in range(cuts.cuts):
            ground.calls(cuts.jobs // 2, lasts(3), is_chain=True)
            ground.waiting_for_jobs(1)
            ground.plan(ground.in_flight() > 0)
            ends_at = time.monotonic() + length_s
            {"cut": proxy.cut, "black hole": proxy.swallow}[how]()
            ground.calls(cuts.jobs // 2)
            while time.monotonic() < ends_at:  # the fault's own length
                time.sleep(0.05)
            proxy.restore()
            back_s.append(_until_back(ground))
        ground.until_over()
        ground.ledger.figures["back_after_s_worst"] = round(max(back_s), 1)
        ground.ledger.figures["workers_ended"] = crew.ended_by_themselves
        return ground.count()


def _until_back(ground: Ground) -> float:
    started = time.monotonic()
    task_id = ground.call(lasts(0.1)) or ""
    wait_for(_is_ready(ground, task_id), BACK_S, "a job after the cut", every_s=0.1)
    return time.monotonic() - started


def _is_ready(ground: Ground, task_id: str) -> Callable[[], bool]:
    return lambda: bool(ground.results[task_id].ready())


def _rounds(how: str, form: Form) -> Mapping[str, Round]:
    cuts = CUTS[form]
    return {f"{length_s:.0f} s": partial(_each_service, cuts, length_s, how) for length_s in cuts.lengths_s}


CUT = Fault("connections to broker, room and API cut for 10 s and 30 s, 10 times each", partial(_rounds, "cut"))
HOLE = Fault(
    "connections to broker, room and API black-holed for 10 s and 30 s, 10 times each", partial(_rounds, "black hole")
)
