"""The record: the truth about one Celery task of ours, and the pure transitions that move it on.

A transition takes a record and says what it becomes, or ``None``: "not from this state". Nothing here does I/O, so
every pair of state and transition is tested without a store. The room saves what a transition answers with one
compare-and-set on ``version``; so each transition is atomic, and checks the state that it comes from.

``step`` is what messages carry. It is raised whenever the record starts to wait for something else, so a wake-up that
is late, doubled or replayed does not fit any more and is dropped. ``version`` is raised by every write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal
from uuid import NAMESPACE_URL, uuid5

from framelane_celery.errors import FramelaneError

FORMAT: Final = 1
"""Version of the record's own shape. A record with a newer one is left alone, never dropped."""

Until = Literal["start", "slot", "job", "instant", "release", "running", "replacing", "dead", "done"]
JobKind = Literal["render", "task"]
Ending = Literal["revoked", "expired"]
Outcome = Literal["completed", "failed", "cancelled", "timed_out", "not_found", "outcome_unknown", "worker_lost"]

WAITING: Final[frozenset[str]] = frozenset({"start", "slot", "job", "instant", "release"})
"""States in which nothing runs: the record waits for a message, a slot, a job, the clock or an operator."""

KEY_LIFE_S: Final = 24 * 3600
"""How long Framelane keeps an idempotency key (framelane_api.md §9)."""

RESEND_MAX_S: Final = 3600.0

END_AGAIN_S: Final = 30.0
"""How long the ending of a revoked task may take before it is tried again."""


class ForeignRecord(FramelaneError):
    """A record that another version of framelane_celery wrote: this one leaves it alone."""


@dataclass(frozen=True, slots=True)
class Record:
    """One Celery task of ours. Instants are epoch seconds of the room's clock.

    ``call`` is the saved signature and ``request`` the saved bytes, both as JSON text: they are parsed only where they
    are needed, so that a sweep over 100,000 records does not pay for them.
    """

    id: str
    task: str
    call: str
    digest: str
    until: Until = "start"
    step: int = 0
    version: int = 0
    due_at: float | None = None
    account: str = "default"
    created_at: float = 0.0
    expires_at: float | None = None
    # The run that holds the lease; `due_at` is the end of the lease then.
    run_id: str | None = None
    run_node: str | None = None
    begun: bool = False
    resends: int = 0
    lost_runs: int = 0
    # The attempt: one job submitted on behalf of the task.
    attempt: int = 1
    request: str | None = None
    first_post_at: float | None = None
    pauses: int = 0
    queued_at: float | None = None
    job_id: str | None = None
    job_kind: JobKind | None = None
    job: dict[str, Any] | None = None
    accepted_at: float | None = None
    deadline_at: float | None = None
    reported_at: float | None = None
    # How it ends.
    outcome: Outcome | None = None
    ending: Ending | None = None
    finished_at: float | None = None
    history: tuple[dict[str, Any], ...] = ()

    @property
    def lane(self) -> str | None:
        """The sorted set, by ``due_at``, in which the watcher finds the record; None: nobody has to look."""
        if self.due_at is None:
            return None
        if self.until == "job" and not self.ending:
            return "look"
        if self.until == "slot" and not self.ending:
            return f"slot:{self.job_kind or 'render'}"
        return "clock"

    @property
    def is_over(self) -> bool:
        return self.until in ("done", "dead")

    def idempotency_key(self, namespace: str) -> str:
        """The key of this attempt: the same for every POST of it, in whatever process."""
        return str(uuid5(NAMESPACE_URL, json.dumps(["framelane", namespace, self.id, self.attempt])))


# --- on the shelf ------------------------------------------------------------------------------------------------

_TEXTS = ("call", "request")
_COLUMNS = ("id", "until", "step", "version", "due_at")
_STATE = tuple(f.name for f in fields(Record) if f.name not in (*_TEXTS, *_COLUMNS))
_DEFAULTS = {f.name: f.default for f in fields(Record)}


def dump_state(record: Record) -> str:
    """The part of a record that changes often, as JSON text; the id, texts and columns are stored beside it."""
    state = {name: value for name in _STATE if (value := getattr(record, name)) != _DEFAULTS[name]}
    return json.dumps({"format": FORMAT, **state}, separators=(",", ":"))


def load_record(
    *, id: str, until: Until, step: int, version: int, due_at: float | None, call: str, request: str | None, state: str
) -> Record:
    """Rebuild a record from what the room stored.

    Raises: ForeignRecord, if it is of a newer format or not a record of ours.
    """
    try:
        known = json.loads(state)
        if int(known.pop("format")) > FORMAT:
            raise ForeignRecord(f"record {id} was written by a newer framelane_celery: upgrade this worker")
        known["history"] = tuple(known.get("history", ()))
        return Record(
            id=id, until=until, step=int(step), version=int(version), due_at=due_at, call=call, request=request, **known
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ForeignRecord(f"record {id} is not one of framelane_celery's, or of another version") from error


# --- transitions -------------------------------------------------------------------------------------------------


def _move(record: Record, until: Until, due_at: float | None, **changes: Any) -> Record:
    """Wait for something else: a new step, so that every message of the old one is stale.

    What was revoked while it ran never waits again: the watcher ends it at once.
    """
    if record.ending and until in WAITING:
        due_at = 0.0
    return replace(record, until=until, step=record.step + 1, due_at=due_at, resends=0, **changes)


def _is_run(record: Record, run_id: str) -> bool:
    return record.until == "running" and record.run_id == run_id


def resend_delay_s(resends: int, first_s: float) -> float:
    """How long a wake-up may stay unanswered before the next one: doubling, at most an hour."""
    return min(RESEND_MAX_S, first_s * 2.0 ** min(resends, 12))


def begin(record: Record, *, step: int, run_id: str, node: str | None, now: float, lease_s: float) -> Record | None:
    """A worker takes the record: only the message of this very step does, and only once."""
    if record.until != "start" or record.step != step or record.ending:
        return None
    return _move(record, "running", now + lease_s, run_id=run_id, run_node=node, begun=True)


def is_expired(record: Record, now: float) -> bool:
    """``expires`` means "start before": the first begin fulfils it, whatever comes later."""
    return not record.begun and record.expires_at is not None and now > record.expires_at


def queue(record: Record, *, step: int, kind: JobKind, now: float) -> Record | None:
    """No slot is free: join the queue, or go back to the old place in it."""
    if record.until != "start" or record.step != step or record.ending:
        return None
    queued_at = record.queued_at if record.queued_at is not None else now
    return _move(record, "slot", queued_at, queued_at=queued_at, job_kind=kind)


def hold_lease(record: Record, *, run_id: str, now: float, lease_s: float) -> Record | None:
    """The run asks "am I still the one?" and has a whole lease again if so."""
    return replace(record, due_at=now + lease_s) if _is_run(record, run_id) else None


def renew(record: Record, *, node: str, now: float, lease_s: float) -> Record | None:
    """The worker's main process says that the run is alive. A lease that has ended is not called back."""
    if record.until != "running" or record.run_node != node or record.due_at is None or record.due_at <= now:
        return None
    return replace(record, due_at=now + lease_s)


def prepare(record: Record, *, run_id: str, request: str, kind: JobKind, now: float) -> Record | None:
    """The bytes of this attempt, before the first POST; from here on they are the only ones."""
    if not _is_run(record, run_id) or record.request is not None:
        return None
    return replace(record, request=request, job_kind=kind, first_post_at=now)


def accept(
    record: Record, *, run_id: str, job: dict[str, Any], kind: JobKind, now: float, deadline_s: float
) -> Record | None:
    """The job is accepted: wait for it, the first look is due at once. The deadline runs from here."""
    if not _is_run(record, run_id):
        return None
    return _move(
        record,
        "job",
        now,
        job=job,
        job_id=str(job["id"]),
        job_kind=kind,
        accepted_at=now,
        deadline_at=now + deadline_s,
        reported_at=now,
        lost_runs=0,
        pauses=0,
        queued_at=None,
    )


def pause(record: Record, *, run_id: str, at: float) -> Record | None:
    """The POST was not answered, or was refused for now: the same bytes and key again at that instant."""
    if not _is_run(record, run_id):
        return None
    return _move(record, "instant", at, pauses=record.pauses + 1, queued_at=None)


def looked(
    record: Record, *, job: dict[str, Any] | None, next_look_at: float, reported_at: float | None = None
) -> Record | None:
    """A look that found the job unfinished (or, with ``job`` None, could not read it)."""
    if record.until != "job" or record.ending:
        return None
    return replace(
        record,
        job=record.job if job is None else job,
        due_at=next_look_at,
        reported_at=record.reported_at if reported_at is None else reported_at,
    )


def hinted(record: Record, *, now: float) -> Record | None:
    """News that the job may have ended: look now. It says when to look, never what happened."""
    if record.until != "job" or record.ending:
        return None
    return replace(record, due_at=min(now, record.due_at or now))


def decide(
    record: Record, *, outcome: Outcome, job: dict[str, Any] | None, now: float, resend_after_s: float
) -> Record | None:
    """The job is over: the task is woken with this outcome."""
    if record.until != "job" or record.ending:
        return None
    job = record.job if job is None else job
    entry = {"attempt": record.attempt, "job_id": record.job_id, "outcome": outcome, "at": now}
    if job and job.get("error"):
        entry["code"] = job["error"].get("code")
    return _move(record, "start", now + resend_after_s, outcome=outcome, job=job, history=(*record.history, entry))


def wake(record: Record, *, now: float, resend_after_s: float) -> Record | None:
    """What waited for the clock or for a slot is due."""
    if record.until not in ("instant", "slot") or record.ending:
        return None
    return _move(record, "start", now + resend_after_s)


def resend(record: Record, *, now: float, resend_after_s: float) -> Record | None:
    """The wake-up was not answered: the same one again, with the same step, further and further apart."""
    if record.until != "start" or record.ending:
        return None
    resends = record.resends + 1
    return replace(record, resends=resends, due_at=now + resend_delay_s(resends, resend_after_s))


def reclaim(record: Record, *, now: float, max_lost_runs: int, node: str | None = None) -> Record | None:
    """The run died: its lease has ended, or its own worker (``node``) saw it die. A wake-up is due at once.

    After ``max_lost_runs`` in a row the outcome is ``worker_lost``, and a next run only says so. After as many more
    nothing is run any more.
    """
    if record.until not in ("running", "replacing") or record.due_at is None:
        return None
    if record.due_at > now and (node is None or record.run_node != node or record.until != "running"):
        return None
    lost = record.lost_runs + 1
    if lost <= max_lost_runs:
        return _move(record, "start", now, lost_runs=lost, run_id=None)
    entry = {"attempt": record.attempt, "job_id": record.job_id, "outcome": "worker_lost", "at": now}
    if record.outcome == "worker_lost":
        return _move(record, "dead", None, run_id=None, finished_at=now)
    return _move(
        record,
        "start",
        now,
        lost_runs=1,
        run_id=None,
        outcome="worker_lost",
        history=(*record.history, entry),
    )


def revoke(record: Record, *, reason: Ending, now: float) -> Record | None:
    """Somebody revoked the task, or it expired. What waits is ended by the watcher; what runs, when it next waits."""
    if record.ending or record.until not in (*WAITING, "running"):
        return None
    if record.until == "running":
        return replace(record, ending=reason)
    return _move(record, record.until, now, ending=reason)


def redo(
    record: Record, *, run_id: str | None, task: str, call: str, digest: str, due_at: float, at_once: bool
) -> Record | None:
    """The running run published itself again (``retry()``), or what replaces it arrived (``replace()``).

    A retry is the same piece of work: it keeps its bytes, its job and its outcome. A replacement is another one.
    """
    until: Until = "start" if at_once else "instant"
    if record.until == "replacing":
        fresh = Record(id=record.id, task=task, call=call, digest=digest)
        kept = {
            name: getattr(fresh, name) for name in ("request", "first_post_at", "job_id", "job_kind", "job", "outcome")
        }
        return _move(
            record, until, due_at, task=task, call=call, digest=digest, attempt=record.attempt + 1, run_id=None, **kept
        )
    if run_id is None or not _is_run(record, run_id):
        return None
    return _move(record, until, due_at, task=task, call=call, digest=digest, run_id=None, lost_runs=0)


def start_replacing(record: Record, *, run_id: str, now: float, lease_s: float) -> Record | None:
    """``replace()``: another signature takes over the id, now or later, here or on another worker."""
    return _move(record, "replacing", now + lease_s, run_id=None) if _is_run(record, run_id) else None


def end_replacing(record: Record) -> Record | None:
    """The replacement is published: the body is not run again."""
    return replace(record, due_at=None) if record.until == "replacing" else None


def finish(
    record: Record, *, run_id: str | None, now: float, node: str | None = None, step: int | None = None
) -> Record | None:
    """The end: told by the run itself, or by its worker (``node``) that killed it for its time limit.

    The limit may come before the run has begun: then ``step``, the message's, says that it is this one which failed.
    A tombstone stays behind, without the signature, the bytes and the job. What failed for want of a living worker
    keeps them: it is a dead letter.
    """
    if record.until == "start" and run_id is None and record.step == step:
        return _bury(record, now)
    if record.until != "running":
        return None
    if record.run_id != run_id if run_id is not None else record.run_node != node:
        return None
    if record.outcome == "worker_lost":
        return _move(record, "dead", None, run_id=None, finished_at=now)
    return _bury(record, now)


def try_to_end(record: Record, *, now: float) -> Record | None:
    """Somebody sets out to end what was revoked or has expired; if nothing comes of it, somebody does again."""
    return replace(record, due_at=now + END_AGAIN_S) if record.ending and record.until in WAITING else None


def end(record: Record, *, now: float) -> Record | None:
    """What was revoked or has expired is over: the job is cancelled, the state and the event are out."""
    return _bury(record, now) if record.ending and record.until in WAITING else None


def _bury(record: Record, now: float) -> Record:
    return _move(record, "done", None, run_id=None, call="", request=None, job=None, finished_at=now)
