"""The record's transitions: every pair of state and transition from one table, then what holds in every history."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelane_celery import records
from framelane_celery.records import WAITING, ForeignRecord, Record, dump_state, load_record

NOW = 1_000_000.0
FRESH = Record(
    id="task-1", task="framelane.render", call='{"args":[]}', digest="d", due_at=NOW + 60, created_at=NOW, step=5
)
JOB = {"id": "render_1", "status": "processing"}


def in_state(**values: Any) -> Record:
    return replace(FRESH, **values)


def run(**values: Any) -> Record:
    return in_state(until="running", due_at=NOW + 30, run_id="run", run_node="node", begun=True, **values)


STATES = {
    "start": FRESH,
    "slot": in_state(until="slot", queued_at=NOW - 9, due_at=NOW - 9, job_kind="render"),
    "job": in_state(until="job", job=JOB, job_id="render_1", job_kind="render", due_at=NOW + 20, request="{}"),
    "instant": in_state(until="instant"),
    "release": in_state(until="release"),
    "running": run(),
    "run, lease over": replace(run(), due_at=NOW - 1),
    "run, posted": run(request="{}"),
    "replacing": in_state(until="replacing", due_at=NOW + 30),
    "replacing, lease over": in_state(until="replacing", due_at=NOW - 1),
    "replaced": in_state(until="replacing", due_at=None),
    "dead": in_state(until="dead", due_at=None, outcome="worker_lost"),
    "done": in_state(until="done", due_at=None, call=""),
}
REVOKED = {
    f"{name}, revoked": replace(record, ending="revoked", due_at=0.0 if record.until in WAITING else record.due_at)
    for name, record in STATES.items()
    if name not in ("dead", "done", "replaced")
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
    "looked": lambda r: records.looked(r, job=JOB, next_look_at=NOW + 20),
    "hinted": lambda r: records.hinted(r, now=NOW),
    "decide": lambda r: records.decide(r, outcome="completed", job=JOB, now=NOW, resend_after_s=60),
    "wake": lambda r: records.wake(r, now=NOW, resend_after_s=60),
    "resend": lambda r: records.resend(r, now=NOW, resend_after_s=60),
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
    "try_to_end": lambda r: records.try_to_end(r, now=NOW),
    "end": lambda r: records.end(r, now=NOW),
}

WAITS = {"start", "slot", "job", "instant", "release"}
RUNS = {"running", "run, lease over", "run, posted"}
REPLACES = {"replacing", "replacing, lease over", "replaced"}


def also_revoked(*names: str) -> set[str]:
    return {*names, *(revoked for name in names if (revoked := f"{name}, revoked") in STATES)}


# From which states each transition applies; from all others it gives None.
APPLIES: dict[str, set[str]] = {
    "begin": {"start"},
    "queue": {"start"},
    "hold_lease": also_revoked(*RUNS),
    "renew": also_revoked("running", "run, posted"),  # a lease that is over is not called back
    "prepare": also_revoked("running", "run, lease over"),
    "accept": also_revoked(*RUNS),
    "pause": also_revoked(*RUNS),
    "looked": {"job"},
    "hinted": {"job"},
    "decide": {"job"},
    "wake": {"instant", "slot"},
    "resend": {"start"},
    "reclaim": also_revoked("run, lease over", "replacing, lease over"),
    "reclaim by its node": also_revoked(*RUNS, "replacing, lease over"),
    "revoke": WAITS | RUNS,
    "redo by the run": also_revoked(*RUNS, *REPLACES),
    "redo by a message": also_revoked(*REPLACES),
    "start_replacing": also_revoked(*RUNS),
    "end_replacing": also_revoked(*REPLACES),
    "finish": also_revoked(*RUNS),
    "finish by its node": also_revoked(*RUNS),
    "finish by its step": also_revoked("start", *RUNS),
    "try_to_end": {f"{name}, revoked" for name in WAITS},
    "end": {f"{name}, revoked" for name in WAITS},
}
KEEP_THE_STEP = {"hold_lease", "renew", "prepare", "looked", "hinted", "resend", "end_replacing", "try_to_end"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_every_pair_of_state_and_transition(state: str, transition: str) -> None:
    old = STATES[state]
    new = TRANSITIONS[transition](old)
    assert (new is not None) == (state in APPLIES[transition])
    if new is not None:
        keeps = transition in KEEP_THE_STEP or (transition == "revoke" and old.until == "running")
        assert new.step == (old.step if keeps else old.step + 1)
        assert new.version == old.version  # the room's business


# --- who may ---


@pytest.mark.parametrize("step", [0, 4, 6, 99])
def test_a_message_of_another_step_begins_nothing(step: int) -> None:
    assert records.begin(FRESH, step=step, run_id="run", node=None, now=NOW, lease_s=60) is None
    assert records.queue(FRESH, step=step, kind="render", now=NOW) is None


OF_A_RUN = ["hold_lease", "prepare", "accept", "pause", "start_replacing", "finish", "redo by the run"]


@pytest.mark.parametrize("transition", OF_A_RUN)
def test_only_the_run_that_holds_the_lease_may_go_on(transition: str) -> None:
    assert TRANSITIONS[transition](replace(run(), run_id="another")) is None


def test_another_node_neither_renews_nor_reclaims_nor_finishes() -> None:
    elsewhere = replace(run(), run_node="elsewhere")
    assert TRANSITIONS["renew"](elsewhere) is None
    assert TRANSITIONS["reclaim by its node"](elsewhere) is None
    assert TRANSITIONS["finish by its node"](elsewhere) is None


@pytest.mark.parametrize("transition", OF_A_RUN)
def test_a_reclaimed_record_refuses_the_old_run(transition: str) -> None:
    reclaimed = records.reclaim(STATES["run, lease over"], now=NOW, max_lost_runs=3)
    assert reclaimed is not None
    assert TRANSITIONS[transition](reclaimed) is None
    begun = records.begin(reclaimed, step=reclaimed.step, run_id="new", node="node", now=NOW, lease_s=60)
    assert begun is not None
    assert TRANSITIONS[transition](begun) is None


# --- what each one does ---


def test_lost_runs_in_a_row_end_as_a_dead_letter() -> None:
    record, runs = FRESH, 0
    while record.until != "dead":
        begun = records.begin(record, step=record.step, run_id=f"run-{runs}", node="n", now=NOW, lease_s=60)
        assert begun is not None
        reclaimed = records.reclaim(begun, now=NOW + 61, max_lost_runs=3)
        assert reclaimed is not None
        record, runs = reclaimed, runs + 1
        assert record.outcome == ("worker_lost" if runs > 3 else None)
        assert runs < 10
    assert record.call  # all that is needed to run it again
    assert [entry["outcome"] for entry in record.history] == ["worker_lost"]


def test_a_run_that_says_that_runs_were_lost_leaves_a_dead_letter() -> None:
    new = records.finish(run(outcome="worker_lost"), run_id="run", now=NOW)
    assert new is not None
    assert (new.until, new.call, new.due_at) == ("dead", FRESH.call, None)


def test_a_run_that_got_its_job_accepted_counts_no_lost_runs() -> None:
    new = TRANSITIONS["accept"](run(lost_runs=2, pauses=3, queued_at=1.0))
    assert new is not None
    assert (new.lost_runs, new.pauses, new.queued_at, new.deadline_at) == (0, 0, None, NOW + 600)


@pytest.mark.parametrize("transition", ["accept", "pause", "redo by the run", "reclaim", "reclaim by its node"])
def test_what_was_revoked_while_it_ran_never_waits_again(transition: str) -> None:
    new = TRANSITIONS[transition](STATES["run, lease over, revoked"])
    assert new is not None
    assert new.until in WAITS
    assert (new.lane, new.due_at) == ("clock", 0.0)  # the watcher ends it at once
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


def test_the_verdict_is_kept_with_its_code() -> None:
    failed = {"id": "render_1", "status": "failed", "error": {"code": "internal", "message": "…"}}
    new = records.decide(STATES["job"], outcome="failed", job=failed, now=NOW, resend_after_s=60)
    assert new is not None
    assert new.history == ({"attempt": 1, "job_id": "render_1", "outcome": "failed", "at": NOW, "code": "internal"},)
    assert (new.until, new.outcome, new.job) == ("start", "failed", failed)


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
        replace(FRESH, attempt=2).idempotency_key("shop"),
        replace(FRESH, id=f"2:{FRESH.id}").idempotency_key("shop"),
        FRESH.idempotency_key("shop:2"),
    ]
    assert len({key, *others}) == 6
    moved = replace(FRESH, step=9, version=9, until="running", run_id="x", call="other", lost_runs=3)
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
        '{"format":2,"task":"t","digest":"d"}',  # newer
        '{"format":1,"task":"t","digest":"d","unknown":1}',
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


def test_foreign_columns_are_told() -> None:
    with pytest.raises(ForeignRecord):
        shelved(FRESH, step="x")


# --- every history ---

spans = st.sampled_from((-5.0, 0.0, 5.0, 100.0))


def moves(data: st.DataObject, old: Record, now: float) -> tuple[str, Record | None]:
    """Any transition, with arguments that fit or that come from an earlier life of the record."""
    name = data.draw(st.sampled_from(sorted({name.partition(" by ")[0] for name in TRANSITIONS})))
    run_id, node = data.draw(st.sampled_from(("r1", "r2"))), data.draw(st.sampled_from(("n1", "n2")))
    step = old.step - data.draw(st.sampled_from((0, 0, 0, 1, 3)))
    make = getattr(records, name)
    wanted = {
        "step": step, "run_id": run_id, "node": node, "now": now, "lease_s": 60.0, "kind": "render", "request": "{}",
        "job": JOB, "deadline_s": 600.0, "at": now + data.draw(spans), "next_look_at": now + data.draw(spans),
        "outcome": "failed", "resend_after_s": 60.0, "max_lost_runs": 2, "reason": "revoked", "task": "t2",
        "call": "{}", "digest": "e", "due_at": now + data.draw(spans), "at_once": data.draw(st.booleans()),
    }  # fmt: skip
    names = make.__code__.co_varnames[1 : 1 + make.__code__.co_kwonlyargcount + make.__code__.co_argcount - 1]
    return name, make(old, **{name: wanted[name] for name in names if name in wanted})


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_holds_in_every_history(data: st.DataObject) -> None:
    old, now = replace(FRESH, step=0), NOW
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.sampled_from((0.0, 1.0, 61.0)))
        name, new = moves(data, old, now)
        if new is None:
            continue
        assert new.step >= old.step
        assert (new.until == old.until) or new.step == old.step + 1
        assert old.until not in ("done", "dead")  # nothing leaves them
        assert (new.id, new.account, new.created_at, new.version) == (old.id, old.account, old.created_at, old.version)
        assert new.ending == old.ending or name == "revoke"  # never taken back
        assert new.attempt >= old.attempt
        assert new.history[: len(old.history)] == old.history
        if name == "resend":
            assert (new.until, new.step) == ("start", old.step)
        if new.ending and new.until in WAITING:  # ends at once, or is being ended, and the watcher's clock finds it
            latest = now + (records.END_AGAIN_S if name == "try_to_end" else 0)
            assert (new.lane, new.due_at is not None and new.due_at <= latest) == ("clock", True)
        if new.until in WAITING or new.until == "running":
            assert new.lane is not None  # whatever is not over is looked at, some day
        assert shelved(new) == new
        old = new


def test_the_table_knows_every_transition() -> None:
    public = {
        name
        for name, value in vars(records).items()
        if callable(value) and getattr(value, "__module__", "") == records.__name__ and name[0] != "_"
    }
    pure = public - {"Record", "ForeignRecord", "dump_state", "load_record", "resend_delay_s", "is_expired"}
    assert pure == {name.partition(" by ")[0] for name in TRANSITIONS}
    assert {f.name for f in fields(Record)} >= {"account", "history"}
