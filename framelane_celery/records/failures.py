"""What becomes of a failure: the transitions that carry out what the route table (`framelane_celery.routing`) decides.

One attempt has one idempotency key and one set of bytes. A new attempt, or the same one after a plain refusal, gets new
ones; but while a POST may have made a job that nobody has seen, key and bytes stay, whatever is decided.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from framelane_celery.records.record import JobKind, Outcome, Record
from framelane_celery.records.transitions import bury, history_entry, is_lost, is_run, move_to, resend_delay_s, to_slot
from framelane_celery.routing import DeadLetter, Decision, Hold, Retry


def fail(
    record: Record,
    *,
    outcome: Outcome,
    failure: dict[str, Any],
    decision: Decision,
    now: float,
    resend_after_s: float,
    job: dict[str, Any] | None = None,
    run_id: str | None = None,
    is_refused: bool = True,
) -> Record | None:
    """Carry out a decision: about a job that ended (from ``job``), about a submission that was refused (by its run), or
    about what has been on hold for as long as it may.

    ``failure``: {"code", "message"} and, of an HTTP refusal, "status". ``is_refused`` False: an earlier POST of this
    attempt went unanswered, so a job may exist under its key.
    """
    is_held = record.until == "release" and record.letter is None
    if record.ending and run_id is None:
        return None
    if not (is_run(record, run_id) if run_id is not None else record.until == "job" or is_held):
        return None
    had_job = record.until == "job"
    entry = history_entry(record, outcome, now, failure)
    record = replace(record, failure=failure, job=record.job if job is None else job)
    if isinstance(decision, Retry):
        record = replace(record, history=(*record.history, entry))
        waits = _next_attempt(record, new_key=had_job or is_refused)
        return move_to(record, "instant", now + decision.wait_s, **waits, retry_queue=decision.queue, run_id=None)
    if isinstance(decision, Hold):
        if had_job:
            record = replace(record, history=(*record.history, entry), **_next_attempt(record, new_key=True))
        elif is_refused:
            record = replace(record, **_new_key(record))
        return _hold(record, now, decision.max_s, run_id=None)
    record = replace(record, outcome=outcome, history=(*record.history, entry))
    if not had_job and is_refused:
        record = replace(record, **_new_key(record))
    if isinstance(decision, DeadLetter):
        record = replace(record, letter=_letter(decision, now))
        if decision.keep_waiting:
            return move_to(record, "release", now, run_id=None)
    if run_id is not None:  # the run raises the error now, and its end tells the rest
        return record
    return move_to(record, "start", now + resend_after_s)


def lose(
    record: Record,
    *,
    failure: dict[str, Any],
    decision: Decision,
    now: float,
    max_lost_runs: int,
    node: str | None = None,
) -> Record | None:
    """Too many runs in a row have died (`transitions.reclaim` gave up).

    A next run says so. If that dies as often again, nothing is run any more: then it is a dead letter, whatever the
    routes say, for nobody was told. What was revoked meanwhile is ended by the watcher.
    """
    if not is_lost(record, now, node) or record.lost_runs < max_lost_runs:
        return None
    if record.ending:
        return move_to(record, "start", now, run_id=None)
    if record.outcome == "worker_lost":
        letter = record.letter or _letter(DeadLetter(None, False, {"code": "worker_lost"}), now)
        return move_to(record, "dead", now, run_id=None, finished_at=now, letter={**letter, "at": now})
    entry = history_entry(record, "worker_lost", now, failure)
    lost = replace(record, failure=failure, history=(*record.history, entry), lost_runs=0, run_id=None)
    if isinstance(decision, Retry):
        # A verdict, or a job, is not given up: a new attempt only if nothing was ever posted. It counts all the same.
        if record.outcome:
            again = {"budget_from": record.budget_from - 1, "failure": record.failure}
        elif record.job_id or record.request:
            again = {"budget_from": record.budget_from - 1}
        else:
            again = _next_attempt(record, new_key=True)
        return move_to(lost, "instant", now + decision.wait_s, **again, retry_queue=decision.queue)
    lost = replace(lost, outcome="worker_lost", lost_runs=1)
    if isinstance(decision, DeadLetter):
        lost = replace(lost, letter=_letter(decision, now))
        if decision.keep_waiting:
            return move_to(lost, "release", now)
    return move_to(lost, "start", now)


def _next_attempt(record: Record, *, new_key: bool) -> dict[str, Any]:
    """The fields of the attempt that comes after this one."""
    return {
        "attempt": record.attempt + 1,
        "job_id": None,
        "job": None,
        "accepted_at": None,
        "deadline_at": None,
        "outcome": None,
        "pauses": 0,
        "lost_runs": 0,
        "queued_at": None,
        "held_at": None,
        **(_new_key(record) if new_key else {}),
    }


def _new_key(record: Record) -> dict[str, Any]:
    return {"key": record.key + 1, "key_id": None, "request": None, "first_post_at": None}


def _letter(decision: DeadLetter, now: float) -> dict[str, Any]:
    return {
        "at": now,
        "queue": decision.queue,
        "route": dict(decision.route),
        "keep_waiting": decision.keep_waiting,
        "announced": False,
    }


# --- on hold -----------------------------------------------------------------------------------------------------


def _hold(record: Record, now: float, max_s: float | None, **changes: Any) -> Record:
    held_at = record.held_at if record.held_at is not None else now
    return move_to(record, "release", held_at + (max_s or 0.0), held_at=held_at, retry_queue=None, pauses=0, **changes)


def join_hold(
    record: Record,
    *,
    step: int,
    kind: JobKind,
    failure: dict[str, Any],
    max_s: float,
    now: float,
    bucket: str | None = None,
) -> Record | None:
    """The account is on hold: wait with the others, without a POST. At most ``max_s``. ``bucket`` as in `begin`."""
    if record.until != "start" or record.step != step or record.ending or record.outcome:
        return None
    held = replace(record, failure=failure, bucket=bucket)
    return _hold(held, now, max_s, job_kind=record.job_kind or kind)


def release(record: Record, *, now: float) -> Record | None:
    """The hold is over: queue for a slot, in the order in which they were held."""
    if record.until != "release" or record.letter is not None or record.ending:
        return None
    queued_at = record.queued_at if record.queued_at is not None else record.held_at or now
    return to_slot(record, queued_at, failure=None)


# --- dead letters ------------------------------------------------------------------------------------------------


def announce(record: Record, *, now: float, resend_after_s: float) -> Record | None:
    """Somebody sets out to send the letter's message; if nothing comes of it, somebody does again."""
    if not record.is_letter or record.ending or (record.letter or {}).get("announced"):
        return None
    resends = record.resends + 1
    return replace(record, resends=resends, due_at=now + resend_delay_s(resends, resend_after_s))


def announced(record: Record, *, step: int) -> Record | None:
    """The broker has the letter's message."""
    if not record.is_letter or record.ending or record.step != step or record.letter is None:
        return None
    return replace(record, letter={**record.letter, "announced": True}, due_at=record.letter["at"])


def replay(record: Record, *, call: str, digest: str, now: float) -> Record | None:
    """A pipeline that is kept waiting goes on from this very step: a new attempt, queued for a slot."""
    if record.until != "release" or record.letter is None or record.ending:
        return None
    return _run_again(replace(record, call=call, digest=digest), now)


def start_replay(record: Record, *, now: float) -> Record | None:
    """Somebody sets out to replay a dead letter under a new id."""
    if record.until != "dead" or record.letter is None or "replaying_at" in record.letter:
        return None
    return replace(record, letter={**record.letter, "replaying_at": now})


def replay_as(record: Record, *, id: str, call: str, digest: str, now: float) -> Record | None:
    """A new record, for a letter whose task has failed. `put_away` the letter once it is written."""
    if record.until != "dead":
        return None
    fresh = replace(
        record, id=id, call=call, digest=digest, version=0, created_at=now, expires_at=None, finished_at=None
    )
    again = _run_again(fresh, now)
    is_same_key = again.key == record.key and again.request is not None
    return replace(again, step=0, key_id=(record.key_id or record.id) if is_same_key else None)


def has_open_post(record: Record) -> bool:
    """Whether a POST of a letter was never answered, so that its next one must have the same key and bytes. But if that
    is what the operator was told (``outcome_unknown``), a replay is a new submission."""
    is_open = record.first_post_at is not None and record.job_id is None
    return is_open and record.outcome != "outcome_unknown"


def _run_again(record: Record, now: float) -> Record:
    """A new attempt with a budget of its own. But a job that has completed is not paid for again, and what was posted
    and never answered keeps its key."""
    is_open = has_open_post(record)
    record = replace(record, letter=None, failure=None, reported_at=None, retry_queue=None, replays=record.replays + 1)
    if (record.job or {}).get("status") == "completed":
        return move_to(record, "start", now, outcome="completed", lost_runs=0)
    attempt = _next_attempt(record, new_key=not is_open)
    if record.job_kind is None:  # nothing was submitted yet, or ever is: `begin` asks for a slot, if one is needed
        return move_to(record, "start", now, **{**attempt, "budget_from": record.attempt + 1})
    return to_slot(record, now, **{**attempt, "budget_from": record.attempt + 1})


def put_away(record: Record, *, now: float, replayed_as: str | None = None) -> Record | None:
    """A dead letter is done with: it was replayed, or discarded."""
    if record.until != "dead":
        return None
    return replace(bury(record, now), letter={**(record.letter or {}), "replayed_as": replayed_as})


def restore(record: Record, *, letter: Record) -> Record | None:
    """A letter comes back from an export. Not over one that was replayed (it is done, or under way) or revoked."""
    if record.until != "done" or record.ending or record.outcome == "completed":
        return None
    if (record.letter or {}).get("replayed_as"):
        return None
    return replace(letter, version=record.version, step=record.step + 1)


def discard(record: Record, *, now: float) -> Record | None:
    """Throw a letter away. A pipeline that was kept waiting fails now."""
    if record.until == "release" and record.letter is not None and not record.ending:
        outcome = record.outcome or "failed"
        return move_to(record, "start", now, letter=None, retry_queue=None, outcome=outcome)
    return put_away(record, now=now)
