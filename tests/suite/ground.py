"""The ground of one round: a server, a stack, what was called, and the count of what came of it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import chain, states

from framelane_celery.pacing import PAUSE_MAX_S
from framelane_celery.testing import FramelaneServer, Never, Outcome, Submission
from tests.faults import attack
from tests.suite.ledger import Ledger
from tests.worker.stacks import Stack, wait_for

LANES = ("clock", "look", "slot:render", "slot:task", "hold:default")
"""Where the records are that are not over."""

OVER_S = PAUSE_MAX_S + 60.0
"""How long after its last fault a round may take to end: who was refused an answer again and again pauses so long."""

_LASTS = re.compile(r"lasts ([0-9.]+)")
_Notes = Sequence[Mapping[str, Any]]


def lasts(seconds: float) -> str:
    """The text of a job that takes so long."""
    return f"lasts {seconds:.2f}"


def duration_of(usual_s: float) -> Callable[[Submission], float]:
    def duration(submission: Submission) -> float:
        found = _LASTS.search(_text_of(submission))
        return float(found[1]) if found else usual_s

    return duration


def outcome_of(submission: Submission) -> Outcome:
    """A job whose text says so ends only when the round says so."""
    return Never() if "held" in _text_of(submission) else attack.outcome_of(submission)


def _text_of(submission: Submission) -> str:
    elements = submission.body.get("elements") or [{}]
    return str(elements[0].get("text"))


class Ground:
    """Where one round takes place."""

    def __init__(self, server: FramelaneServer, stack: Stack) -> None:
        self.server, self.stack = server, stack
        self.ledger = Ledger()
        self.results: dict[str, Any] = {}
        """By task id: of the calls that returned, and of the tasks after them in a chain."""

    # --- work ----------------------------------------------------------------------------------------------------

    def call(self, text: str = "hello", *, is_chain: bool = False, **options: Any) -> str | None:
        """Ask for one job, or for a chain of two. None: the call did not return."""
        ids = [str(uuid4()) for _ in range(1 + is_chain)]
        return self.call_as(*ids, text=text, **options)

    def call_as(self, *ids: str, text: str = "hello", **options: Any) -> str | None:
        """The same, under these ids: one, or two of a chain."""
        signature = self.stack.sig("promo", text).set(task_id=ids[0], **options)
        if len(ids) > 1:
            signature = chain(signature, self.stack.sig("framelane.transcribe").set(task_id=ids[1]))
        self.ledger.attempted += len(ids)
        try:
            signature.apply_async()
        except Exception:  # noqa: BLE001 - whatever it was, the caller knows that it was not accepted
            self.ledger.figures["calls_refused"] = self.ledger.figures.get("calls_refused", 0) + 1
            return None
        self.ledger.accepted += len(ids)
        self.results |= {task_id: self.stack.app.AsyncResult(task_id) for task_id in ids}
        return ids[0]

    def calls(self, count: int, text: str = "hello", *, is_chain: bool = False) -> list[str]:
        made = [self.call(text, is_chain=is_chain) for _ in range(count)]
        return [task_id for task_id in made if task_id is not None]

    def in_flight(self) -> int:
        """How many records are not over."""
        return sum(self.stack.room.waiting(lane) for lane in LANES)

    def running_on(self, nodes: Collection[str]) -> int:
        """How many runs hold a lease on these nodes."""
        return sum(record.until == "running" and record.run_node in nodes for record in self.stack.room.scan("clock"))

    def waiting_for_jobs(self, count: int, timeout_s: float = 200) -> None:
        """Until so many records wait for their jobs."""
        wait_for(lambda: self.stack.room.waiting("look") >= count, timeout_s, f"{count} wait for jobs", every_s=0.1)

    def plan(self, is_hit: bool) -> None:
        """Count one fault."""
        self.ledger.faults_planned += 1
        self.ledger.faults_hit += is_hit

    def until_over(self, timeout_s: float = OVER_S) -> None:
        """Until no record waits or runs; what is left then counts as lost."""
        with suppress(AssertionError):
            # Lanes are counted one after the other, and a record may move meanwhile: the open list has the last word.
            wait_for(lambda: self.in_flight() == 0 and self.stack.is_idle(), timeout_s, "all over", every_s=0.25)

    # --- the count -----------------------------------------------------------------------------------------------

    def count(self, killed: Collection[int] = ()) -> Ledger:
        """What came of the calls. ``killed``: the processes that the round has killed."""
        ledger = self.ledger
        ends = Counter(result.state for result in self.results.values())
        ledger.lost = sum(count for state, count in ends.items() if state != states.SUCCESS)
        if ledger.lost:
            ledger.broken += [f"{count} tasks are {state}" for state, count in ends.items() if state != "SUCCESS"]
            ledger.broken += self._told()
        made = self.server.ledger.jobs_per_task()
        ledger.paid = sum(len(jobs) for jobs in made.values())
        ledger.duplicated = sum(len(jobs) > 1 for jobs in made.values())
        unpaid = sum(not made.get(task_id) for task_id in self.results)
        ledger.check(unpaid == 0 or ledger.lost >= unpaid, f"{unpaid} tasks ended without a job")
        twice = run_twice(self.stack.journal(), set(killed), self._finished_at, self._unwritten())
        ledger.run_twice = len(twice)
        ledger.broken += [f"{task_id} was run twice: {self._runs_of(task_id, killed)}" for task_id in twice[:3]]
        again = Counter(note["id"] for note in self.stack.journal("completed"))
        ledger.figures["completed_again"] = sum(count > 1 for count in again.values())
        return ledger

    def _finished_at(self, task_id: str) -> float | None:
        record = self.stack.record(task_id)
        return None if record is None else record.finished_at

    def _runs_of(self, task_id: str, killed: Collection[int]) -> str:
        """When which processes came to a run's end, and whether they were killed; and when the record was done."""
        told = [
            f"{note['event']} {note['pid']}{' (killed)' if note['pid'] in killed else ''} {note['at']:.3f}"
            for note in self.stack.journal()
            if note["id"] == task_id
        ]
        return f"{'; '.join(told)}; done {self._finished_at(task_id)}"

    def _unwritten(self) -> Counter[str]:
        """How many runs of a task could not write their end into the room, by the workers' own word."""
        logs = "".join(file.read_text(errors="replace") for file in self.stack.folder.glob("*.log"))
        return Counter(re.findall(r"\[([-0-9a-f]{36})\]: the end was not written, run again", logs))

    def _told(self) -> list[str]:
        """Of the first that were lost: where they stand."""
        lost = [task_id for task_id, result in self.results.items() if result.state != states.SUCCESS][:3]
        return [f"{task_id}: {self.results[task_id].result!r}, {self.stack.record(task_id)}"[:1500] for task_id in lost]


def run_twice(
    notes: _Notes, killed: set[int], finished_at: Callable[[str], float | None], unwritten: Mapping[str, int]
) -> list[str]:
    """The tasks whose second run went to its end more than once, though nothing had come in between.

    A run's end is ``after_return``; that it has ended is written into the room after that. A run whose process was
    killed, or that told that the room was away (``unwritten``), has to be run again, and publishes no tail then; but
    never once the record was done.
    """
    ends: dict[str, list[Mapping[str, Any]]] = {}
    for note in notes:
        if note["event"] == "after_return" and note["id"]:
            ends.setdefault(note["id"], []).append(note)
    twice = []
    for task_id, found in ends.items():
        if len(found) < 2:
            continue
        whole = sum(note["pid"] not in killed for note in found) - unwritten.get(task_id, 0)
        over_at = finished_at(task_id)
        is_late = over_at is not None and max(note["at"] for note in found) > over_at + 0.5
        if whole > 1 or is_late:
            twice.append(task_id)
    return twice


@contextmanager
def make_ground(
    transport: str,
    folder: Path,
    *,
    job_seconds: float = 1.0,
    server: Mapping[str, Any] | None = None,
    celery: Mapping[str, Any] | None = None,
    framelane: Mapping[str, Any] | None = None,
) -> Iterator[Ground]:
    """A server without limits and a stack without pacing; the ledger's seconds run while it is open."""
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"outcome": outcome_of, "duration": duration_of(job_seconds), **(server or {})}
    settings = {"celery": dict(celery or {}), "framelane": dict(framelane or {})}
    started = time.monotonic()
    with (
        attack.make_server(**options) as running,
        attack.make_stack(transport, folder, running, **settings) as stack,
    ):
        ground = Ground(running, stack)
        try:
            yield ground
        finally:
            ground.ledger.seconds = time.monotonic() - started
