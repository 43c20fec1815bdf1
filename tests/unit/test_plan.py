"""The plan of the looks, played against a server that lies, on a clock of its own.

What is promised: the end of every job is seen within a bound, whatever the server does; and never more is read than
the budget gives.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelane_celery.models import Job
from framelane_celery.records import Record
from framelane_celery.watching import looks
from framelane_celery.watching.plan import SAFETY_S, Look, Plan, Turn

START = 1_700_000_000.0
TICK_S = 0.25


@dataclass
class Server:
    """Jobs with a beginning and an end, and a list that may be no help."""

    ends: dict[str, tuple[float, float]] = field(default_factory=dict)  # begin, end
    has_wait: bool = True
    has_list: bool = True
    filters: bool = True
    page_size: int = 100
    is_sorted: bool = True
    hides: float = 0.0  # the share of jobs that the list never shows
    shows_ended_for_s: float = 0.0  # the list lags behind
    others: int = 0  # jobs of other people in the list
    down: tuple[float, float] = (0.0, 0.0)
    answers_in_s: float = 0.05
    imports: int = 0  # one job in so many is an import: in no list, and never held

    def status(self, job_id: str, now: float) -> str:
        begin, end = self.ends[job_id]
        return "completed" if now >= end else "queued" if now < begin + 1 else "processing"

    def job(self, job_id: str, status: str) -> Job:
        return Job.model_construct(id=job_id, status=status, progress_percent=0, progress_stage=None)

    def is_down(self, now: float) -> bool:
        return self.down[0] <= now < self.down[1]

    def page(self, turn: Turn, now: float) -> tuple[list[Job] | None, str | None]:
        seen_at = now - self.shows_ended_for_s
        known = [id for id, (begin, _) in self.ends.items() if begin <= now and not self._is_hidden(id)]
        listed = [(id, self.status(id, max(seen_at, self.ends[id][0]))) for id in known]
        listed += [(f"other_{n}", "processing") for n in range(self.others)]
        if self.filters:
            listed = [(id, status) for id, status in listed if status == turn.status]
        if not self.is_sorted:
            random.Random(now).shuffle(listed)  # another order on each page: some are seen twice, others never
        start = int(turn.cursor or 0)
        end = start + min(self.page_size, looks.PAGE_SIZE)
        return [self.job(*one) for one in listed[start:end]], str(end) if end < len(listed) else None

    def kind(self, job_id: str) -> Literal["render", "import"]:
        number = int(job_id.rpartition("_")[2])
        return "import" if self.imports and number % self.imports == 0 else "render"

    def _is_hidden(self, job_id: str) -> bool:
        if self.kind(job_id) == "import":
            return True
        return zlib.crc32(job_id.encode()) % 1000 < self.hides * 1000


@dataclass
class Outcome:
    seen_after_s: dict[str, float]
    reads: list[float]
    sources: dict[str, str]
    pages: int
    ends: dict[str, tuple[float, float]]
    notes: list[str]

    def ended_at(self, job_id: str) -> float:
        return self.ends[job_id][1] - START


def play(
    server: Server,
    jobs: Sequence[tuple[float, float]],
    *,
    per_minute: int,
    long_polls: int = 40,
    hints: float = 0.0,
    hints_end_at: float = 1e9,
    for_s: float,
) -> Outcome:
    """Jobs, as (begins at, lasts for) in seconds, until all ends are seen or ``for_s`` have passed."""
    plan, chance, order = Plan(per_minute, long_polls), random.Random(7), count()
    records: dict[str, Record] = {}
    coming: list[tuple[float, int, str, Any]] = []  # at, order, what, of what

    def at(when: float, what: str, of: Any) -> None:
        heapq.heappush(coming, (when, next(order), what, of))

    for number, (begin, length) in enumerate(jobs):
        job_id = f"render_{number}"
        server.ends[job_id] = (START + begin, START + begin + length)
        at(START + begin, "accepted", job_id)
        if chance.random() < hints and begin + length < hints_end_at:
            at(START + begin + length + 0.05, "hint", job_id)
    seen_after_s: dict[str, float] = {}
    reads: list[float] = []
    sources: dict[str, str] = {}
    pages = 0
    now = START
    while now < START + for_s and len(seen_after_s) < len(jobs):
        while coming and coming[0][0] <= now:
            _, _, what, of = heapq.heappop(coming)
            if what == "accepted":
                begin = server.ends[of][0]
                records[of] = Record(
                    id=f"task-{of}", task="t", call="", digest="", until="job", due_at=now, job_id=of,
                    job_kind=server.kind(of), accepted_at=begin, reported_at=begin, job={"status": "queued"},
                )  # fmt: skip
                at(plan.feed(records[of], now), "due", of)
            elif what == "hint" and of in records:
                records[of] = _hinted(records[of], now)
                plan.feed(records[of], now)
            elif what == "due" and of in records:
                at(plan.feed(records[of], now), "due", of)
            elif what == "look":
                look, asked_at = of
                job_id = look.job.job_id
                job = None if server.is_down(now) else server.job(job_id, server.status(job_id, now))
                if plan.landed(look, now, job, took_s=now - asked_at) == "end":
                    seen_after_s[job_id] = now - server.ends[job_id][1]
                    sources[job_id] = look.job.source
                    plan.settled(look.job, now, is_over=True, ended_after_s=now - look.job.accepted_at)
                    del records[job_id]
            elif what == "page":
                if server.is_down(now) or not server.has_list:
                    plan.turned(of, now, None, is_lost=not server.has_list)
                else:
                    plan.turned(of, now, *server.page(of, now))
        for asked in plan.next(now):
            reads.append(now)
            if isinstance(asked, Turn):
                assert asked.kind == "render"
                pages += 1
                at(now + server.answers_in_s, "page", asked)
            else:
                at(now + _held_s(server, asked, now), "look", (asked, now))
        now = min(now + TICK_S, max(now + 0.001, coming[0][0] if coming else now + TICK_S))
    return Outcome(seen_after_s, reads, sources, pages, server.ends, plan.notes)


def _hinted(record: Record, now: float) -> Record:
    from framelane_celery import records

    hinted = records.hinted(record, now=now)
    assert hinted is not None
    return hinted


def _held_s(server: Server, look: Look, now: float) -> float:
    if not look.wait_s or not server.has_wait or server.kind(look.job.job_id) == "import" or server.is_down(now):
        return server.answers_in_s
    end = server.ends[look.job.job_id][1]
    return max(server.answers_in_s, min(float(look.wait_s), end - now))


def most_in_a_minute(reads: Sequence[float]) -> int:
    first, most = 0, 0
    for last, at in enumerate(reads):
        while reads[first] < at - 60:
            first += 1
        most = max(most, last - first + 1)
    return most


servers = st.builds(
    Server,
    has_wait=st.booleans(),
    has_list=st.booleans(),
    filters=st.booleans(),
    page_size=st.sampled_from([1, 3, 20, 100]),
    is_sorted=st.booleans(),
    hides=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    shows_ended_for_s=st.sampled_from([0.0, 3.0, 1e9]),
    others=st.sampled_from([0, 50, 2000]),
    down=st.sampled_from([(0.0, 0.0), (START + 20, START + 140)]),
    answers_in_s=st.sampled_from([0.01, 0.5]),
    imports=st.sampled_from([0, 2]),
)


@settings(max_examples=25, deadline=None)
@given(
    server=servers,
    jobs=st.lists(st.tuples(st.floats(0, 60), st.floats(0.1, 400)), min_size=1, max_size=120),
    per_minute=st.sampled_from([60, 240, 600]),
    long_polls=st.sampled_from([0, 5, 40]),
    hints=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_every_end_is_seen_within_the_bound_whatever_the_server_does(
    server: Server, jobs: list[tuple[float, float]], per_minute: int, long_polls: int, hints: float
) -> None:
    outcome = play(server, jobs, per_minute=per_minute, long_polls=long_polls, hints=hints, for_s=4000)
    assert len(outcome.seen_after_s) == len(jobs)
    in_turn_s = len(jobs) * 60 / per_minute
    down_s = server.down[1] - server.down[0]
    assert max(outcome.seen_after_s.values()) <= looks.LOOK_LATEST_S + 2 * in_turn_s + down_s + 60
    assert most_in_a_minute(outcome.reads) <= per_minute + max(1, per_minute / 6) + 1


@pytest.mark.parametrize(("jobs", "reads_per_job"), [(60, 6.0), (1000, 0.5)])
def test_with_a_list_that_helps_ends_are_seen_soon_and_for_few_reads(jobs: int, reads_per_job: float) -> None:
    """So many in flight at once, of two to three minutes each. Counted: reads beyond those that see an end, halfway."""
    chance = random.Random(1)
    lengths = [(chance.uniform(0, 300), chance.uniform(100, 200)) for _ in range(jobs * 2)]
    outcome = play(Server(), lengths, per_minute=6000, for_s=600)
    delays = sorted(outcome.seen_after_s.values())
    assert len(delays) == len(lengths)
    assert delays[len(delays) // 2] < 2.5
    assert delays[-1] < 10
    ends = sum(200 <= end - START < 300 for _, end in outcome.ends.values())
    reads = sum(200 <= at - START < 300 for at in outcome.reads)
    assert (reads - ends) / ends < reads_per_job


@pytest.mark.parametrize(
    ("server", "bound_s"),
    [
        (Server(has_list=False), 45),
        (Server(filters=False), 45),
        (Server(others=5000), 45),
        (Server(page_size=7), 30),
        (Server(is_sorted=False), 45),
        (Server(hides=0.01), 45),
        (Server(hides=1.0), 45),
        (Server(has_wait=False), 30),
    ],
    ids=["no list", "no filter", "others", "small pages", "unsorted", "hides some", "hides all", "no wait"],
)
def test_a_list_that_is_no_help_costs_moments_not_minutes(server: Server, bound_s: float) -> None:
    chance = random.Random(2)
    lengths = [(chance.uniform(0, 30), chance.uniform(60, 200)) for _ in range(300)]
    outcome = play(server, lengths, per_minute=600, for_s=900)
    assert len(outcome.seen_after_s) == 300
    assert max(outcome.seen_after_s.values()) < bound_s


@pytest.mark.parametrize(("jobs", "bound_s"), [(60, 300.0), (300, looks.LOOK_LATEST_S + 90)])
def test_a_list_that_shows_jobs_for_ever_is_not_believed(jobs: int, bound_s: float) -> None:
    """A few are found out by the read that each sweep makes for a sample, many by the one that each job has at last."""
    outcome = play(Server(shows_ended_for_s=1e9), [(0.0, 100.0)] * jobs, per_minute=600, for_s=4000)
    assert len(outcome.seen_after_s) == jobs
    assert max(outcome.seen_after_s.values()) < bound_s


def test_a_list_that_hides_our_jobs_is_given_up() -> None:
    outcome = play(Server(hides=1.0), [(n / 10, 300.0) for n in range(300)], per_minute=600, for_s=900)
    assert outcome.pages < 40


def test_while_hints_come_sweeps_are_rare_and_when_they_stop_they_come_back() -> None:
    chance = random.Random(3)
    lengths = [(n, chance.uniform(60, 120)) for n in range(600)]
    hinted = play(Server(), lengths, per_minute=6000, hints=1.0, for_s=1000)
    alone = play(Server(), lengths, per_minute=6000, hints=0.0, for_s=1000)
    stopped = play(Server(), lengths, per_minute=6000, hints=1.0, hints_end_at=300.0, for_s=1000)
    assert hinted.pages < alone.pages / 3
    assert sorted(hinted.seen_after_s.values())[590] < 0.5
    late = sorted(after_s for id, after_s in stopped.seen_after_s.items() if stopped.ended_at(id) > 360)
    assert len(late) > 250
    assert late[len(late) // 2] < 3
    assert late[-1] < 10


def test_a_deadline_is_not_judged_by_an_api_that_does_not_answer() -> None:
    plan = Plan(600, 40)
    record = Record(
        id="task",
        task="t",
        call="",
        digest="",
        until="job",
        job_id="render_1",
        accepted_at=START,
        deadline_at=START + 9,
    )
    plan.feed(record, START)
    (look,) = plan.next(START)
    assert isinstance(look, Look)
    assert plan.landed(look, START + 10, None, took_s=1.0) == "nothing"
    (look,) = plan.next(START + 100)
    assert isinstance(look, Look)
    assert plan.landed(look, START + 101, None, took_s=1.0, is_refused=True) == "end"


def test_the_room_has_what_is_watched_put_off_and_never_past_its_deadline() -> None:
    plan = Plan(600, 40)
    record = Record(id="task", task="t", call="", digest="", until="job", job_id="render_1", accepted_at=START)
    assert plan.feed(record, START) == START + SAFETY_S
    from dataclasses import replace

    soon = replace(record, id="soon", job_id="render_2", deadline_at=START + 50)
    assert plan.feed(soon, START) == START + 50


def test_no_list_is_judged_before_all_jobs_are_taken_over() -> None:
    """After a take-over the table fills page by page; the list has all of them."""
    plan = Plan(600, 0)
    plan.is_complete = False
    for n in range(2000):
        plan.adopt(waiting(f"render_{n}"), START)
    assert not any(isinstance(order, Turn) for order in plan.next(START + 1))
    plan.is_complete = True
    assert any(isinstance(order, Turn) for order in plan.next(START + 2))


def waiting(job_id: str) -> Record:
    return Record(
        id=f"task-{job_id}",
        task="t",
        call="",
        digest="",
        until="job",
        job_id=job_id,
        job_kind="render",
        accepted_at=START,
    )


def test_many_that_end_at_once_are_read_within_the_budget() -> None:
    outcome = play(Server(), [(0.0, 100.0)] * 200, per_minute=120, for_s=2000)
    assert len(outcome.seen_after_s) == 200
    assert most_in_a_minute(outcome.reads) <= 120 + 20 + 1


@pytest.mark.parametrize(("count", "within_s"), [(20, 4), (300, 35)])
def test_imports_neither_spoil_the_list_nor_end_the_long_polls(count: int, within_s: float) -> None:
    """The API lists no imports and holds no read of one (framelane_api.md §14): they are read singly, in any way."""
    jobs = [(number / count, 60 + number % 10) for number in range(count)]
    outcome = play(Server(imports=2), jobs, per_minute=600, for_s=600)
    assert len(outcome.seen_after_s) == count
    assert outcome.notes == []
    assert max(outcome.seen_after_s.values()) < within_s
    assert most_in_a_minute(outcome.reads) <= 700
