"""The plan of the looks: which jobs are read next, and how. Pure: it makes no call and knows no clock of its own.

It is a lean table of the jobs that are waited for, in the memory of the watcher that leads; the room has the truth.
`feed` takes what is due in the room (a new job, a hint, a deadline), `next` says what to ask the API now, `landed`
and `turned` take the answers. There are three ways, by how many jobs are in flight:

long_poll  a few: one long-poll each
sweep      many: the list of jobs that go on, page by page; only what is missing from it is read singly
read       the list is no help (missing, its filter ignored, others' jobs, lies): single reads in turn

Whatever a list says, every job is read singly at least every `looks.LOOK_LATEST_S`, and only a single read ends a wait.
All reads, pages too, are made from one budget, what is due first goes first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from framelane_celery.models import Job
from framelane_celery.records import HINT_AHEAD_S, JobKind, Record
from framelane_celery.watching import looks

Source = Literal["first", "hint", "long_poll", "sweep", "read", "deadline", "repair"]
"""Why a job is looked at; what told of its end, if it has ended."""

FORWARD: Final = ("ingesting", "queued", "processing")
"""The states of a job that goes on, in their order: a job that moves on while they are listed one after the other is
seen at least once (framelane_api.md §3)."""

SAFETY_S: Final = 900.0
"""How far the room's due time is put off while the table knows the job."""

NEVER: Final = math.inf
_STRAYS: Final = 20
"""How many jobs a list may fail to show, until it counts as no help; of many, a tenth."""

_WEIGHT: Final = 0.1
_USUAL_S: Final = 60.0
"""How long jobs last, as long as none has ended and none is older."""

_LOST_AFTER: Final = 3
"""Failures of one page in a row, until the list counts as no help."""

_LIST_PAUSE_S: Final = 15.0


@dataclass(slots=True)
class Watched:
    """One job that is waited for. Instants are epoch seconds of the room's clock."""

    task_id: str
    job_id: str
    kind: JobKind
    accepted_at: float
    deadline_at: float | None
    joined_at: float
    due: float
    """When it is looked at singly; NEVER: the sweeps tell."""
    alive_at: float
    """When it was last seen to go on."""
    read_at: float
    """When it was last read singly."""
    reported_at: float
    shown: tuple[object, ...]
    status: str
    percent: int = 0
    source: Source = "first"
    hinted_at: float | None = None
    is_out: bool = False
    """A look is on its way, or what it saw is being acted on."""
    is_hinted_again: bool = False
    """News came while a look was on its way."""
    is_unlisted: bool = False
    """It goes on, but the list does not show it."""
    failures: int = 0

    @property
    def is_read_singly(self) -> bool:
        """Whatever the way: the API lists no imports, and holds no read of one (framelane_api.md §14)."""
        return self.kind == "import"


class Look(NamedTuple):
    """Read one job. ``wait_s``: how long the server may hold it; 0: answer at once."""

    job: Watched
    wait_s: int


class Turn(NamedTuple):
    """Read one page of the list of one kind's jobs in one state."""

    kind: JobKind
    status: str
    cursor: str | None
    asked_at: float


Told = Literal["end", "report", "nothing"]
"""What is to be done about an answer: act on the job's end (or its deadline), show its progress, or nothing."""


@dataclass(slots=True)
class _Sweep:
    started_at: float
    lists: list[tuple[JobKind, str]]
    due: float
    cursor: str | None = None
    cursors: set[str] = field(default_factory=set)
    pages: int = 0
    failures: int = 0
    is_out: bool = False


class Plan:
    """One watcher's plan. Not safe for threads: its owner locks."""

    def __init__(self, reads_per_minute: int, long_polls: int, *, report_after_s: float = NEVER) -> None:
        self._per_minute, self._long_polls, self._report_after_s = reads_per_minute, long_polls, report_after_s
        self._table: dict[str, Watched] = {}  # by job id
        self._job_of: dict[str, str] = {}  # by task id
        self._heap: list[tuple[float, int, Watched]] = []
        self._pushed = 0
        self._budget = looks.ReadBudget(reads_per_minute)
        self._out = {"polls": 0, "reads": 0}
        self._sweep: _Sweep | None = None
        self._next_sweep_at = self._oldest_s = 0.0
        self._last_pages = 1
        self._no_wait_until = self._no_list_until = -NEVER
        self._strays: set[str] = set()
        self._usual_s: float | None = None
        self.way: looks.Way = "long_poll"
        self.trust = 0.0
        """The share of the last ends that hints have told."""
        self.last_hint_at = -NEVER
        self.is_complete = True
        """False while jobs are still taken over: their owner sets it. No sweep before: a list of jobs that are not in
        the table yet would look like others'."""
        self.notes: list[str] = []
        """What an operator should know of: its owner takes it away."""

    def __len__(self) -> int:
        return len(self._table)

    def pace(self, reads_per_minute: int) -> None:
        """How many reads a minute it may order from now on."""
        if reads_per_minute != self._per_minute:
            self._per_minute = reads_per_minute
            self._budget = replace(self._budget, per_minute=reads_per_minute)

    # --- what the room says --------------------------------------------------------------------------------------

    def feed(self, record: Record, now: float) -> float:
        """Take a record that waits for its job, and is due in the room; says when it shall be due there next."""
        job = self._table.get(record.job_id or "")
        if job is None:
            job = self._join(record, now)
            self._push(job, now)
        if record.hinted_at is not None and record.hinted_at > (job.hinted_at or -NEVER):
            job.hinted_at = self.last_hint_at = record.hinted_at
            self._ask(job, "hint", record.hinted_at - HINT_AHEAD_S)
        elif job.deadline_at is not None and job.deadline_at <= now:
            self._ask(job, "deadline", now)
        elif job.joined_at < now and job.alive_at < now - SAFETY_S / 2:
            self._ask(job, "repair", now)
        if job.deadline_at is None or job.deadline_at <= now:
            return now + SAFETY_S if job.deadline_at is None else now + looks.SWEEP_MOST_S
        return min(job.deadline_at, now + SAFETY_S)

    def adopt(self, record: Record, now: float) -> None:
        """Take a record that another watcher has watched before, due or not."""
        if record.job_id not in self._table:
            self._push(self._join(record, now), now)

    def _join(self, record: Record, now: float) -> Watched:
        self.forget(record.id)  # another attempt's job
        shown = record.job or {}
        job = Watched(
            task_id=record.id,
            job_id=record.job_id or "",
            kind=record.job_kind or "render",
            accepted_at=record.accepted_at or now,
            deadline_at=record.deadline_at,
            joined_at=now,
            due=NEVER,
            alive_at=now,
            read_at=now,
            reported_at=record.reported_at or now,
            shown=_shown(shown.get("status"), shown.get("progress_percent"), shown.get("progress_stage")),
            status=str(shown.get("status") or "queued"),
        )
        self._table[job.job_id] = job
        self._job_of[job.task_id] = job.job_id
        return job

    def forget(self, task_id: str) -> None:
        """Nobody waits for the task's job any more."""
        job_id = self._job_of.pop(task_id, None)
        if job_id is not None:
            self._strays.discard(job_id)
            del self._table[job_id]

    def _ask(self, job: Watched, source: Source, due: float) -> None:
        job.source = source
        if job.is_out:
            job.is_hinted_again = True
        else:
            self._push(job, due)

    def _push(self, job: Watched, due: float) -> None:
        """Have it looked at singly at that time. Joined to sweeps, a job needs that for a reason only."""
        if self.way == "sweep" and job.source == "first" and not job.is_read_singly:
            due = NEVER
        job.due = due
        if due < NEVER:
            self._pushed += 1
            heapq.heappush(self._heap, (due, self._pushed, job))

    # --- what to ask now -----------------------------------------------------------------------------------------

    def next(self, now: float) -> list[Look | Turn]:
        """What the API is to be asked now, within the budget and with threads to ask it."""
        self._choose(now)
        self._budget = self._budget.at_time(now)
        orders: list[Look | Turn] = []
        while self._budget.left >= 1 and (order := self._first(now)) is not None:
            self._budget = self._budget.spend(1)
            orders.append(order)
        return orders

    def spare_read(self, now: float) -> bool:
        """Take a read out of the budget for something that can wait, if no job needs it now."""
        self._budget = self._budget.at_time(now)
        if self._budget.left < 2:
            return False
        self._budget = self._budget.spend(1)
        return True

    def _choose(self, now: float) -> None:
        chosen = looks.way(
            self.way,
            len(self._table),
            long_polls=self._long_polls,
            wait_works=now >= self._no_wait_until,
            list_works=now >= self._no_list_until,
        )
        if chosen == self.way:
            return
        self.way, self._sweep, self._next_sweep_at = chosen, None, now
        self._strays.clear()
        every_s = len(self._table) * 60.0 / self._per_minute
        # In turn, not all at once; who was not read for longest first, however often the way changes.
        for place, job in enumerate(sorted(self._table.values(), key=lambda job: job.read_at)):
            job.is_unlisted = False
            if not job.is_out and job.source in ("first", "long_poll", "read", "sweep"):
                job.source = "first"
                self._push(job, now if chosen == "long_poll" else now + every_s * place / len(self._table))

    def _first(self, now: float) -> Look | Turn | None:
        job = self._first_job()
        page_due = self._page_due(now)
        sweep, is_first = self._sweep, job is None or page_due <= job.due
        if sweep is not None and page_due <= now and is_first and self._out["reads"] < looks.READ_THREADS:
            return self._turn(sweep, now)
        if job is None or job.due > now:
            return None
        is_poll = self.way == "long_poll" and not job.is_read_singly
        lane, most = ("polls", self._long_polls) if is_poll else ("reads", looks.READ_THREADS)
        if self._out[lane] >= most:
            return None
        heapq.heappop(self._heap)
        self._out[lane] += 1
        job.is_out, job.due = True, NEVER
        if job.source == "first":
            job.source = "long_poll" if is_poll else "read"
        if not is_poll:
            return Look(job, 0)
        left_s = None if job.deadline_at is None else job.deadline_at - now
        return Look(job, looks.wait_s(len(self._table), self._per_minute, age_s=now - job.accepted_at, left_s=left_s))

    def _first_job(self) -> Watched | None:
        while self._heap:
            due, _, job = self._heap[0]
            if not job.is_out and job.due == due and self._table.get(job.job_id) is job:
                return job
            heapq.heappop(self._heap)
        return None

    # --- sweeps --------------------------------------------------------------------------------------------------

    def _page_due(self, now: float) -> float:
        """When the next page is due."""
        if self.way != "sweep" or not self.is_complete:
            return NEVER
        if self._sweep is None and now >= self._next_sweep_at:
            lists = self._lists()
            self._sweep = _Sweep(now, lists, now) if lists else None
        return NEVER if self._sweep is None or self._sweep.is_out else self._sweep.due

    def _lists(self) -> list[tuple[JobKind, str]]:
        """What to list, forward: from the first state that a job of the kind may still be in."""
        earliest: dict[JobKind, int] = {}
        for job in self._table.values():
            if job.status in FORWARD and not job.is_read_singly:
                earliest[job.kind] = min(earliest.get(job.kind, 9), FORWARD.index(job.status))
        return [(kind, status) for kind, first in sorted(earliest.items()) for status in FORWARD[first:]]

    def _turn(self, sweep: _Sweep, now: float) -> Turn:
        sweep.is_out = True
        self._out["reads"] += 1
        kind, status = sweep.lists[0]
        return Turn(kind, status, sweep.cursor, now)

    def turned(
        self,
        turn: Turn,
        now: float,
        jobs: Sequence[Job] | None,
        next_cursor: str | None = None,
        *,
        is_lost: bool = False,
    ) -> list[tuple[Watched, Job]]:
        """Take a page; ``jobs`` is None if it could not be read, ``is_lost`` if it never can. Says what to report."""
        self._out["reads"] -= 1
        sweep = self._sweep
        if sweep is None or not sweep.is_out or sweep.lists[0] != (turn.kind, turn.status):
            return []  # of a sweep that was given up
        sweep.is_out = False
        if jobs is None:
            sweep.failures += 1
            sweep.due = now + looks.after_trouble_s(sweep.failures)
            if is_lost or sweep.failures >= _LOST_AFTER:
                self._give_up_list(now, "it cannot be read", looks.PROBE_S if is_lost else _LIST_PAUSE_S)
            return []
        sweep.pages, sweep.failures = sweep.pages + 1, 0
        if any(job.status != turn.status for job in jobs):
            self._give_up_list(now, "its filter by status is ignored")
            return []
        if sweep.pages > len(self._table) / 10 + 20:
            self._give_up_list(now, "most of its pages hold other jobs than ours")
            return []
        news = [pair for job in jobs if (pair := self._seen_in_list(job, turn, now)) is not None]
        if next_cursor is None or not jobs or next_cursor in sweep.cursors:
            sweep.lists.pop(0)
            sweep.cursor, sweep.cursors = None, set()
        else:
            sweep.cursor = next_cursor
            sweep.cursors.add(next_cursor)
        sweep.due = sweep.started_at  # what has been begun goes on before what is due later
        if not sweep.lists:
            self._end_sweep(sweep, now)
        return news

    def _give_up_list(self, now: float, why: str, for_s: float = looks.PROBE_S) -> None:
        self._no_list_until, self._sweep = now + for_s, None
        self.notes.append(f"the list of jobs is no help ({why}): single reads for {for_s:.0f} s")

    def _seen_in_list(self, listed: Job, turn: Turn, now: float) -> tuple[Watched, Job] | None:
        job = self._table.get(listed.id)
        if job is None:
            return None
        job.alive_at = turn.asked_at
        job.is_unlisted = False
        self._strays.discard(job.job_id)
        job.status = listed.status
        return (job, listed) if not job.is_out and self._is_news(job, listed, now) else None

    def _end_sweep(self, sweep: _Sweep, now: float) -> None:
        """What was there before the sweep and was not in it has ended, or the list does not tell all."""
        oldest: Watched | None = None
        self._oldest_s = max((now - job.accepted_at for job in self._table.values()), default=0.0)
        for job in self._table.values():
            if job.is_out or job.due <= now or job.joined_at >= sweep.started_at or job.is_read_singly:
                continue
            if job.alive_at < sweep.started_at and not job.is_unlisted:
                job.source = "sweep"
                self._strays.add(job.job_id)
                self._push(job, sweep.started_at)
            elif job.read_at < now - looks.LOOK_LATEST_S:
                self._ask(job, "repair", now)
            elif oldest is None or job.read_at < oldest.read_at:
                oldest = job
        if oldest is not None and oldest.read_at < now - looks.SWEEP_MOST_S:
            self._ask(oldest, "repair", now)  # a sample: does the list tell the truth of those that it shows?
        self._sweep, self._last_pages = None, max(1, sweep.pages)
        self._next_sweep_at = max(now, sweep.started_at + self._sweep_every_s())

    def _sweep_every_s(self) -> float:
        return looks.sweep_every_s(
            len(self._table),
            self._last_pages,
            self._per_minute,
            usual_s=self._usual_s or max(_USUAL_S, self._oldest_s),
            trust=self.trust,
        )

    # --- what came back ------------------------------------------------------------------------------------------

    def landed(
        self,
        look: Look,
        now: float,
        job: Job | None,
        *,
        took_s: float,
        is_gone: bool = False,
        is_refused: bool = False,
    ) -> Told:
        """Take the answer of a look: the job, or None if it could not be read.

        ``is_gone``: there is no such job. ``is_refused``: the API answered, and will not say. What it did not answer
        at all spends no deadline. After "end" the job stays out until `settled`.
        """
        watched = look.job
        self._out["polls" if look.wait_s else "reads"] -= 1
        watched.read_at = now
        is_terminal = job is not None and job.is_terminal
        if job is not None and looks.is_wait_ignored(wait_s=look.wait_s, took_s=took_s, is_terminal=is_terminal):
            if now >= self._no_wait_until:
                self.notes.append(f"the API ignores ?wait: no long-polls for {looks.PROBE_S:.0f} s")
            self._no_wait_until = now + looks.PROBE_S
        is_past = watched.deadline_at is not None and now >= watched.deadline_at
        if is_terminal or is_gone or (is_past and (job is not None or is_refused)):
            return "end"
        watched.is_out = False
        if job is None:
            watched.failures += 1
            self._push(watched, now + looks.after_trouble_s(watched.failures))
            return "report" if self._is_fading(watched, now) else "nothing"
        watched.failures, watched.alive_at, watched.status = 0, now, job.status
        watched.percent = job.progress_percent
        if watched.source == "sweep":
            self._note_stray(watched, now)
        self._plan_next(watched, now)
        return "report" if self._is_news(watched, job, now) else "nothing"

    def settled(self, job: Watched, now: float, *, is_over: bool, ended_after_s: float | None = None) -> None:
        """What was seen was acted on: nobody waits for the job any more; or that went wrong, and it is looked at again.

        ``ended_after_s``: how long the job took, if it has ended.
        """
        if self._table.get(job.job_id) is not job:
            return
        if not is_over:
            job.is_out, job.source = False, "repair"
            job.failures += 1
            self._push(job, now + looks.after_trouble_s(job.failures))
            return
        if ended_after_s is not None:
            before_s = max(1.0, self._usual_s or ended_after_s)
            # The middle of long and short ones; of many, that of more than one sweep has found.
            weight = min(_WEIGHT, 10 / len(self._table))
            self._usual_s = before_s * (max(1.0, ended_after_s) / before_s) ** weight
            self.trust += _WEIGHT * ((job.source == "hint") - self.trust)
        self.forget(job.task_id)

    def _note_stray(self, job: Watched, now: float) -> None:
        """It is missing from the list and goes on. One may have been overlooked; of many, the list is no help."""
        job.is_unlisted = True
        strays = sum(one.is_unlisted for one in map(self._table.get, self._strays) if one is not None)
        if strays > max(_STRAYS, len(self._table) / 10):
            self._give_up_list(now, "many jobs that go on are not in it")

    def _plan_next(self, job: Watched, now: float) -> None:
        if job.is_hinted_again:
            job.is_hinted_again = False
            self._push(job, now)
            return
        job.source = "first"
        if self.way == "long_poll" and not job.is_read_singly:
            self._push(job, now)
        elif self.way == "read" or job.is_unlisted or job.is_read_singly:
            every_s = looks.read_every_s(
                len(self._table),
                self._per_minute,
                age_s=now - job.accepted_at,
                percent=job.percent,
                trust=self.trust,
            )
            job.source = "read"
            self._push(job, now + every_s)

    def _is_news(self, job: Watched, seen: Job, now: float) -> bool:
        """Whether to show what was seen; if so, it counts as shown."""
        shown = _shown(seen.status, seen.progress_percent, seen.progress_stage)
        pause_s = max(looks.PROGRESS_S, len(self._table) / looks.REPORTS_PER_S)
        is_news = shown != job.shown and now - job.reported_at >= pause_s
        if is_news or self._is_fading(job, now):
            job.shown, job.reported_at = shown, now
            return True
        return False

    def _is_fading(self, job: Watched, now: float) -> bool:
        """Its result would fade, if nobody wrote it again."""
        if now - job.reported_at <= self._report_after_s:
            return False
        job.reported_at = now
        return True

    def next_look_at(self, job: Watched, now: float) -> float:
        """For the eye: about when it is looked at next."""
        return max(now, self._next_sweep_at if self.way == "sweep" and job.due == NEVER else min(job.due, now))


def _shown(status: object, percent: object, stage: object) -> tuple[object, ...]:
    return (status, percent or 0, stage)
