"""The planner of the looks against a list API, both without a socket and on a clock of their own.

`Api` answers as the local server does: newest first, 100 a page, with a cursor and the filter by status. `Simulation`
does what the watcher does around the plan: feeds it, sends what it orders, and hands it the answers, `LATENCY_S` later.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from framelane_celery.records import Record

LATENCY_S: Final = (0.02, 0.08)
TICK_S: Final = 0.25
PAGE: Final = 100
COUNTDOWN_S: Final = 2.0


class Life(NamedTuple):
    """A job that completes. The lean half of `framelane_celery.testing.jobs.Life`: a fifth of it is `queued`."""

    accepted_at: float
    duration_s: float

    @property
    def ends_at(self) -> float:
        return self.accepted_at + self.duration_s

    def share(self, now: float) -> float:
        return (now - self.accepted_at) / self.duration_s

    def status(self, now: float) -> str:
        share = self.share(now)
        return "completed" if share >= 1 else "processing" if share >= 0.2 else "queued"


class Shown(NamedTuple):
    """What the plan reads of a `framelane_celery.models.Job`, of which a simulation would make millions."""

    id: str
    status: str
    progress_percent: int
    progress_stage: str | None = None

    @property
    def is_terminal(self) -> bool:
        return self.status == "completed"


class Api:
    """Jobs that end when their time has come; those that have ended are in no list that asks for what goes on."""

    def __init__(self) -> None:
        self.lives: dict[int, Life] = {}
        self._numbers: list[int] = []
        self._made = 0

    def submit(self, at: float, duration_s: float) -> int:
        self._made += 1
        self.lives[self._made] = Life(at, duration_s)
        self._numbers.append(self._made)
        return self._made

    def forget(self, number: int) -> Life:
        """Nobody asks for the job any more."""
        del self._numbers[bisect_left(self._numbers, number)]
        return self.lives.pop(number)

    def job(self, number: int, now: float) -> Shown:
        """What a job shows; its percent is that of the whole of its life."""
        life = self.lives[number]
        return Shown(f"render_{number}", life.status(now), int(100 * min(1.0, life.share(now))))

    def page(self, status: str, cursor: str | None, now: float) -> tuple[list[Shown], str | None]:
        """One page of the jobs in a status that goes on, and the cursor of the next one."""
        below = len(self._numbers) if cursor is None else bisect_left(self._numbers, int(cursor))
        found: list[int] = []
        for place in range(below - 1, -1, -1):
            number = self._numbers[place]
            if self.lives[number].status(now) == status:
                found.append(number)
            if len(found) > PAGE:
                break
        shown = found[:PAGE]
        return [self.job(number, now) for number in shown], str(shown[-1]) if len(found) > PAGE else None


@dataclass
class Told:
    """What a simulation comes to, in the time that is measured."""

    in_flight: int
    reads: int = 0
    pages: int = 0
    ends: int = 0
    recipe_reads: int = 0
    delays_s: list[float] = field(default_factory=list)
    """From each job's end to the read that saw it."""

    @property
    def beyond(self) -> float:
        """Reads per job, pages too, beyond the one that reads the end."""
        return (self.reads + self.pages - self.ends) / self.ends

    @property
    def recipe_beyond(self) -> float:
        return (self.recipe_reads - self.ends) / self.ends


def polls(duration_s: float, every_s: float) -> int:
    """How often a job is read by who asks at fixed intervals, the read that sees the end among them."""
    return int(-(-duration_s // every_s))


class Simulation:
    """So many jobs in flight, always: where one has been seen to end, another one is submitted.

    ``plan`` is a `framelane_celery.watching.plan.Plan`.
    """

    def __init__(
        self,
        plan: Any,
        in_flight: int,
        duration: Callable[[], float],
        *,
        chance: random.Random,
        countdown_s: float = 2.0,
    ) -> None:
        self._plan, self._duration, self._chance, self._countdown_s = plan, duration, chance, countdown_s
        self.api, self.told, self.now = Api(), Told(in_flight), 0.0
        self._answers: list[tuple[float, int, Any]] = []
        self._feeds: list[tuple[float, int]] = []
        self._sent = 0
        self._is_measuring = False
        # As in a steady state, each has been there for a share of its life; the newest has the highest number.
        lives = [(duration_s * chance.random(), duration_s) for duration_s in (duration() for _ in range(in_flight))]
        for age_s, duration_s in sorted(lives, reverse=True):
            self._submit(-age_s, duration_s)

    def _submit(self, at: float, duration_s: float) -> None:
        heapq.heappush(self._feeds, (self.now, self.api.submit(at, duration_s)))

    def run(self, warm_s: float, measured_s: float) -> Told:
        """Let time pass; what happens in the first part is not counted."""
        while self.now < warm_s + measured_s:
            self._is_measuring = self.now >= warm_s
            self._feed()
            for order in self._plan.next(self.now):
                self._send(order)
            self._go_on()
        return self.told

    def _feed(self) -> None:
        while self._feeds and self._feeds[0][0] <= self.now:
            _, number = heapq.heappop(self._feeds)
            if number in self.api.lives:
                again_at = self._plan.feed(_record(number, self.api.lives[number]), self.now)
                heapq.heappush(self._feeds, (max(again_at, self.now + 1), number))

    def _send(self, order: Any) -> None:
        """It is answered later; what it says is of the moment when half of its way is over."""
        latency_s, held_s = self._chance.uniform(*LATENCY_S), 0.0
        if wait_s := getattr(order, "wait_s", 0):
            held_s = min(wait_s, max(0.0, self.api.lives[_number(order)].ends_at - self.now))
        answer = (order, self.now + held_s + latency_s / 2, held_s + latency_s)
        heapq.heappush(self._answers, (self.now + held_s + latency_s, self._sent, answer))
        self._sent += 1

    def _go_on(self) -> None:
        """To the next answer or the next tick, whichever is sooner."""
        tick_at = self.now + TICK_S
        if not self._answers or self._answers[0][0] > tick_at:
            self.now = tick_at
            return
        self.now, _, (order, seen_at, took_s) = heapq.heappop(self._answers)
        if hasattr(order, "status"):
            self.told.pages += self._is_measuring
            self._plan.turned(order, self.now, *self.api.page(order.status, order.cursor, seen_at))
        else:
            self.told.reads += self._is_measuring
            self._landed(order, seen_at, took_s)

    def _landed(self, look: Any, seen_at: float, took_s: float) -> None:
        number = _number(look)
        if self._plan.landed(look, self.now, self.api.job(number, seen_at), took_s=took_s) != "end":
            return
        life = self.api.forget(number)
        self._plan.settled(look.job, self.now, is_over=True, ended_after_s=life.duration_s)
        if self._is_measuring:
            self.told.ends += 1
            self.told.recipe_reads += polls(life.duration_s, COUNTDOWN_S)
            self.told.delays_s.append(self.now - life.ends_at)
        self._submit(self.now, self._duration())


def _number(look: Any) -> int:
    return int(look.job.job_id.removeprefix("render_"))


def _record(number: int, life: Life) -> Record:
    return Record(
        id=f"task-{number}",
        task="framelane.render",
        call="{}",
        digest="",
        until="job",
        job_id=f"render_{number}",
        job_kind="render",
        accepted_at=life.accepted_at,
        deadline_at=life.accepted_at + 6 * 3600,
    )
