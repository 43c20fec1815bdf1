"""The pure transitions that move a record on.

A transition takes a record and says what it becomes, or ``None``: "not from this state". Nothing here does I/O, so
every pair of state and transition is tested without a store. The room saves what a transition answers with one
compare-and-set on ``version``; so each transition is atomic, and checks the state that it comes from.

What becomes of a failure is in `failures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from framelane_celery.records.record import WAITING, Ending, JobKind, Outcome, Record, Until

RESEND_MAX_S: Final = 3600.0

MISDELIVERED_S: Final = 2.0
"""How soon a wake-up is sent again that reached a worker which does not know the task; doubling with each resend."""

END_AGAIN_S: Final = 30.0
"""How long the ending of a revoked task may take before it is tried again."""

HINT_AHEAD_S: Final = 45.0
"""How far a hint goes ahead of the looks that are due, which may be many while the budget of reads is short. Not of
those that are later than this, so that no flood of hints starves a job; and not so far as to look overdue itself
(`room.inspect.LATE_S`)."""

_OF_AN_ATTEMPT: Final = (
    "request", "first_post_at", "key_id", "job_id", "job_kind", "job", "outcome", "failure", "letter", "retry_queue",
    "held_at",
)  # fmt: skip
"""What another piece of work under the same id has not."""


def move_to(record: Record, until: Until, due_at: float | None, **changes: Any) -> Record:
    """Wait for something else: a new step, so that every message of the old one is stale.

    What was revoked while it ran never waits again: the watcher ends it at once.
    """
    if record.ending and until in WAITING:
        due_at = 0.0
    return replace(record, until=until, step=record.step + 1, due_at=due_at, resends=0, **changes)


def is_run(record: Record, run_id: str) -> bool:
    return record.until == "running" and record.run_id == run_id


def resend_delay_s(resends: int, first_s: float) -> float:
    """How long a wake-up may stay unanswered before the next one: doubling, at most an hour."""
    return min(RESEND_MAX_S, first_s * 2.0 ** min(resends, 12))


def begin(
    record: Record,
    *,
    step: int,
    run_id: str,
    node: str | None,
    now: float,
    lease_s: float,
    bucket: str | None = None,
) -> Record | None:
    """A worker takes the record: only the message of this very step does, and only once.

    ``bucket``: of the slots that it takes or queues for, if its account has a limit of its own.
    """
    if record.until != "start" or record.step != step or record.ending:
        return None
    return move_to(record, "running", now + lease_s, run_id=run_id, run_node=node, begun=True, bucket=bucket)


def is_expired(record: Record, now: float) -> bool:
    """``expires`` means "start before": the first begin fulfils it, whatever comes later."""
    return not record.begun and record.expires_at is not None and now > record.expires_at


def queue(record: Record, *, step: int, kind: JobKind, now: float, bucket: str | None = None) -> Record | None:
    """No slot is free: join the queue, or go back to the old place in it. ``bucket`` as in `begin`."""
    if record.until != "start" or record.step != step or record.ending:
        return None
    place = record.queued_at if record.queued_at is not None else now
    return to_slot(record, place, job_kind=kind, bucket=bucket)


def to_slot(record: Record, place: float, **changes: Any) -> Record:
    """Queue for a submit slot: in the order of arrival (``place``, an instant), an urgent task with a head start."""
    return move_to(record, "slot", place - record.head_start_s, **{**changes, "queued_at": place})


def hold_lease(record: Record, *, run_id: str, now: float, lease_s: float) -> Record | None:
    """The run asks "am I still the one?" and has a whole lease again if so."""
    return replace(record, due_at=now + lease_s) if is_run(record, run_id) else None


def renew(record: Record, *, node: str, now: float, lease_s: float) -> Record | None:
    """The worker's main process says that the run is alive. A lease that has ended is not called back."""
    if record.until != "running" or record.run_node != node or record.due_at is None or record.due_at <= now:
        return None
    return replace(record, due_at=now + lease_s)


def prepare(record: Record, *, run_id: str, request: str, kind: JobKind, now: float) -> Record | None:
    """The bytes of this attempt, before the first POST; from here on they are the only ones."""
    if not is_run(record, run_id) or record.request is not None:
        return None
    return replace(record, request=request, job_kind=kind, first_post_at=now)


def accept(
    record: Record, *, run_id: str, job: dict[str, Any], kind: JobKind, now: float, deadline_s: float
) -> Record | None:
    """The job is accepted: wait for it, the first look is due at once. The deadline runs from here."""
    if not is_run(record, run_id):
        return None
    return move_to(
        record,
        "job",
        now,
        job=job,
        job_id=str(job["id"]),
        job_kind=kind,
        accepted_at=now,
        deadline_at=now + deadline_s,
        reported_at=now,
        hinted_at=None,
        lost_runs=0,
        pauses=0,
        queued_at=None,
        held_at=None,
        retry_queue=None,
    )


def open_post(record: Record, *, run_id: str, now: float) -> Record | None:
    """The same bytes go out again, after every POST before was answered: from here on one may be open."""
    is_ready = record.request is not None and record.first_post_at is None and record.outcome is None
    return replace(record, first_post_at=now) if is_run(record, run_id) and is_ready else None


def pause(record: Record, *, run_id: str, at: float, is_answered: bool = False) -> Record | None:
    """The POST was not answered, or was refused for now: the same bytes and key again at that instant.

    Its place among those who queue for a slot stays: it was called before them. ``is_answered``: no POST of this
    attempt is open, so its key has no age: no job can be under it.
    """
    if not is_run(record, run_id):
        return None
    place = record.queued_at if record.queued_at is not None else record.first_post_at
    first_post_at = None if is_answered else record.first_post_at
    return move_to(record, "instant", at, pauses=record.pauses + 1, queued_at=place, first_post_at=first_post_at)


def looked(record: Record, *, job: dict[str, Any] | None, reported_at: float) -> Record | None:
    """A look found the job unfinished (or, with ``job`` None, could not read it), and that was shown."""
    if record.until != "job" or record.ending:
        return None
    return replace(record, job=record.job if job is None else job, reported_at=reported_at)


def hinted(record: Record, *, now: float) -> Record | None:
    """News that the job may have ended: look now. It says when to look, never what happened.

    It is written even if the look is due, or under way: the write tells the watcher that it came meanwhile.
    """
    if record.until != "job" or record.ending:
        return None
    return replace(record, due_at=min(now - HINT_AHEAD_S, record.due_at or now), hinted_at=now)


def complete(record: Record, *, job: dict[str, Any], now: float, resend_after_s: float) -> Record | None:
    """The job has completed: the task is woken to return it."""
    if record.until != "job" or record.ending:
        return None
    entry = history_entry(record, "completed", now)
    return move_to(
        record, "start", now + resend_after_s, outcome="completed", job=job, history=(*record.history, entry)
    )


def history_entry(
    record: Record, outcome: Outcome, now: float, failure: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is remembered of an attempt."""
    entry = {"attempt": record.attempt, "job_id": record.job_id, "outcome": outcome, "at": now}
    if record.accepted_at is not None:
        entry["accepted_at"] = record.accepted_at
    return {**entry, "code": failure["code"]} if failure else entry


def wake(record: Record, *, now: float, resend_after_s: float) -> Record | None:
    """What waited for the clock or for a slot is due."""
    if record.until not in ("instant", "slot") or record.ending:
        return None
    return move_to(record, "start", now + resend_after_s)


def resend(record: Record, *, now: float, resend_after_s: float) -> Record | None:
    """The wake-up was not answered: the same one again, with the same step, further and further apart."""
    if record.until != "start" or record.ending:
        return None
    resends = record.resends + 1
    return replace(record, resends=resends, due_at=now + resend_delay_s(resends, resend_after_s))


def misdelivered(record: Record, *, step: int, now: float) -> Record | None:
    """The wake-up reached a worker that does not know the task: soon again, for another to take it.

    Sooner than if it were lost, and yet further and further apart: in all, the wait is at most about twice as long as
    there are such workers.
    """
    if record.until != "start" or record.step != step or record.ending:
        return None
    again_at = now + resend_delay_s(record.resends, MISDELIVERED_S)
    return replace(record, due_at=again_at if record.due_at is None else min(again_at, record.due_at))


def reclaim(record: Record, *, now: float, max_lost_runs: int, node: str | None = None) -> Record | None:
    """The run died: its lease has ended, or its own worker (``node``) saw it die. A wake-up is due at once.

    Not after ``max_lost_runs`` in a row: what becomes of it then, the routes say (`failures.lose`).
    """
    if not is_lost(record, now, node) or record.lost_runs >= max_lost_runs:
        return None
    return move_to(record, "start", now, lost_runs=record.lost_runs + 1, run_id=None)


def is_lost(record: Record, now: float, node: str | None = None) -> bool:
    """Whether the run that holds the record has died."""
    if record.until not in ("running", "replacing") or record.due_at is None:
        return False
    return record.due_at <= now or (node is not None and record.run_node == node and record.until == "running")


def revoke(record: Record, *, reason: Ending, now: float) -> Record | None:
    """Somebody revoked the task, or it expired. What waits is ended by the watcher; what runs, when it next waits."""
    if record.ending or record.until not in (*WAITING, "running"):
        return None
    if record.until == "running":
        return replace(record, ending=reason)
    return move_to(record, record.until, now, ending=reason)


def redo(
    record: Record,
    *,
    run_id: str | None,
    task: str,
    call: str,
    digest: str,
    due_at: float,
    at_once: bool,
    account: str | None = None,
) -> Record | None:
    """The running run published itself again (``retry()``), or what replaces it arrived (``replace()``).

    A retry is the same piece of work: it keeps its account, its bytes, its job and its outcome. A replacement is
    another one; its ``account`` is the one that it names, else the same.
    """
    until: Until = "start" if at_once else "instant"
    if record.until == "replacing":
        fresh = Record(id=record.id, task=task, call=call, digest=digest)
        anew = {name: getattr(fresh, name) for name in _OF_AN_ATTEMPT}
        anew |= {"attempt": record.attempt + 1, "budget_from": record.attempt + 1, "key": record.key + 1}
        anew["account"] = account or record.account
        return move_to(record, until, due_at, task=task, call=call, digest=digest, run_id=None, **anew)
    if run_id is None or not is_run(record, run_id):
        return None
    anew = {"run_id": None, "lost_runs": 0, "retry_queue": None}  # not another attempt: back to the task's own queue
    return move_to(record, until, due_at, task=task, call=call, digest=digest, **anew)


def start_replacing(record: Record, *, run_id: str, now: float, lease_s: float) -> Record | None:
    """``replace()``: another signature takes over the id, now or later, here or on another worker."""
    return move_to(record, "replacing", now + lease_s, run_id=None) if is_run(record, run_id) else None


def end_replacing(record: Record) -> Record | None:
    """The replacement is published: the body is not run again."""
    return replace(record, due_at=None) if record.until == "replacing" else None


def finish(
    record: Record, *, run_id: str | None, now: float, node: str | None = None, step: int | None = None
) -> Record | None:
    """The end: told by the run itself, or by its worker (``node``) that killed it for its time limit.

    The limit may come before the run has begun, or when it has just said what the record waits for: then ``step``, the
    message's, says that it is this one which failed.
    A tombstone stays behind, without the signature, the bytes and the job. A dead letter keeps them.
    """
    if record.until == "running":
        is_its_own = record.run_id == run_id if run_id is not None else record.run_node == node
    else:
        is_unbegun = record.until == "start" and record.step == step
        waits_already = record.until in WAITING and step is not None and record.step == step + 2
        is_its_own = run_id is None and (is_unbegun or (waits_already and record.run_node == node))
    if not is_its_own:
        return None
    if record.letter is not None and not record.ending:
        return move_to(record, "dead", now, run_id=None, finished_at=now, letter={**record.letter, "at": now})
    return bury(record, now)


def put_off(record: Record, *, step: int, until_at: float) -> Record | None:
    """Whoever was to move it on stumbled over it: the same again, later. A lease that has ended stays ended."""
    if record.step != step or record.due_at is None or record.until == "slot":
        return None
    return replace(record, due_at=max(record.due_at, until_at))


def try_to_end(record: Record, *, now: float) -> Record | None:
    """Somebody sets out to end what was revoked or has expired; if nothing comes of it, somebody does again."""
    return replace(record, due_at=now + END_AGAIN_S) if record.ending and record.until in WAITING else None


def end(record: Record, *, now: float) -> Record | None:
    """What was revoked or has expired is over: the job is cancelled, the state and the event are out."""
    return bury(record, now) if record.ending and record.until in WAITING else None


def bury(record: Record, now: float) -> Record:
    return move_to(record, "done", None, run_id=None, call="", request=None, job=None, trace=None, finished_at=now)
