"""The record's transitions: every pair of state and transition from one table, then what holds in every history."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import fields, replace
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelane_celery import records
from framelane_celery.records import WAITING, ForeignRecord, Record, dump_state, load_record
from framelane_celery.records.transitions import END_AGAIN_S
from framelane_celery.routing import DeadLetter, Decision, Fail, Hold, Retry

NOW = 1_000_000.0
FRESH = Record(
    id="task-1", task="framelane.render", call='{"args":[]}', digest="d", due_at=NOW + 60, created_at=NOW, step=5
)
JOB = {"id": "render_1", "status": "processing"}
FAILURE = {"code": "internal", "message": "it broke"}
LETTER = {"at": NOW - 9, "queue": "n.dead", "route": {"code": "*"}, "keep_waiting": False, "announced": False}
TOLD = {**LETTER, "announced": True}
DECISIONS: dict[str, Decision] = {
    "retry": Retry(30.0, "renders.retry"),
    "hold": Hold(600.0),
    "dead letter": DeadLetter("n.dead", False, {"code": "*", "action": "dead_letter"}),
    "kept waiting": DeadLetter("n.dead", True, {"code": "*", "action": "dead_letter"}),
    "fail": Fail(),
}


def in_state(**values: Any) -> Record:
    return replace(FRESH, **values)


def run(**values: Any) -> Record:
    return in_state(until="running", due_at=NOW + 30, run_id="run", run_node="node", begun=True, **values)


def failed(**values: Any) -> dict[str, Any]:
    return {"outcome": "failed", "failure": FAILURE, "request": "{}", "job_id": "render_1", **values}


STATES = {
    "start": FRESH,
    "start, with an outcome": in_state(begun=True, **failed()),
    "start, with a letter": in_state(begun=True, **failed(letter=LETTER)),  # whose run died before it was told
    "slot": in_state(until="slot", queued_at=NOW - 9, due_at=NOW - 9, job_kind="render"),
    "job": in_state(until="job", job=JOB, job_id="render_1", job_kind="render", due_at=NOW + 20, request="{}"),
    "instant": in_state(until="instant"),
    "held": in_state(until="release", held_at=NOW - 9, due_at=NOW + 600, failure=FAILURE),
    "kept waiting, new": in_state(until="release", due_at=NOW, **failed(letter=LETTER)),
    "kept waiting": in_state(until="release", due_at=NOW, **failed(letter=TOLD)),
    "running": run(),
    "run, lease over": replace(run(), due_at=NOW - 1),
    "run, posted": run(request="{}"),
    "run, with an outcome": run(**failed()),
    "run, with a letter": run(**failed(letter=LETTER)),
    "run, lost too often": replace(run(lost_runs=3), due_at=NOW - 1),
    "run, lost again": replace(run(lost_runs=3, outcome="worker_lost", failure=FAILURE), due_at=NOW - 1),
    "replacing": in_state(until="replacing", due_at=NOW + 30),
    "replacing, lease over": in_state(until="replacing", due_at=NOW - 1),
    "replaced": in_state(until="replacing", due_at=None),
    "dead, new": in_state(until="dead", due_at=NOW, **failed(letter=LETTER)),
    "dead": in_state(until="dead", due_at=NOW, **failed(letter=TOLD)),
    "done": in_state(until="done", due_at=None, call="", outcome="completed"),
    "done, discarded": in_state(until="done", due_at=None, call="", letter={**TOLD, "replayed_as": None}),
    "done, replayed": in_state(until="done", due_at=None, call="", letter={**TOLD, "replayed_as": "task-2"}),
    "done, was revoked": in_state(until="done", due_at=None, call="", letter=TOLD, ending="revoked"),
}
REVOKED = {
    f"{name}, revoked": replace(record, ending="revoked", due_at=0.0 if record.until in WAITING else record.due_at)
    for name, record in STATES.items()
    if record.until not in ("dead", "done") and name != "replaced"
}
STATES |= REVOKED

TRANSITIONS: dict[str, Callable[[Record], Record | None]] = {
    "begin": lambda r: records.begin(r, step=r.step, run_id="run", node="node", now=NOW, lease_s=60),
    "queue": lambda r: records.queue(r, step=r.step, kind="render", now=NOW),
    "hold_lease": lambda r: records.hold_lease(r, run_id="run", now=NOW, lease_s=60),
    "renew": lambda r: records.renew(r, node="node", now=NOW, lease_s=60),
    "prepare": lambda r: records.prepare(r, run_id="run", request="{}", kind="render", now=NOW),
    "accept": lambda r: records.accept(r, run_id="run", job=JOB, kind="render", now=NOW, deadline_s=600),
    "pause": lambda r: records.pause(r, run_id="run", at=NOW + 5),
    "looked": lambda r: records.looked(r, job=JOB, reported_at=NOW),
    "hinted": lambda r: records.hinted(r, now=NOW),
    "complete": lambda r: records.complete(r, job=JOB, now=NOW, resend_after_s=60),
    "join_hold": lambda r: records.join_hold(r, step=r.step, kind="render", failure=FAILURE, max_s=600, now=NOW),
    "release": lambda r: records.release(r, now=NOW),
    "announce": lambda r: records.announce(r, now=NOW, resend_after_s=60),
    "announced": lambda r: records.announced(r, step=r.step),
    "replay": lambda r: records.replay(r, call="{}", digest="e", now=NOW),
    "replay_as": lambda r: records.replay_as(r, id="task-2", call="{}", digest="e", now=NOW),
    "put_away": lambda r: records.put_away(r, now=NOW, replayed_as="task-2"),
    "restore": lambda r: records.restore(r, letter=STATES["dead, new"]),
    "discard": lambda r: records.discard(r, now=NOW),
    "wake": lambda r: records.wake(r, now=NOW, resend_after_s=60),
    "resend": lambda r: records.resend(r, now=NOW, resend_after_s=60),
    "misdelivered": lambda r: records.misdelivered(r, step=r.step, now=NOW),
    "reclaim": lambda r: records.reclaim(r, now=NOW, max_lost_runs=3),
    "reclaim by its node": lambda r: records.reclaim(r, now=NOW, max_lost_runs=3, node="node"),
    "revoke": lambda r: records.revoke(r, reason="revoked", now=NOW),
    "redo by the run": lambda r: records.redo(
        r, run_id="run", task="t2", call="{}", digest="e", due_at=NOW + 9, at_once=True
    ),
    "redo by a message": lambda r: records.redo(
        r, run_id=None, task="t2", call="{}", digest="e", due_at=NOW + 9, at_once=False
    ),
    "start_replacing": lambda r: records.start_replacing(r, run_id="run", now=NOW, lease_s=60),
    "end_replacing": lambda r: records.end_replacing(r),
    "finish": lambda r: records.finish(r, run_id="run", now=NOW),
    "finish by its node": lambda r: records.finish(r, run_id=None, node="node", now=NOW),
    "finish by its step": lambda r: records.finish(r, run_id=None, node="node", step=r.step, now=NOW),
    "finish by its step, two on": lambda r: records.finish(r, run_id=None, node="node", step=r.step - 2, now=NOW),
    "open_post": lambda r: records.open_post(r, run_id="run", now=NOW),
    "put_off": lambda r: records.put_off(r, step=r.step, until_at=NOW + 9),
    "start_replay": lambda r: records.start_replay(r, now=NOW),
    "try_to_end": lambda r: records.try_to_end(r, now=NOW),
    "end": lambda r: records.end(r, now=NOW),
}


def failing(decision: Decision, run_id: str | None) -> Callable[[Record], Record | None]:
    return lambda r: records.fail(
        r, outcome="failed", failure=FAILURE, decision=decision, now=NOW, resend_after_s=60, run_id=run_id
    )


def losing(decision: Decision, node: str | None = None) -> Callable[[Record], Record | None]:
    return lambda r: records.lose(r, failure=FAILURE, decision=decision, now=NOW, max_lost_runs=3, node=node)


TRANSITIONS |= {f"fail by the watcher: {name}": failing(decision, None) for name, decision in DECISIONS.items()}
TRANSITIONS |= {f"fail by the run: {name}": failing(decision, "run") for name, decision in DECISIONS.items()}
TRANSITIONS |= {f"lose by the lease: {name}": losing(decision) for name, decision in DECISIONS.items()}
TRANSITIONS |= {f"lose by its node: {name}": losing(decision, "node") for name, decision in DECISIONS.items()}

STARTS = {"start", "start, with an outcome", "start, with a letter"}
KEPT = {"kept waiting, new", "kept waiting"}
WAITS = {*STARTS, *KEPT, "slot", "job", "instant", "held"}
LOST = {"run, lost too often", "run, lost again"}
OVER = {"run, lease over", *LOST}
RUNS = {"running", "run, posted", "run, with an outcome", "run, with a letter", *OVER}
DEAD = {"dead, new", "dead"}
REPLACES = {"replacing", "replacing, lease over", "replaced"}


def also_revoked(*names: str) -> set[str]:
    return {*names, *(revoked for name in names if (revoked := f"{name}, revoked") in STATES)}


# From which states each transition applies; from all others it gives None.
APPLIES: dict[str, set[str]] = {
    "begin": STARTS,
    "queue": STARTS,
    "hold_lease": also_revoked(*RUNS),
    "renew": also_revoked(*(RUNS - OVER)),  # a lease that is over is not called back
    "prepare": also_revoked("running", "run, lease over", *LOST),
    "accept": also_revoked(*RUNS),
    "pause": also_revoked(*RUNS),
    "looked": {"job"},
    "hinted": {"job"},
    "complete": {"job"},
    "join_hold": {"start"},
    "release": {"held"},
    "announce": {"kept waiting, new", "dead, new"},
    "announced": KEPT | DEAD,
    "replay": KEPT,
    "replay_as": DEAD,
    "put_away": DEAD,
    "restore": {"done, discarded"},
    "discard": KEPT | DEAD,
    "wake": {"instant", "slot"},
    "resend": STARTS,
    "misdelivered": STARTS,
    "reclaim": also_revoked("run, lease over", "replacing, lease over"),
    "reclaim by its node": also_revoked(*(RUNS - LOST), "replacing, lease over"),
    "revoke": WAITS | RUNS,
    "redo by the run": also_revoked(*RUNS, *REPLACES),
    "redo by a message": also_revoked(*REPLACES),
    "start_replacing": also_revoked(*RUNS),
    "end_replacing": also_revoked(*REPLACES),
    "finish": also_revoked(*RUNS),
    "finish by its node": also_revoked(*RUNS),
    "finish by its step": also_revoked(*STARTS, *RUNS),
    "finish by its step, two on": also_revoked(*RUNS),  # what waits here was begun on no node
    "open_post": also_revoked("run, posted"),
    "put_off": {name for name, r in STATES.items() if r.due_at is not None and r.until != "slot"},
    "start_replay": DEAD,
    "try_to_end": {f"{name}, revoked" for name in WAITS},
    "end": {f"{name}, revoked" for name in WAITS},
    **{f"fail by the watcher: {name}": {"job", "held"} for name in DECISIONS},
    **{f"fail by the run: {name}": also_revoked(*RUNS) for name in DECISIONS},
    **{f"lose by the lease: {name}": also_revoked(*LOST) for name in DECISIONS},
    **{f"lose by its node: {name}": also_revoked(*LOST) for name in DECISIONS},
}
KEEP_THE_STEP = {
    "hold_lease", "renew", "prepare", "looked", "hinted", "announce", "announced", "resend", "misdelivered",
    "end_replacing",
    "open_post", "put_off", "start_replay", "try_to_end",
    "fail by the run: dead letter", "fail by the run: fail",  # this very run tells it
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_every_pair_of_state_and_transition(state: str, transition: str) -> None:
    old = STATES[state]
    new = TRANSITIONS[transition](old)
    assert (new is not None) == (state in APPLIES[transition])
    if new is not None:
        keeps = transition in KEEP_THE_STEP or (transition == "revoke" and old.until == "running")
        steps = (old.step if keeps else old.step + 1) if transition != "replay_as" else 0  # a record of its own
        assert new.step == steps
        assert new.version == (old.version if transition != "replay_as" else 0)  # the room's business
        assert way_on(new) is not None


def way_on(record: Record) -> str | None:
    """What moves a record on, some day: a message, the watcher or an operator. None: nothing would, it is stuck."""
    if record.until == "done" or (record.until == "replacing" and record.due_at is None):  # over, or another's by now
        return "over"
    if record.lane is None:
        return None
    later = NOW + 1e6
    ways: dict[str, Record | None] = {
        "end": records.end(record, now=later),
        "begin": records.begin(record, step=record.step, run_id="r", node="n", now=later, lease_s=60),
        "wake": records.wake(record, now=later, resend_after_s=60),
        "complete": records.complete(record, job=JOB, now=later, resend_after_s=60),
        "release": records.release(record, now=later),
        "reclaim": records.reclaim(record, now=later, max_lost_runs=2),
        "lose": records.lose(record, failure=FAILURE, decision=Fail(), now=later, max_lost_runs=2),
        "replay": records.replay(record, call="{}", digest="e", now=later),
        "put_away": records.put_away(record, now=later),
    }
    fitting = [name for name, new in ways.items() if new is not None]
    assert len(fitting) < 2 or record.until == "start", fitting  # one thing at a time
    return fitting[0] if fitting else None


LANES = {
    "start": "clock", "start, with an outcome": "clock", "start, with a letter": "clock", "slot": "slot:render",
    "job": "look", "instant": "clock", "held": "hold:default", "kept waiting, new": "dead:new", "kept waiting": "dead",
    "running": "clock", "run, lease over": "clock", "run, posted": "clock", "run, with an outcome": "clock",
    "run, with a letter": "clock", "run, lost too often": "clock", "run, lost again": "clock", "replacing": "clock",
    "replacing, lease over": "clock", "replaced": None, "dead, new": "dead:new", "dead": "dead", "done": None,
    "done, discarded": None, "done, replayed": None, "done, was revoked": None, **dict.fromkeys(REVOKED, "clock"),
}  # fmt: skip


def test_the_lane_of_every_state() -> None:
    assert {name: record.lane for name, record in STATES.items()} == LANES
    assert in_state(until="slot").lane == "slot:render"
    assert in_state(until="slot", job_kind="task").lane == "slot:task"
    assert in_state(until="release", account="acme").lane == "hold:acme"


def test_letters_are_dead_or_kept_waiting_and_never_revoked() -> None:
    assert {name for name, record in STATES.items() if record.is_letter} == KEPT | DEAD
    assert {name for name, record in STATES.items() if record.is_over} == DEAD | {
        "done", "done, discarded", "done, replayed", "done, was revoked",
    }  # fmt: skip


# --- who may ---


@pytest.mark.parametrize("step", [0, 4, 6, 99])
def test_a_message_of_another_step_begins_nothing(step: int) -> None:
    assert records.begin(FRESH, step=step, run_id="run", node=None, now=NOW, lease_s=60) is None
    assert records.queue(FRESH, step=step, kind="render", now=NOW) is None
    assert records.join_hold(FRESH, step=step, kind="render", failure=FAILURE, max_s=60, now=NOW) is None
    for letter in (STATES["dead, new"], STATES["kept waiting, new"]):
        assert records.announced(letter, step=step) is None


OF_A_RUN = [
    "hold_lease", "prepare", "accept", "pause", "start_replacing", "finish", "redo by the run",
    *(f"fail by the run: {name}" for name in DECISIONS),
]  # fmt: skip


@pytest.mark.parametrize("transition", OF_A_RUN)
def test_only_the_run_that_holds_the_lease_may_go_on(transition: str) -> None:
    assert TRANSITIONS[transition](replace(run(), run_id="another")) is None


def test_another_node_neither_renews_nor_reclaims_nor_finishes() -> None:
    elsewhere = replace(run(), run_node="elsewhere")
    assert TRANSITIONS["renew"](elsewhere) is None
    assert TRANSITIONS["reclaim by its node"](elsewhere) is None
    assert TRANSITIONS["finish by its node"](elsewhere) is None
    assert TRANSITIONS["lose by its node: fail"](replace(elsewhere, lost_runs=3)) is None


@pytest.mark.parametrize("transition", OF_A_RUN)
def test_a_reclaimed_record_refuses_the_old_run(transition: str) -> None:
    reclaimed = records.reclaim(STATES["run, lease over"], now=NOW, max_lost_runs=3)
    assert reclaimed is not None
    assert TRANSITIONS[transition](reclaimed) is None
    begun = records.begin(reclaimed, step=reclaimed.step, run_id="new", node="node", now=NOW, lease_s=60)
    assert begun is not None
    assert TRANSITIONS[transition](begun) is None


# --- what each one does ---


def lost(record: Record, decision: Decision) -> Record:
    """Begin, die, and whatever follows."""
    begun = records.begin(record, step=record.step, run_id="run", node="n", now=NOW, lease_s=60)
    assert begun is not None
    again = records.reclaim(begun, now=NOW + 61, max_lost_runs=3)
    if again is None:
        again = records.lose(begun, failure=LOST_FAILURE, decision=decision, now=NOW + 61, max_lost_runs=3)
    assert again is not None
    return again


LOST_FAILURE = {"code": "worker_lost", "message": "every run of the task died"}


@pytest.mark.parametrize("name", ["dead letter", "fail"])
def test_lost_runs_in_a_row_end_as_a_dead_letter(name: str) -> None:
    """With whatever route: after the decision a run says so, and if that dies too, nobody was told."""
    record, told = FRESH, []
    while record.until == "start":
        record = lost(record, DECISIONS[name])
        told.append(record.outcome)
        assert len(told) < 20
    assert told == [None] * 3 + ["worker_lost"] * 4
    assert (record.until, record.lane, record.outcome) == ("dead", "dead:new", "worker_lost")
    assert record.call  # all that is needed to run it again
    assert [entry["outcome"] for entry in record.history] == ["worker_lost"]
    assert record.letter is not None
    assert record.letter["queue"] == ("n.dead" if name == "dead letter" else None)


def test_a_lost_task_may_be_kept_waiting() -> None:
    new = TRANSITIONS["lose by the lease: kept waiting"](STATES["run, lost too often"])
    assert new is not None
    assert (new.until, new.lane, new.outcome, new.run_id) == ("release", "dead:new", "worker_lost", None)


POSTED_LOST = replace(STATES["run, lost too often"], request="bytes", first_post_at=NOW - 9)
TOLD_LOST = replace(STATES["run, lost too often"], **failed(failure={"code": "cancelled"}, letter=LETTER))


@pytest.mark.parametrize(
    ("record", "attempt", "key", "posted", "outcome", "code"),
    [
        (STATES["run, lost too often"], 2, 2, None, None, "internal"),
        (POSTED_LOST, 1, 1, "bytes", None, "internal"),  # the POST may have made a job
        (TOLD_LOST, 1, 1, "{}", "failed", "cancelled"),  # the verdict stands
        (replace(TOLD_LOST, request=None, job_id=None, key=2), 1, 2, None, "failed", "cancelled"),
        (replace(TOLD_LOST, outcome="completed", failure=None, letter=None), 1, 1, "{}", "completed", None),
    ],
)
def test_a_lost_task_that_is_retried_gives_up_no_job_and_no_verdict(
    record: Record, attempt: int, key: int, posted: str | None, outcome: str | None, code: str | None
) -> None:
    new = TRANSITIONS["lose by the lease: retry"](record)
    assert new is not None
    assert (new.until, new.retry_queue, new.lost_runs, new.run_id) == ("instant", "renders.retry", 0, None)
    assert (new.attempt, new.key, new.request, new.outcome) == (attempt, key, posted, outcome)
    assert (new.failure or {}).get("code") == code
    assert new.letter == record.letter
    assert new.attempts_made == record.attempts_made + 1  # or it would be retried for ever


def test_whom_nobody_was_told_of_is_a_letter_with_its_own_queue() -> None:
    """`finish` puts the instant anew, the letter's queue and route stay."""
    new = TRANSITIONS["lose by the lease: fail"](replace(STATES["run, lost again"], letter=LETTER))
    assert new is not None
    assert new.letter == {**LETTER, "at": NOW}


@pytest.mark.parametrize("how", ["finish", "finish by its node"])
def test_a_run_that_has_told_a_letter_leaves_it(how: str) -> None:
    new = TRANSITIONS[how](STATES["run, with a letter"])
    assert new is not None
    assert (new.until, new.call, new.lane, new.letter) == ("dead", FRESH.call, "dead:new", {**LETTER, "at": NOW})


def test_a_time_limit_ends_what_its_run_has_just_made_wait() -> None:
    waits = TRANSITIONS["accept"](run())
    assert waits is not None
    ended = records.finish(waits, run_id=None, node="node", step=waits.step - 2, now=NOW)
    assert ended is not None
    assert ended.until == "done"
    assert records.finish(waits, run_id=None, node="elsewhere", step=waits.step - 2, now=NOW) is None
    assert records.finish(waits, run_id=None, node="node", step=waits.step - 1, now=NOW) is None
    assert records.finish(waits, run_id=None, node="node", step=None, now=NOW) is None


def test_a_letter_outlives_a_time_limit_that_comes_before_its_run_begins() -> None:
    new = TRANSITIONS["finish by its step"](STATES["start, with a letter"])
    assert new is not None
    assert (new.until, new.call, new.lane) == ("dead", FRESH.call, "dead:new")


@pytest.mark.parametrize("state", ["run, with a letter, revoked", "run, lost again, revoked"])
@pytest.mark.parametrize("transition", ["finish", "lose by the lease: dead letter", "fail by the run: kept waiting"])
def test_what_was_revoked_becomes_no_letter(state: str, transition: str) -> None:
    new = TRANSITIONS[transition](STATES[state])
    if new is not None:
        assert new.until in ("done", *WAITING)
        assert (new.is_letter, new.lane) == (False, None if new.until == "done" else "clock")


def test_a_run_that_got_its_job_accepted_counts_no_lost_runs() -> None:
    new = TRANSITIONS["accept"](run(lost_runs=2, pauses=3, queued_at=1.0))
    assert new is not None
    assert (new.lost_runs, new.pauses, new.queued_at, new.deadline_at) == (0, 0, None, NOW + 600)


@pytest.mark.parametrize(
    "transition",
    [
        "accept", "pause", "redo by the run", "reclaim", "reclaim by its node",
        *(f"fail by the run: {name}" for name in ("retry", "hold", "kept waiting")),
    ],
)  # fmt: skip
def test_what_was_revoked_while_it_ran_never_waits_again(transition: str) -> None:
    new = TRANSITIONS[transition](STATES["run, lease over, revoked"])
    assert new is not None
    assert new.until in WAITING
    assert (new.lane, new.due_at, new.is_letter) == ("clock", 0.0, False)  # the watcher ends it at once
    ended = records.end(new, now=NOW)
    assert ended is not None
    assert ended.until == "done"


def test_a_tombstone_is_small() -> None:
    new = records.finish(run(request="r", job=JOB), run_id="run", now=NOW)
    assert new is not None
    assert (new.until, new.call, new.request, new.job, new.due_at, new.lane) == ("done", "", None, None, None, None)
    assert new.digest == "d"  # the same id with other arguments is still told apart


def test_who_goes_back_to_the_queue_has_its_old_place() -> None:
    new = records.queue(in_state(queued_at=NOW - 100), step=5, kind="render", now=NOW)
    assert new is not None
    assert (new.due_at, new.lane) == (NOW - 100, "slot:render")
    assert records.queue(FRESH, step=5, kind="task", now=NOW).lane == "slot:task"  # type: ignore[union-attr]


def test_a_retry_is_the_same_work_and_a_replacement_another() -> None:
    posted = run(request="r", job=JOB, job_id="render_1", outcome="failed", attempt=2)
    retried = TRANSITIONS["redo by the run"](posted)
    assert retried is not None
    assert (retried.request, retried.job_id, retried.outcome, retried.attempt) == ("r", "render_1", "failed", 2)
    replacing = TRANSITIONS["start_replacing"](posted)
    assert replacing is not None
    replaced = TRANSITIONS["redo by a message"](replacing)
    assert replaced is not None
    assert (replaced.request, replaced.job, replaced.job_id, replaced.outcome) == (None, None, None, None)
    assert (replaced.attempt, replaced.task, replaced.until) == (3, "t2", "instant")
    assert replaced.idempotency_key("n") != posted.idempotency_key("n")


# --- what becomes of a failure ---

ENTRY = {
    "attempt": 1, "job_id": "render_1", "outcome": "failed", "at": NOW, "accepted_at": NOW - 60, "code": "internal",
}  # fmt: skip
GONE = {"id": "render_1", "status": "failed", "error": {"code": "internal", "message": "it broke"}}
ACCEPTED = replace(
    STATES["job"], accepted_at=NOW - 60, deadline_at=NOW + 600, first_post_at=NOW - 61, retry_queue="renders.retry"
)


def decided(record: Record, name: str, **values: Any) -> Record:
    given = {"outcome": "failed", "failure": FAILURE, "now": NOW, "resend_after_s": 60, **values}
    new = records.fail(record, decision=DECISIONS[name], **given)
    assert new is not None
    return new


@pytest.mark.parametrize(
    ("name", "until", "due_at", "outcome", "attempt", "key"),
    [
        ("retry", "instant", NOW + 30, None, 2, 2),
        ("hold", "release", NOW + 600, None, 2, 2),
        ("dead letter", "start", NOW + 60, "failed", 1, 1),
        ("kept waiting", "release", NOW, "failed", 1, 1),
        ("fail", "start", NOW + 60, "failed", 1, 1),
    ],
)
def test_a_job_that_failed(name: str, until: str, due_at: float, outcome: str | None, attempt: int, key: int) -> None:
    new = decided(ACCEPTED, name, job=GONE)
    assert (new.until, new.due_at, new.outcome, new.attempt, new.key) == (until, due_at, outcome, attempt, key)
    assert (new.history, new.failure) == ((ENTRY,), FAILURE)
    is_new = attempt == 2
    assert (new.job_id, new.job) == ((None, None) if is_new else ("render_1", GONE))
    assert (new.request is None, new.first_post_at is None, new.accepted_at is None) == (is_new,) * 3
    assert (new.letter is not None) == (name in ("dead letter", "kept waiting"))


REFUSED = replace(STATES["run, posted"], first_post_at=NOW - 1, pauses=4, queued_at=NOW - 70, key=3, attempt=2)


@pytest.mark.parametrize("is_refused", [True, False])
@pytest.mark.parametrize(
    ("name", "until", "outcome", "attempt"),
    [
        ("retry", "instant", None, 3),
        ("hold", "release", None, 2),  # it costs no attempt: nothing was accepted
        ("dead letter", "running", "failed", 2),
        ("kept waiting", "release", "failed", 2),
        ("fail", "running", "failed", 2),
    ],
)
def test_a_submission_that_was_refused(
    name: str, until: str, outcome: str | None, attempt: int, is_refused: bool
) -> None:
    """A plain refusal frees the key; after an unanswered POST it stays, with its bytes and their age."""
    new = decided(REFUSED, name, run_id="run", is_refused=is_refused)
    assert (new.until, new.outcome, new.attempt) == (until, outcome, attempt)
    assert (new.key, new.request, new.first_post_at) == ((4, None, None) if is_refused else (3, "{}", NOW - 1))
    assert (new.run_id, new.due_at) == ("run", REFUSED.due_at) if until == "running" else new.run_id is None
    assert len(new.history) == (0 if name == "hold" else 1)


def test_a_hold_is_measured_from_its_beginning() -> None:
    """Released, refused again, held again: it is the same hold, and the place in the queue is the old one."""
    held = decided(REFUSED, "hold", run_id="run")
    assert (held.held_at, held.due_at, held.lane) == (NOW, NOW + 600, "hold:default")
    released = records.release(held, now=NOW + 100)
    assert released is not None
    assert (released.due_at, released.lane, released.failure) == (NOW - 70, "slot:render", None)
    woken = records.wake(released, now=NOW + 100, resend_after_s=60)
    assert woken is not None
    again = records.join_hold(woken, step=woken.step, kind="render", failure=FAILURE, max_s=600, now=NOW + 101)
    assert again is not None
    assert (again.held_at, again.due_at) == (NOW, NOW + 600)
    accepted = TRANSITIONS["accept"](replace(run(), held_at=NOW))
    assert accepted is not None
    assert accepted.held_at is None


def test_who_never_queued_is_released_to_the_place_of_its_hold() -> None:
    released = records.release(STATES["held"], now=NOW)
    assert released is not None
    assert released.due_at == NOW - 9
    ahead = records.release(replace(STATES["held"], head_start_s=3600.0), now=NOW)
    assert ahead is not None
    assert ahead.due_at == NOW - 9 - 3600


@pytest.mark.parametrize("name", ["retry", "dead letter", "kept waiting", "fail"])
def test_what_was_held_for_too_long_goes_on_by_the_routes(name: str) -> None:
    new = decided(replace(STATES["held"], request="bytes"), name, is_refused=False)
    assert (new.request, new.key) == ("bytes", 1)  # an unanswered POST from before the hold
    assert decided(STATES["held"], name).key == 2
    assert new.until == {"retry": "instant", "kept waiting": "release"}.get(name, "start")
    assert (new.lane == "dead:new") == (name == "kept waiting")


# --- dead letters ---


def test_a_letter_is_announced_again_until_it_is_out() -> None:
    letter, spans = STATES["dead, new"], []
    for _ in range(3):
        new = records.announce(letter, now=NOW, resend_after_s=60)
        assert new is not None
        letter = new
        spans.append((letter.due_at or 0) - NOW)
    assert spans == [120, 240, 480]
    told = records.announced(letter, step=letter.step)
    assert told is not None
    assert (told.lane, told.due_at) == ("dead", LETTER["at"])
    assert told.letter == TOLD


REPLAYED: dict[str, tuple[Record, dict[str, Any]]] = {
    "a job that failed": (replace(STATES["dead"], job=GONE, key=2), {"key": 3, "request": None, "job_id": None}),
    "a refusal": (replace(STATES["dead"], job_id=None, request=None, key=2), {"key": 3, "request": None}),
    "an unanswered POST": (
        replace(STATES["dead"], job_id=None, outcome="worker_lost", first_post_at=NOW - 9),
        {"key": 1, "request": "{}", "first_post_at": NOW - 9},
    ),
    "an unknown outcome": (
        replace(STATES["dead"], job_id=None, outcome="outcome_unknown", first_post_at=NOW - 9),
        {"key": 2, "request": None, "first_post_at": None},
    ),
}


@pytest.mark.parametrize("why", REPLAYED)
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_replay_is_a_new_attempt_with_a_budget_of_its_own(why: str, is_kept: bool) -> None:
    letter, expected = REPLAYED[why]
    if is_kept:
        new = records.replay(replace(letter, until="release", job_kind="render"), call="{}", digest="e", now=NOW)
    else:
        new = records.replay_as(replace(letter, job_kind="render"), id="task-2", call="{}", digest="e", now=NOW)
    assert new is not None
    assert {name: getattr(new, name) for name in expected} == expected
    assert (new.until, new.lane, new.attempt, new.attempts_made) == ("slot", "slot:render", 2, 1)
    assert (new.letter, new.failure, new.outcome, new.call, new.digest) == (None, None, None, "{}", "e")
    is_same_key = new.idempotency_key("n") == letter.idempotency_key("n")
    assert is_same_key == (why == "an unanswered POST")


def test_a_replay_of_a_replay_keeps_the_first_ones_key() -> None:
    letter, _ = REPLAYED["an unanswered POST"]
    second = records.replay_as(letter, id="task-2", call="{}", digest="e", now=NOW)
    assert second is not None
    third = records.replay_as(replace(second, until="dead"), id="task-3", call="{}", digest="e", now=NOW)
    assert third is not None
    assert third.idempotency_key("n") == letter.idempotency_key("n")
    accepted = decided(replace(third, until="job", job_id="render_1"), "retry")
    assert accepted.key_id is None
    assert accepted.idempotency_key("n") == replace(FRESH, id="task-3", key=2).idempotency_key("n")


def test_a_completed_job_is_not_paid_for_again() -> None:
    """Every run that was to tell it has died: a replay has only to tell it."""
    letter = replace(STATES["dead"], outcome="worker_lost", job={**JOB, "status": "completed"}, lost_runs=3)
    new = records.replay_as(letter, id="task-2", call="{}", digest="e", now=NOW)
    assert new is not None
    assert (new.until, new.outcome, new.job_id, new.attempt, new.lost_runs) == ("start", "completed", "render_1", 1, 0)
    assert new.letter is None


def test_a_letter_that_is_put_away_leaves_a_tombstone_that_knows_its_heir() -> None:
    new = records.put_away(STATES["dead"], now=NOW, replayed_as="task-2")
    assert new is not None
    assert (new.until, new.call, new.request, new.lane) == ("done", "", None, None)
    assert (new.letter or {})["replayed_as"] == "task-2"
    discarded = records.discard(STATES["dead"], now=NOW)
    assert discarded is not None
    assert (discarded.letter or {})["replayed_as"] is None


def test_a_pipeline_that_is_discarded_fails_now() -> None:
    new = records.discard(STATES["kept waiting"], now=NOW)
    assert new is not None
    assert (new.until, new.due_at, new.outcome, new.failure, new.letter) == ("start", NOW, "failed", FAILURE, None)


def test_a_letter_is_restored_over_a_discarded_one_alone() -> None:
    letter = replace(STATES["dead, new"], step=2, version=7)
    new = records.restore(replace(STATES["done, discarded"], step=9, version=12), letter=letter)
    assert new == replace(letter, step=10, version=12)


# --- small ones ---


def test_a_job_that_completed_is_told() -> None:
    new = records.complete(ACCEPTED, job=JOB, now=NOW, resend_after_s=60)
    assert new is not None
    assert (new.until, new.outcome, new.job, new.due_at) == ("start", "completed", JOB, NOW + 60)
    assert [(entry["outcome"], entry["accepted_at"]) for entry in new.history] == [("completed", NOW - 60)]
    assert "code" not in new.history[0]


def test_a_wake_up_that_reached_a_worker_that_does_not_know_the_task_is_due_sooner() -> None:
    """Further and further apart all the same, never later than if it were lost, and only the message of this step."""
    waits = []
    for resends in range(12):
        record = in_state(resends=resends, due_at=NOW + records.resend_delay_s(resends, 60))
        new = records.misdelivered(record, step=record.step, now=NOW)
        assert new is not None
        assert new.due_at is not None
        assert (new.step, new.resends) == (record.step, resends)
        waits.append(new.due_at - NOW)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600]
    assert records.misdelivered(FRESH, step=FRESH.step - 1, now=NOW) is None
    due = records.misdelivered(in_state(due_at=NOW - 1), step=FRESH.step, now=NOW)
    assert due is not None
    assert due.due_at == NOW - 1


def test_resends_come_further_and_further_apart() -> None:
    assert [records.resend_delay_s(n, 60) for n in (0, 1, 2, 5, 6, 7, 1000)] == [60, 120, 240, 1920, 3600, 3600, 3600]


def test_expires_means_start_before() -> None:
    record = in_state(expires_at=NOW)
    assert records.is_expired(record, NOW + 1)
    assert not records.is_expired(record, NOW)
    assert not records.is_expired(replace(record, begun=True), NOW + 1)
    assert not records.is_expired(FRESH, NOW + 1e9)


def test_the_key_is_stable_and_distinct_per_namespace_id_and_attempt() -> None:
    key = FRESH.idempotency_key("shop")
    assert key == "1bb52b95-0d8c-5a9c-8cda-a47d91e35471"  # wire format: a change would pay twice for what is under way
    assert UUID(key)
    others = [
        FRESH.idempotency_key("shop2"),
        replace(FRESH, id="task-2").idempotency_key("shop"),
        replace(FRESH, key=2).idempotency_key("shop"),
        replace(FRESH, id=f"2:{FRESH.id}").idempotency_key("shop"),
        FRESH.idempotency_key("shop:2"),
    ]
    assert len({key, *others}) == 6
    assert replace(FRESH, id="task-2", key_id=FRESH.id).idempotency_key("shop") == key
    moved = replace(FRESH, step=9, version=9, until="running", run_id="x", call="other", lost_runs=3, attempt=4)
    assert moved.idempotency_key("shop") == key


# --- on the shelf ---


def shelved(record: Record, **changes: Any) -> Record:
    stored = {"until": record.until, "step": record.step, "version": record.version, "due_at": record.due_at}
    texts = {"call": record.call, "request": record.request, "state": dump_state(record)}
    return load_record(**{"id": record.id, **stored, **texts, **changes})


@pytest.mark.parametrize("state", STATES)
def test_what_is_stored_comes_back(state: str) -> None:
    assert shelved(STATES[state]) == STATES[state]


def test_defaults_are_not_stored() -> None:
    assert json.loads(dump_state(Record(id="x", task="t", call="c", digest="d"))) == {
        "format": 1,
        "task": "t",
        "digest": "d",
    }


@pytest.mark.parametrize(
    "state",
    [
        '{"format":3,"task":"t","digest":"d"}',  # newer
        '{"format":1,"task":"t"}',  # what every record has
        '{"task":"t","digest":"d"}',
        '{"format":"x","task":"t","digest":"d"}',
        "[]",
        "null",
        "1",
        "",
        "not json",
    ],
)
def test_a_record_of_another_format_is_told(state: str) -> None:
    with pytest.raises(ForeignRecord, match="task-1"):
        shelved(FRESH, state=state)


def test_fields_of_a_newer_version_are_carried_along() -> None:
    """Read as far as it is known, and never dropped: through whatever transition, to the tombstone."""
    state = json.dumps({**json.loads(dump_state(FRESH)), "later": {"a": [1]}, "later_s": 2.5})
    record = shelved(FRESH, state=state)
    assert replace(record, unread=None) == FRESH
    for transition in ("begin", "resend", "misdelivered"):
        new = TRANSITIONS[transition](record)
        assert new is not None
        assert json.loads(dump_state(new)).items() >= {"format": 1, "later_s": 2.5}.items()
        assert shelved(new) == new
    done = TRANSITIONS["end"](replace(record, ending="revoked"))
    assert done is not None
    assert json.loads(dump_state(done))["later"] == {"a": [1]}


def test_foreign_columns_are_told() -> None:
    with pytest.raises(ForeignRecord):
        shelved(FRESH, step="x")


# --- every history ---


MOVES: dict[str, Callable[..., Record | None]] = {
    name: getattr(records, name) for name in sorted({each.partition(" by ")[0] for each in TRANSITIONS} - {"replay_as"})
}
RARE = {"revoke", "end", "finish", "start_replacing", "redo", "complete", "hold_lease", "renew", "looked", "hinted"}
"""Lest few histories come as far as what becomes of a failure."""

PARAMETERS = {name: tuple(inspect.signature(make).parameters) for name, make in MOVES.items()}


class History:
    """One record's life, and what the server knows of it: which keys were posted, and which of them made a job."""

    def __init__(self, chance: Random, record: Record) -> None:
        self.draw, self.record, self.now = lambda *choices: chance.choice(choices), record, NOW
        self.unseen: set[str] = set()  # keys of POSTs that may have made a job that nobody has seen
        self.jobs: dict[str, int] = {}  # the attempts that had a job, by their keys
        self.was_posted = False  # whether this run found the bytes of an earlier one

    def moves(self) -> dict[str, Record]:
        """What may happen next: arguments that fit, or that come from an earlier life of the record."""
        old, now, draw = self.record, self.now, self.draw
        run_id = draw(old.run_id or "r1", old.run_id or "r1", "r2")
        is_run = old.until == "running"
        wanted: dict[str, Any] = {
            "step": old.step - draw(0, 0, 0, 1, 3), "run_id": run_id, "node": draw("n1", "n2"), "now": now,
            "lease_s": 60.0, "kind": "render", "request": "{}", "job": draw(JOB, {**JOB, "status": "completed"}),
            "deadline_s": 600.0, "at": now + draw(*SPANS), "reported_at": now, "outcome": "failed",
            "resend_after_s": 60.0, "max_lost_runs": 2, "reason": "revoked", "task": "t2", "call": "{}",
            "digest": "e", "due_at": now + draw(*SPANS), "at_once": draw(True, False), "failure": FAILURE,
            "decision": DECISIONS[draw(*DECISIONS)], "max_s": 60.0, "replayed_as": draw(None, "t9"),
            "letter": replace(STATES["dead, new"], created_at=NOW), "until_at": now + draw(*SPANS),
            "is_answered": not self.was_posted and draw(True, False),
        }  # fmt: skip
        found = {}
        for name, make in MOVES.items():
            if old.outcome and name in ("prepare", "accept", "pause", "fail") and is_run:
                continue  # this run tells an end, it submits nothing
            given = {name: wanted[name] for name in PARAMETERS[name] if name in wanted}
            if name == "fail":  # as run.py and holds.py call it
                is_unknown = is_run and self.was_posted and draw(True, False)
                given["run_id"] = run_id if is_run else None
                given["outcome"] = "outcome_unknown" if is_unknown else "failed"
                given["is_refused"] = not self.was_posted if is_run else old.first_post_at is None
                given["job"] = None if is_run else given["job"]
            new = make(old, **given)
            if new is not None:
                found[name] = new
        return found

    def is_refusal(self) -> bool:
        """Whether the run's first POST was refused, and none of its key came before: the key is free."""
        return self.record.until == "running" and not self.was_posted

    def note(self, name: str, new: Record) -> None:
        """What the server comes to know by a transition. A run may POST as soon as its bytes are stored."""
        if name == "begin":
            self.was_posted = new.first_post_at is not None
        if name == "pause" and new.first_post_at is None and new.request is not None:  # it was answered: no job
            self.unseen.discard(self.record.idempotency_key("n"))
        if name == "fail" and self.is_refusal():
            self.unseen.discard(self.record.idempotency_key("n"))
        if new.until == "running" and new.first_post_at is not None and new.job_id is None and new.outcome is None:
            self.unseen.add(new.idempotency_key("n"))
        if name == "accept":
            key = new.idempotency_key("n")
            self.unseen.discard(key)
            assert self.jobs.setdefault(key, new.attempt) == new.attempt, "two attempts, of which the first had a job"


AFTER_DEATH = ("announce", "announced", "put_off", "start_replay", "put_away", "discard")
SPANS = (-5.0, 0.0, 5.0, 100.0)


@given(seed=st.integers(0, 2**32), length=st.integers(1, 60))
@settings(max_examples=300, deadline=None)
def test_what_holds_in_every_history(seed: int, length: int) -> None:
    chance = Random(f"{seed}")  # not drawn by hypothesis: a move has too many arguments to be shrunk one by one
    history = History(chance, replace(FRESH, step=0))
    for _ in range(length):
        history.now += history.draw(0.0, 1.0, 61.0)
        now, old, moves = history.now, history.record, history.moves()
        if not moves:  # over: another record's turn
            history = History(chance, replace(FRESH, step=0))
            continue
        name = history.draw(*(name for name in moves for _ in range(1 if name in RARE else 4)))
        new = moves[name]
        if name == "restore":  # another record in this one's place
            assert (old.ending, old.outcome != "completed") == (None, True)
            history = History(chance, new)
            continue
        assert_no_job_is_lost_sight_of(history, name, new)
        history.note(name, new)
        assert new.step >= old.step
        assert (new.until == old.until) or new.step == old.step + 1
        assert old.until != "done"
        assert old.until != "dead" or name in AFTER_DEATH
        assert (new.id, new.account, new.created_at, new.version) == (old.id, old.account, old.created_at, old.version)
        assert new.ending == old.ending or name == "revoke"  # never taken back
        assert new.attempt >= old.attempt
        assert new.history[: len(old.history)] == old.history
        if name == "resend":
            assert (new.until, new.step) == ("start", old.step)
        if new.ending and new.until in WAITING:  # ends at once, or is being ended, and the watcher's clock finds it
            latest = now + {"try_to_end": END_AGAIN_S, "put_off": max(SPANS)}.get(name, 0)
            assert (new.lane, new.due_at is not None and new.due_at <= latest) == ("clock", True)
        if new.until in WAITING or new.until == "running":
            assert new.lane is not None  # whatever is not over is looked at, some day
        assert shelved(new) == new
        assert_letters_are_letters(new)
        assert way_on(new) is not None
        history.record = new


def assert_no_job_is_lost_sight_of(history: History, name: str, new: Record) -> None:
    """The key stays, with its bytes, while a POST of it may have made a job that nobody has seen."""
    old = history.record
    another_work = name == "redo" and old.until == "replacing"
    told = name == "replay" and old.outcome == "outcome_unknown"  # the operator has looked
    answered = name == "pause" and new.first_post_at is None
    refused = (name == "fail" or answered) and history.is_refusal()
    is_free = another_work or told or refused or new.until == "done"
    if old.idempotency_key("n") in history.unseen and not is_free:
        assert (new.key, new.key_id) == (old.key, old.key_id)
        assert new.request == old.request
        assert new.first_post_at == old.first_post_at


def assert_letters_are_letters(new: Record) -> None:
    """A letter has failed, is not revoked, and waits for an operator: no lost run, no stale outcome."""
    if new.until == "dead" or new.is_letter:
        assert new.is_letter
        assert new.lane in ("dead:new", "dead")
        assert (new.ending, new.run_id) == (None, None)
        assert new.outcome not in (None, "completed")
        assert new.call
    if new.letter is not None and new.until != "done":
        assert new.outcome is not None  # or a later success would end as a letter


def test_the_table_knows_every_transition() -> None:
    public = {name for name in records.__all__ if inspect.isfunction(getattr(records, name))}
    asked = {"dump_state", "load_record", "resend_delay_s", "is_expired", "is_lost", "has_open_post", "look_lane"}
    pure = public - asked
    assert pure == {name.partition(" by ")[0] for name in TRANSITIONS}
    assert {f.name for f in fields(Record)} >= {"account", "history"}
