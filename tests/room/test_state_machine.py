"""Random histories of records, on each store and beside it in a plain dict: both must agree after every step.

The transitions are those of records/ (tests/unit/test_records.py tests them without a store). What is tested here is
that a store loses nothing between them: columns, lanes, the open list, the job index, versions, tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from framelane_celery import records
from framelane_celery.records import Record
from framelane_celery.room import Room, SlotClaim, move, stored
from framelane_celery.room.rules import indexed_job
from framelane_celery.routing import DeadLetter, Decision, Fail, Hold, Retry

IDS = ("a", "ä b:{c}", "c")
LANES = ("clock", "look", "slot:render", "slot:task", "hold:default", "dead", "dead:new")
PER_MINUTE = 2

SPANS = (-1000.0, -10.0, 1000.0)  # well before now, or well after it
FAILURE = {"code": "internal", "message": "ünï"}
DECISIONS: tuple[Decision, ...] = (
    Retry(-10.0, "retries"),
    Hold(60.0),
    DeadLetter("letters", False, {"code": "*"}),
    DeadLetter(None, True, {"code": "*"}),
    Fail(),
)
TEXTS = ("", "{}", "ünï—🎬 \\u0000 \"'%")
OFTEN, RARE = {"begin", "accept"}, {"end", "revoke", "resend", "finish"}  # lest few histories come as far as a job

ids = st.sampled_from(IDS)
kinds = st.sampled_from(("render", "task"))

seen: set[tuple[str, str]] = set()
"""The pairs of state and transition that the histories came through: the test is worth as much as they are."""


def some_move(chance: Random, record: Record, now: float) -> Record | None:
    """One of the transitions that this record allows, the clock and the runs being what they are."""
    run = record.run_id or chance.choice(("run-1", "run-2"))
    node, step = record.run_node or chance.choice(("n1", "n2")), record.step
    at, text, kind = now + chance.choice(SPANS), chance.choice(TEXTS), chance.choice(("render", "task"))
    job = {"id": f"job-{record.id}-{record.attempt}", "note": text}
    at_once, decision = chance.random() < 0.5, chance.choice(DECISIONS)
    moves: dict[str, Callable[[], Record | None]] = {
        "begin": lambda: records.begin(record, step=step, run_id=run, node=node, now=at, lease_s=60),
        "queue": lambda: records.queue(record, step=step, kind=kind, now=at),
        "hold_lease": lambda: records.hold_lease(record, run_id=run, now=at, lease_s=60),
        "renew": lambda: records.renew(record, node=node, now=at, lease_s=60),
        "prepare": lambda: records.prepare(record, run_id=run, request=text, kind=kind, now=now),
        "accept": lambda: records.accept(record, run_id=run, job=job, kind=kind, now=at, deadline_s=600),
        "pause": lambda: records.pause(record, run_id=run, at=at),
        "looked": lambda: records.looked(record, job=job if text else None, reported_at=at),
        "hinted": lambda: records.hinted(record, now=now),
        "complete": lambda: records.complete(record, job=job, now=at, resend_after_s=60),
        "fail": lambda: records.fail(
            record,
            outcome="failed",
            failure=FAILURE,
            decision=decision,
            now=at,
            resend_after_s=60,
            run_id=record.run_id,
        ),
        "lose": lambda: records.lose(
            record, failure=FAILURE, decision=decision, now=now, max_lost_runs=2, node=record.run_node
        ),
        "join_hold": lambda: records.join_hold(record, step=step, kind=kind, failure=FAILURE, max_s=60, now=at),
        "release": lambda: records.release(record, now=at),
        "announce": lambda: records.announce(record, now=at, resend_after_s=60),
        "announced": lambda: records.announced(record, step=step),
        "replay": lambda: records.replay(record, call=text, digest="d3", now=at),
        "put_away": lambda: records.put_away(record, now=now),
        "discard": lambda: records.discard(record, now=at),
        "wake": lambda: records.wake(record, now=at, resend_after_s=60),
        "resend": lambda: records.resend(record, now=at, resend_after_s=60),
        "reclaim": lambda: records.reclaim(record, now=now, max_lost_runs=2, node=node),
        "revoke": lambda: records.revoke(record, reason="revoked", now=at),
        "redo": lambda: records.redo(record, run_id=run, task="t2", call=text, digest="d2", due_at=at, at_once=at_once),
        "start_replacing": lambda: records.start_replacing(record, run_id=run, now=at, lease_s=60),
        "end_replacing": lambda: records.end_replacing(record),
        "finish": lambda: records.finish(record, run_id=run, now=now),
        "end": lambda: records.end(record, now=now),
    }
    applicable = {name: new for name, make in moves.items() if (new := make()) is not None}
    if not applicable:
        return None
    name = chance.choices(list(applicable), [1 if name in RARE else 9 if name in OFTEN else 3 for name in applicable])[
        0
    ]
    seen.add((record.until, name))
    return applicable[name]


class Histories(RuleBasedStateMachine):
    store: Any  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.namespace = f"test-{uuid4().hex[:12]}"
        self.room: Room = self.store.open_quickly(self.namespace)
        self.model: dict[str, Record] = {}
        self.old: dict[str, Record] = {}
        self.slots: dict[str, int] = {"render": 0, "task": 0}
        self.leader: str | None = None
        self.tokens: list[int] = []
        self.turns = 0

    @initialize()
    def start(self) -> None:
        assert list(self.room.scan()) == []
        self.create(IDS[0], "{}", -10.0)
        now, letter = self.room.read(IDS[1])[1], {"at": 1.0, "announced": False}
        self.model[IDS[1]] = Record(
            id=IDS[1], task="t", call="{}", digest="d", until="dead", due_at=now, created_at=now, letter=letter
        )
        assert self.room.create(self.model[IDS[1]]) is None

    @rule(id=ids, call=st.sampled_from(TEXTS), span=st.sampled_from(SPANS))
    def create(self, id: str, call: str, span: float) -> None:
        now = self.room.read(id)[1]
        record = Record(id=id, task="t", call=call, digest="d", due_at=now + span, created_at=now)
        there = self.room.create(record)
        assert there == self.model.get(id)
        self.model.setdefault(id, record)

    @rule(seed=st.integers(0, 2**32), moves=st.integers(10, 25))
    def go_on(self, seed: int, moves: int) -> None:
        self.turns += 1
        chance = Random(f"{seed} {self.turns}")  # hypothesis likes to give the same number again
        id = chance.choice(sorted(self.model))
        for _ in range(moves):
            self._move(id, chance)

    def _move(self, id: str, chance: Random) -> None:
        asked: list[tuple[Record, Record | None]] = []

        def transition(record: Record, now: float) -> Record | None:
            asked.append((record, some_move(chance, record, now)))
            return asked[-1][1]

        token = self.tokens[-1] if self.leader and chance.random() < 0.5 else None
        moved = move(self.room, id, transition, token=token)
        [(old, new)] = asked
        assert old == self.model[id]
        assert moved == (None if new is None else stored(old, new))
        if moved is not None:
            self._keep(old, moved)

    @rule(id=ids, kind=kinds, from_queue=st.booleans())
    def claim(self, id: str, kind: str, from_queue: bool) -> None:
        if id not in self.model:
            return
        old = self.model[id]
        claim = SlotClaim(kind, PER_MINUTE, from_queue)
        now = self.room.read(id)[1]
        queued = any(r.lane == f"slot:{kind}" and (r.due_at or 0) <= now for r in self.model.values())
        free = self.slots[kind] < PER_MINUTE and (from_queue or not queued)
        assert self.room.save(old, replace(old, resends=old.resends + 1), claim=claim) == (
            "saved" if free else "no_slot"
        )
        if free:
            self.slots[kind] += 1
            self._keep(old, stored(old, replace(old, resends=old.resends + 1)))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def save_what_is_outdated(self, data: Any) -> None:
        old = self.old[data.draw(st.sampled_from(sorted(self.old)))]
        assert self.room.save(old, replace(old, step=99, until="done")) == "conflict"

    @precondition(lambda self: len(self.tokens) > 1)
    @rule(id=ids, data=st.data())
    def save_as_a_deposed_watcher(self, id: str, data: Any) -> None:
        if id in self.model:
            token = data.draw(st.sampled_from(self.tokens[:-1]))
            assert self.room.save(self.model[id], self.model[id], token=token) == "not_leader"

    @rule(owner=st.sampled_from(("w1", "w2")))
    def lead(self, owner: str) -> None:
        token = self.room.lead(owner, 1000)
        if self.leader is None:
            assert token is not None
            assert token > max(self.tokens, default=0)
            self.leader, self.tokens = owner, [*self.tokens, token]
        else:
            assert token == (self.tokens[-1] if owner == self.leader else None)

    @rule(owner=st.sampled_from(("w1", "w2")))
    def resign(self, owner: str) -> None:
        self.room.resign(owner)
        if owner == self.leader:
            self.leader = None

    @rule(id=ids)
    def forget(self, id: str) -> None:
        if id in self.old:
            self.room.forget(self.old[id])  # moved since: stays
        elif id in self.model and len(self.model) > 1:
            self.room.forget(self.model.pop(id))

    def _keep(self, old: Record, new: Record) -> None:
        self.model[old.id], self.old[old.id] = new, old
        assert self.room.read(old.id)[0] == new
        for lane in {old.lane, new.lane} - {None}:
            self._check_lane(str(lane))

    def _check_lane(self, lane: str) -> None:
        due, now = self.room.due(lane, 100)
        mine = [record for record in self.model.values() if record.lane == lane]
        expected = sorted(record.due_at for record in mine if record.due_at is not None and record.due_at <= now)
        assert [record.due_at for record in due] == expected
        assert all(self.model[record.id] == record for record in due)
        assert self.room.waiting(lane) == len(mine)

    def teardown(self) -> None:
        try:
            for id in IDS:
                assert self.room.read(id)[0] == self.model.get(id)
            for lane in LANES:
                self._check_lane(lane)
                in_order = sorted((r.due_at or 0, r.id) for r in self.model.values() if r.lane == lane)
                assert [(r.due_at or 0, r.id) for r in self.room.scan(lane)] == in_order
            left = {record.id: record for record in self.model.values() if record.until != "done"}
            assert {record.id: record for record in self.room.scan()} == left
            jobs = {f"job-{id}-{attempt}": None for id in IDS for attempt in range(1, 5)}
            jobs |= {job: r.id for r in self.model.values() if (job := indexed_job(r))}
            assert {job: self.room.task_of(job) for job in jobs} == jobs
            for kind, taken in self.slots.items():
                assert self.room.slots_free(kind, PER_MINUTE) == PER_MINUTE - taken
        finally:
            self.store.clean(self.namespace)


def test_random_histories(store: Any) -> None:
    machine = type("Histories", (Histories,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    states = {"start", "slot", "job", "instant", "running", "replacing", "release", "dead"}
    assert {state for state, _ in seen} >= states
    assert len({name for _, name in seen}) >= 22  # of 28 transitions
