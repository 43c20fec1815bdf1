"""Carries out the plan of the looks: feeds it from the room, makes its calls, and hands on what they saw.

The clock's thread feeds, the pool's threads call, the scribe's thread acts: the plan is theirs together, under a lock
that is never held while anything is waited for.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from framelane_celery.accounts import DEFAULT
from framelane_celery.client import FramelaneClient
from framelane_celery.counting import count, timed
from framelane_celery.errors import ApiError, FramelaneError, InternalError, NotFound, RateLimited, RoomError
from framelane_celery.models import Job
from framelane_celery.monitoring import about
from framelane_celery.orphans import GONE_AFTER_S
from framelane_celery.records import JobKind, Record, look_lane
from framelane_celery.room import Ends, Place
from framelane_celery.watching import looks
from framelane_celery.watching.plan import Look, Plan, Turn, Watched

if TYPE_CHECKING:
    from framelane_celery.watching.desk import Desk
    from framelane_celery.watching.pool import LookPool
    from framelane_celery.watching.scribe import Scribe
    from framelane_celery.watching.watcher import Watcher

logger = logging.getLogger(__name__)

PAGE: Final = 200
FEED_S: Final = 0.25
FEED_HINTED_S: Final = 0.04
"""How often the room is asked for what is due: while hints come, so often that they are acted on at once."""

HINTED_LATELY_S: Final = 600.0
TELL_ENDS_S: Final = 5.0
_CLOCKS_APART_S: Final = 5.0

Verdict = Literal["moved", "left", "give_up"]
"""The record was moved on; or it does not wait for this job any more; or its job is to be cancelled, and seen again."""


class Seen(NamedTuple):
    """What a look saw. ``job`` is None if it could not be read; ``error`` says why."""

    task_id: str
    job_id: str
    job: Job | None
    error: Exception | None = None
    is_given_up: bool = False
    """It was cancelled by us, past its deadline, before it was looked at."""


class Looker:
    """One watcher's looks at the jobs of one account."""

    def __init__(self, watcher: Watcher, scribe: Scribe, pool: LookPool, desk: Desk, account: str = DEFAULT) -> None:
        self._watcher, self._scribe, self._pool, self._desk = watcher, scribe, pool, desk
        self._settings, self._lane = watcher.settings.of(account), look_lane(account)
        self._whose = "" if account == DEFAULT else f" of account {account}"
        self._at_once_s = 1.0 / len(watcher.settings.account_names)
        self._lock = threading.Lock()
        self._fed_at = self._told_at = 0.0
        self._ends: dict[str, Ends] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """This watcher has taken the lead: all that wait for a job are taken over, page by page."""
        settings = self._settings
        with self._lock:
            self._plan = Plan(
                settings.reads_per_minute, settings.long_polls, report_after_s=self._scribe.result_life_s() / 3
            )
            self._plan.is_complete = False
        self._adopting: Iterator[Record] | None = self._watcher.room.scan(self._lane, lean=True)

    def __len__(self) -> int:
        """How many jobs are looked at."""
        return len(self._plan)

    def pace(self, reads_per_minute: int) -> None:
        """How many reads a minute it may make from now on."""
        with self._lock:
            self._plan.pace(reads_per_minute)

    def keep(self) -> None:
        """Take what is due in the room, and have looked at what the plan says. Runs in the clock's thread."""
        now = time.monotonic()
        is_hinted = self._watcher.now() - self._plan.last_hint_at < HINTED_LATELY_S
        if now - self._fed_at >= (FEED_HINTED_S if is_hinted else FEED_S):
            self._fed_at = now
            # Adopting comes first, since no sweep starts before: a page of the feed is enough meanwhile.
            self._feed(now + self._at_once_s * (1.0 if self._adopting is None else 0.1))
            self._adopt(time.monotonic() + self._at_once_s)
        self.send()
        if now - self._told_at > TELL_ENDS_S:
            self._told_at = now
            self._tell_ends()

    def spare_read(self) -> bool:
        """Whether the budget has a read to spare, which is spent then."""
        with self._lock:
            return self._plan.spare_read(self._watcher.now())

    def pause_s(self) -> float:
        """How long the clock may sleep."""
        return FEED_HINTED_S if len(self._plan) else FEED_S

    def _feed(self, stop_at: float) -> None:
        """Runs for a second at most, all accounts together: leases and the lead have to be renewed meanwhile."""
        room, token = self._watcher.room, self._watcher.token
        while token is not None:
            page, now = room.due(self._lane, PAGE, lean=True)
            self._watcher.set_clock(now)
            with self._lock:
                places = [Place(record.id, record.version, self._plan.feed(record, now)) for record in page]
            room.put_off(self._lane, places, token)
            if len(page) < PAGE or time.monotonic() > stop_at:
                return
            self.send()

    def _adopt(self, stop_at: float) -> None:
        try:
            while self._adopting is not None and time.monotonic() < stop_at:
                page = list(islice(self._adopting, PAGE))
                with self._lock:
                    for record in page:
                        self._plan.adopt(record, self._watcher.now())
                    self._plan.is_complete = not page
                if not page:
                    self._adopting = None
        except RoomError:
            self._adopting = self._watcher.room.scan(self._lane, lean=True)
            raise

    def send(self) -> None:
        """Have made what calls the plan wants now."""
        with self._lock:
            plan, orders = self._plan, self._plan.next(self._watcher.now())
            notes, plan.notes = plan.notes, []
        for note in notes:
            logger.warning("%s%s", note, self._whose)
        for order in orders:
            make = self._turn if isinstance(order, Turn) else self._look
            self._pool.call(partial(make, plan, order))  # type: ignore[arg-type]

    # --- calls; they run in the pool's threads -------------------------------------------------------------------

    def _look(self, plan: Plan, look: Look, client: FramelaneClient) -> None:
        started, watched = time.monotonic(), look.job
        job, error = None, None
        try:
            job = client.get_job(watched.kind, watched.job_id, wait_s=look.wait_s)
        except Exception as caught:  # noqa: BLE001 - isolation of one job: reported with it
            error = caught
        took_s, now = time.monotonic() - started, self._watcher.now()
        is_gone = isinstance(error, NotFound) and now - watched.accepted_at > GONE_AFTER_S
        with self._lock:
            told = plan.landed(look, now, job, took_s=took_s, is_gone=is_gone, is_refused=_is_refused(error))
        if plan is self._plan and told == "end":
            seen = Seen(watched.task_id, watched.job_id, job, error)
            self._desk.put(partial(self._end, plan, watched, seen))
        elif plan is self._plan and told == "report":
            self._desk.put(partial(self._report, plan, watched, job))
        if error is not None and told != "end":
            _tell_trouble(watched, error)
        count("looks", "long_poll" if look.wait_s else "read", namespace=self._watcher.room.namespace)
        self.send()

    def _turn(self, plan: Plan, turn: Turn, client: FramelaneClient) -> None:
        jobs, cursor, is_lost = None, None, False
        try:
            page = client.list_jobs(turn.kind, status=turn.status, cursor=turn.cursor, limit=looks.PAGE_SIZE)
            jobs, cursor = page.data, None if page.is_last else page.next_cursor
        except FramelaneError as error:
            is_lost = _is_refused(error)
            logger.log(
                logging.WARNING if is_lost else logging.INFO,
                "the list of jobs%s could not be read: %s",
                self._whose,
                error,
            )
        count("looks", "list", namespace=self._watcher.room.namespace)
        with self._lock:
            news = plan.turned(turn, self._watcher.now(), jobs, cursor, is_lost=is_lost)
        if plan is self._plan:
            for watched, job in news:
                self._desk.put(partial(self._report, plan, watched, job))
        self.send()

    def _give_up(self, plan: Plan, watched: Watched, client: FramelaneClient) -> None:
        """Its deadline has passed: cancel the job, and see what became of it. Nobody else looks meanwhile."""
        cancel(client, watched.kind, watched.job_id)
        job, error = None, None
        try:
            job = client.get_job(watched.kind, watched.job_id)
        except Exception as caught:  # noqa: BLE001 - as in _look
            error = caught
        seen = Seen(watched.task_id, watched.job_id, job, error, is_given_up=True)
        self._desk.put(partial(self._end, plan, watched, seen))

    # --- what was seen; runs in the scribe's thread --------------------------------------------------------------

    def _end(self, plan: Plan, watched: Watched, seen: Seen) -> None:
        verdict: Verdict | None = None
        try:
            verdict = self._scribe.act_on(seen)
        finally:  # what went wrong is told by the desk, and looked at again
            if verdict == "give_up":
                self._pool.call(partial(self._give_up, plan, watched))
            else:
                self._settle(plan, watched, seen.job, verdict)

    def _settle(self, plan: Plan, watched: Watched, job: Job | None, verdict: Verdict | None) -> None:
        now = self._watcher.now()
        has_ended = job is not None and job.is_terminal and verdict == "moved"
        with self._lock:
            ended_after_s = now - watched.accepted_at if has_ended else None
            plan.settled(watched, now, is_over=verdict is not None, ended_after_s=ended_after_s)
            if has_ended and job is not None:
                delay_s = now - job.completed_at.timestamp() if job.completed_at else -math.inf
                is_sane = -_CLOCKS_APART_S < delay_s < 86400
                one = Ends(1, 1, max(0.0, delay_s)) if is_sane else Ends(1)
                _count_end(self._watcher.room.namespace, watched.source, delay_s if is_sane else None)
                self._ends[watched.source] = self._ends.get(watched.source, Ends()).plus(one)
        self.send()

    def _tell_ends(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, {}
        self._watcher.room.add_ends(ends)

    def _report(self, plan: Plan, watched: Watched, job: Job | None) -> None:
        """Show progress. If nobody waits for the job any more, it is looked at no more."""
        with self._lock:
            next_look_at = plan.next_look_at(watched, self._watcher.now())
        if not self._scribe.report(watched.task_id, watched.job_id, job, next_look_at):
            with self._lock:
                plan.forget(watched.task_id)


def _count_end(namespace: str, source: str, delay_s: float | None) -> None:
    count("job_ends", source, namespace=namespace)
    if delay_s is not None:
        timed("job_end_seen_seconds", source, seconds=delay_s, namespace=namespace)


def cancel(client: FramelaneClient, kind: JobKind, job_id: str) -> None:
    """Have a job cancelled, as far as that is possible: a look says what became of it."""
    try:
        client.cancel_job(kind, job_id)
    except FramelaneError as error:
        level = logging.INFO if isinstance(error, ApiError) else logging.WARNING
        logger.log(level, "job %s could not be cancelled: %s", job_id, error)


def _is_refused(error: Exception | None) -> bool:
    """Whether the API has answered that it will not say: asking again soon would not help."""
    return isinstance(error, ApiError) and not isinstance(error, (RateLimited, InternalError))


def _tell_trouble(job: Watched, error: Exception) -> None:
    level = logging.WARNING if job.failures in (1, 10) else logging.INFO
    extra = about(None, job.task_id, job.job_id)
    logger.log(level, "job %s could not be read (%d times): %s", job.job_id, job.failures, error, extra=extra)
