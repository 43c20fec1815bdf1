"""(a) Worker groups are killed; (b) processes are killed at each hand-over."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from tests.faults import attack
from tests.suite.crew import Crew
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger, together
from tests.worker.stacks import wait_for

# --- (a) ---------------------------------------------------------------------------------------------------------


class Storm(NamedTuple):
    rounds: int
    kills: int
    chains: int
    """Called before each kill."""


STORMS: dict[Form, Storm] = {"full": Storm(5, 10, 10), "short": Storm(1, 2, 5)}


def _storm(storm: Storm, transport: str, folder: Path) -> Ledger:
    with make_ground(transport, folder) as ground, Crew(ground.stack) as crew:
        runs_killed = 0
        for number in range(storm.kills):
            victim = crew.workers[number % len(crew.workers)]
            wait_for(lambda victim=victim: victim.is_up, 150, "the victim is up again")
            ground.calls(storm.chains, lasts(0.5 + number % 3), is_chain=True)
            wait_for(lambda victim=victim: ground.running_on([victim.node]), 100, "it runs something of ours")
            ground.plan(ground.in_flight() > 0)
            victim.kill()
            runs_killed += ground.running_on([victim.node]) > 0
        wait_for(lambda: len(crew.up()) == len(crew.workers), 150, "all up again")
        ground.until_over()
        ground.ledger.figures["kills_in_a_run"] = runs_killed
        return ground.count(crew.killed)


def _storms(form: Form) -> Mapping[str, Round]:
    return {f"storm {number + 1}": partial(_storm, STORMS[form]) for number in range(STORMS[form].rounds)}


# --- (b) ---------------------------------------------------------------------------------------------------------

RUN_POINTS = (
    "begin:after", "body", "bytes:before", "bytes:after", "post:before", "post:after", "progress:after",
    "accept:after", "completed", "hold:after", "tail:before-result", "result:stored", "after_return", "finish:after",
)  # fmt: skip
TAIL_POINTS = ("create:after", "publish:before", "publish:after")
"""Where the second run publishes the task of ours after it."""

WATCHER_POINTS = ("seen", "decide:before", "decide:after", "lead:after")
MESSAGE_POINTS = ("publish:before", "publish:after", "wake:before", "wake:after")
"""The whole worker dies there: the watcher lives in its main process."""

KILLS: dict[Form, tuple[int, int]] = {"full": (20, 20), "short": (1, 1)}
"""At each point of a run, and of a watcher."""

AT_ONCE = 5
"""So many are under way at each point of a run: who dies five times in a row is a dead letter."""


def _runs_killed(kills: int, points: tuple[str, ...], transport: str, folder: Path) -> Ledger:
    with make_ground(transport, folder, job_seconds=0.3) as ground, Crew(ground.stack, 1, "-c", "4", *attack.ARMED):
        for begun in range(0, kills, AT_ONCE):
            for point in points:
                for _ in range(min(AT_ONCE, kills - begun)):
                    _call_ordered(ground, point, "kill process")
            ground.until_over()
        notes = ground.stack.journal("struck")
        struck = {note["id"] for note in notes}
        ground.ledger.faults_planned = kills * len(points)
        ground.ledger.faults_hit = len(struck & set(ground.results))
        return ground.count({note["pid"] for note in notes})


def _call_ordered(ground: Ground, point: str, what: str) -> str:
    """Call a chain of two whose first task (or, at the points of the tail, whose second) is to die there."""
    heads = {point: str(uuid4()), "tail": str(uuid4())}
    attack.order(ground.stack, point, what, heads["tail" if point in TAIL_POINTS else point])
    ground.call_as(heads[point], heads["tail"])
    return heads[point]


def _watchers_killed(kills: int, points: tuple[str, ...], transport: str, folder: Path) -> Ledger:
    """Each point on a stack of its own, all at the same time: they mostly wait for the dead one's lead to end."""
    with ThreadPoolExecutor(len(points)) as pool:
        plays = {point: pool.submit(_watcher_killed, kills, point, transport, folder / str(n))
                 for n, point in enumerate(points)}  # fmt: skip
        whole = together({point: played.result() for point, played in plays.items()})
    whole.seconds /= len(points)
    return whole


def _watcher_killed(kills: int, point: str, transport: str, folder: Path) -> Ledger:
    with (
        make_ground(transport, folder, job_seconds=0.3) as ground,
        Crew(ground.stack, 1, "-c", "1", *attack.ARMED) as crew,
    ):
        (kept,) = crew.workers
        for number in range(kills):
            wait_for(lambda: kept.is_up, 150, "it is up")
            process, pids, ids = kept.worker.process, kept.pids(), (str(uuid4()), str(uuid4()))
            if point == "lead:after":  # reached at once, whatever waits
                ground.call_as(*ids, text=lasts(3))
                wait_for(lambda: ground.stack.room.waiting("look"), 100, "a job is waited for")
                attack.order(ground.stack, point, "kill worker")
            else:
                attack.order(ground.stack, point, "kill worker", ids[0])
                ground.call_as(*ids, **({"countdown": 1} if point.startswith("wake") else {}))
            wait_for(lambda number=number: len(ground.stack.journal("struck")) > number, 100, f"{point} reached")
            ground.plan(ground.in_flight() > 0)
            kept.killed |= pids
            # It says so before it dies: taken for the next one, it would be noted twice, and that one never.
            wait_for(lambda process=process: process.poll() is not None, 30, "it is dead")
        ground.until_over()
        return ground.count(crew.killed)


def _hand_overs(form: Form) -> Mapping[str, Round]:
    of_runs, of_watchers = KILLS[form]
    return {
        "runs": partial(_runs_killed, of_runs, RUN_POINTS),
        "tails": partial(_runs_killed, of_runs, TAIL_POINTS),
        "watchers": partial(_watchers_killed, of_watchers, WATCHER_POINTS),
        "messages": partial(_watchers_killed, of_watchers, MESSAGE_POINTS),
    }


WORKERS = Fault("worker groups SIGKILLed, 50 times over 1,000 jobs", _storms)
HAND_OVERS = Fault("every hand-over SIGKILLed, 20 times each", _hand_overs)
