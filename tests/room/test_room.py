"""What every store must do. Each test names the promise that it attacks."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import pytest

from framelane_celery import records
from framelane_celery.errors import RoomError
from framelane_celery.records import ForeignRecord, Record
from framelane_celery.room import (
    FOREIGN_S,
    REVOKE_S,
    TOMBSTONE_S,
    Ends,
    Place,
    Room,
    SlotClaim,
    SpendClaim,
    move,
    open_room,
    stored,
)
from framelane_celery.room.rules import SLOT_WINDOW_S
from tests.room.steps import Make, Open, begun, done, in_parallel, is_revoked, put, wait_in_queue, with_job

RENDER = SlotClaim("render", 3, from_queue=False)
QUEUED = SlotClaim("render", 3, from_queue=True)


# --- records: once per task id, one writer ---


def test_twenty_callers_at_once_write_one_record(room: Room, open_again: Open, make_record: Make) -> None:
    rooms = [room, open_again()]
    mine = [make_record(digest=str(n)) for n in range(20)]
    there = in_parallel(20, lambda n: rooms[n % 2].create(mine[n]))
    winners = [record for record, answer in zip(mine, there, strict=True) if answer is None]
    assert len(winners) == 1
    assert room.read("task-1")[0] == winners[0]
    assert {answer for answer in there if answer is not None} == set(winners)


def test_a_record_may_be_sent_first_and_answered_later(room: Room, make_record: Make) -> None:
    """What goes on in between has answers of its own."""
    with room.creating(make_record()) as there:
        other = put(room, make_record("other"))
        with room.creating(make_record("inner")) as inner_there:
            assert room.read("other")[0] == other
            assert there() is None
        assert inner_there is not None
        assert room.read("task-1")[0] == make_record()
    with room.creating(make_record(digest="second")) as there:
        pass
    with room.creating(make_record(digest="third")) as there:
        assert there() == make_record()


def test_an_answer_that_nobody_reads_is_nobody_elses(room: Room, make_record: Make) -> None:
    other = put(room, make_record("other"))
    for n in range(5):
        with suppress(ZeroDivisionError), room.creating(make_record(f"broken off {n}")):
            raise ZeroDivisionError
        assert room.read("other")[0] == other
        assert room.create(make_record("other")) == other


def test_the_caller_sees_whether_the_same_id_has_the_same_arguments(room: Room, make_record: Make) -> None:
    first = put(room, make_record(digest="same"))
    moved = begun(room, first)
    assert room.create(make_record(digest="same")) == moved  # unchanged, as it is by now
    assert room.create(make_record(digest="other", call="[]")) == moved
    assert room.read(first.id)[0] == moved


def test_of_many_saves_from_one_version_exactly_one_wins(room: Room, open_again: Open, make_record: Make) -> None:
    rooms = [room, open_again()]
    old = put(room, make_record())
    for _ in range(5):
        changes = [replace(old, step=old.step + 1, resends=n) for n in range(12)]
        answers = in_parallel(12, lambda n, o=old, c=changes: rooms[n % 2].save(o, c[n]))  # type: ignore[misc]
        assert sorted(answers) == ["conflict"] * 11 + ["saved"]
        read = room.read(old.id)[0]
        assert read == stored(old, changes[answers.index("saved")])
        old = read


def test_a_record_that_is_not_there_is_none_and_saving_it_a_conflict(room: Room, make_record: Make) -> None:
    ghost = make_record("ghost")
    assert room.read("ghost")[0] is None
    assert room.save(ghost, replace(ghost, step=1)) == "conflict"
    assert room.read("ghost")[0] is None
    assert move(room, "ghost", lambda r, now: r) is None


def test_every_column_comes_back_as_it_went_in(room: Room, make_record: Make) -> None:
    text = "ünï—🎬 \\u0000 \" ' % :x"
    full = make_record(
        "täsk 🎬:{x}",
        call=json.dumps({"args": [text, "x" * 1_000_000]}, ensure_ascii=False),
        until="running",
        step=7,
        version=3,
        due_at=1_700_000_000.123456,
        account="other",
        created_at=1_699_999_999.987654,
        expires_at=1e9 + 0.1,
        run_id="r",
        run_node="celery@höst",
        begun=True,
        resends=2,
        lost_runs=1,
        attempt=4,
        key=3,
        key_id="täsk of the letter",
        budget_from=2,
        request=json.dumps({"a": "y" * 100_000}),
        first_post_at=0.1,
        pauses=1,
        queued_at=0.2,
        bucket="render:eu",
        head_start_s=0.25,
        job_id="render_1",
        job_kind="render",
        job={"id": "render_1", "nested": [1, None, {"ü": True}]},
        accepted_at=0.3,
        deadline_at=0.4,
        reported_at=0.5,
        hinted_at=0.52,
        failure={"code": "internal", "message": text, "status": 500},
        retry_queue="framelane.retry",
        held_at=0.55,
        letter={"at": 0.1, "queue": None, "route": {"code": "source_*"}, "keep_waiting": True, "announced": False},
        replays=2,
        outcome="failed",
        ending="revoked",
        finished_at=0.6,
        history=({"attempt": 1, "at": 0.1}, {"attempt": 2}),
        unread={"later": {"ü": 1}},
        queue="films",
        trace={"opentelemetry": {"traceparent": "00-ü-1"}},
    )
    plain = make_record()
    differ = [f.name for f in fields(Record) if getattr(full, f.name) == getattr(plain, f.name)]
    assert set(differ) == {"task", "digest"}  # a new field must be added here
    put(room, full)
    assert room.read(full.id)[0] == full
    assert room.save(full, replace(full, due_at=None, request=None, call="")) == "saved"
    assert room.read(full.id)[0] == replace(full, version=4, due_at=None, request=None, call="")


def test_lean_records_are_whole_but_for_their_texts(room: Room, make_record: Make) -> None:
    record = put(room, make_record(request="{}", job={"id": "render_1"}))
    with_job(room, record)
    full = room.read(record.id)[0]
    assert full is not None
    assert full.call
    for lean in (room.due("look", 10, lean=True)[0], list(room.scan("look", lean=True)), list(room.scan(lean=True))):
        assert lean == [replace(full, call="", request=None)]


def test_records_are_put_off_together_each_unless_somebody_has_moved_it(room: Room, make_record: Make) -> None:
    token = room.lead("watcher", 60)
    assert token is not None
    waiting = [with_job(room, put(room, make_record(id=f"put-off-{n}")), f"render_{n}") for n in range(3)]
    moved = move(room, waiting[1].id, lambda old, now: records.hinted(old, now=now))
    assert moved is not None
    now = room.read("")[1]
    places = [Place(record.id, record.version, now + 100 + n) for n, record in enumerate(waiting)]
    room.put_off("look", [*places, Place("nobody", 1, now + 100)], token)
    assert [record.id for record in room.due("look", 10)[0]] == [moved.id]
    there = [room.read(record.id)[0] for record in waiting]
    assert [record and record.version for record in there] == [
        record.version for record in (waiting[0], moved, waiting[2])
    ]
    assert there[2] is not None
    assert there[2].due_at == pytest.approx(now + 102, abs=0.01)
    assert [record.id for record in room.scan("look")] == [moved.id, waiting[0].id, waiting[2].id]
    room.put_off("look", [], token)


def test_who_does_not_lead_puts_nothing_off_nor_what_is_in_another_lane(room: Room, make_record: Make) -> None:
    token = room.lead("watcher", 60)
    assert token is not None
    waiting = with_job(room, put(room, make_record()))
    room.put_off("clock", [Place(waiting.id, waiting.version, 9e9)], token)
    room.put_off("look", [Place(waiting.id, waiting.version, 9e9)], token - 1)
    room.resign("watcher")
    room.put_off("look", [Place(waiting.id, waiting.version, 9e9)], token)
    assert [record.id for record in room.due("look", 10)[0]] == [waiting.id]
    assert room.waiting("look") == 1
    assert room.waiting("clock") == 0


def test_ends_are_counted_by_what_told_of_them(room: Room, open_again: Open) -> None:
    assert room.ends() == {}
    room.add_ends({})
    room.add_ends({"hint": Ends(2, 1, 0.25), "sweep": Ends(1)})
    open_again().add_ends({"hint": Ends(1, 1, 0.5)})
    assert room.ends() == {"hint": Ends(3, 2, 0.75), "sweep": Ends(1, 0, 0.0)}
    room.purge()
    assert room.ends()["hint"].jobs == 3


def test_the_clock_is_the_servers_and_advances(room: Room, open_again: Open) -> None:
    first = room.read("x")[1]
    time.sleep(0.01)
    second = open_again().read("x")[1]
    assert 0 < second - first < 60
    assert abs(first - time.time()) < 60


def test_move_gives_up_only_when_the_transition_says_so(room: Room, open_again: Open, make_record: Make) -> None:
    put(room, make_record())
    other = open_again()

    def count(record: Record, now: float) -> Record:
        return replace(record, resends=record.resends + 1)

    in_parallel(8, lambda n: [move(room if n % 2 else other, "task-1", count) for _ in range(5)])
    read = room.read("task-1")[0]
    assert read is not None
    assert (read.resends, read.version) == (40, 40)
    assert move(room, "task-1", lambda r, now: None) is None


def test_forget_takes_back_only_what_nobody_has_moved(room: Room, store: Any, make_record: Make) -> None:
    record = put(room, make_record(due_at=1.0))
    room.forget(record)
    assert (room.read(record.id)[0], room.waiting("clock"), list(room.scan())) == (None, 0, [])
    put(room, record)
    moved = begun(room, record)
    room.forget(record)
    assert room.read(record.id)[0] == moved
    assert list(room.scan()) == [moved]


# --- the watcher's lead ---


def test_one_leads_keeps_its_token_and_hands_over_at_once(room: Room, open_again: Open) -> None:
    other = open_again()
    token = room.lead("a", 30)
    assert token is not None
    assert room.lead("a", 30) == token
    assert other.lead("b", 30) is None
    other.resign("b")  # not its own to give away
    assert other.lead("b", 30) is None
    room.resign("a")
    new = other.lead("b", 30)
    assert new is not None
    assert new > token
    other.resign("b")
    again = other.lead("b", 30)
    assert again is not None
    assert again > new


def test_a_lead_past_its_time_goes_to_another_with_a_larger_token(room: Room, open_again: Open) -> None:
    token = room.lead("a", 0.05)
    assert token is not None
    time.sleep(0.1)
    assert room.lead("a", 0.05) == token  # late, but nobody has taken over
    time.sleep(0.1)
    new = open_again().lead("b", 30)
    assert new is not None
    assert new > token
    assert room.lead("a", 30) is None


def test_of_many_who_want_to_lead_one_does(room: Room, open_again: Open) -> None:
    rooms = [room, open_again()]
    tokens = in_parallel(10, lambda n: rooms[n % 2].lead(f"w{n}", 30))
    assert sum(token is not None for token in tokens) == 1


def test_a_deposed_watcher_saves_nothing(room: Room, open_again: Open, make_record: Make) -> None:
    old = put(room, make_record())
    token = room.lead("a", 0.01)
    assert room.save(old, replace(old, resends=1), token=token) == "saved"
    time.sleep(0.05)
    other = open_again()
    new = other.lead("b", 30)
    read = room.read(old.id)[0]
    assert read is not None
    assert room.save(read, replace(read, resends=2), token=token) == "not_leader"
    assert move(room, old.id, lambda r, now: replace(r, resends=2), token=token) is None
    assert room.read(old.id)[0] == read
    assert other.save(read, replace(read, resends=3), token=new) == "saved"
    other.resign("b")
    read = room.read(old.id)[0]
    assert read is not None
    assert room.save(read, read, token=new) == "not_leader"
    assert room.save(read, read) == "saved"  # a run needs no token


def test_without_any_leader_a_token_is_worth_nothing(room: Room, make_record: Make) -> None:
    old = put(room, make_record())
    assert room.save(old, old, token=0) == "not_leader"
    assert room.save(old, old, token=1) == "not_leader"


# --- slots ---


def test_exactly_so_many_slots_in_any_minute(
    room: Room, open_again: Open, store: Any, namespace: str, make_record: Make
) -> None:
    rooms = [room, open_again()]
    mine = [put(room, make_record(str(n))) for n in range(12)]
    answers = in_parallel(12, lambda n: rooms[n % 2].save(mine[n], replace(mine[n], step=1), claim=RENDER))
    assert sorted(answers) == ["no_slot"] * 9 + ["saved"] * 3
    assert room.slots_free("render", 3) == 0
    assert room.slots_free("render", 5) == 2
    assert room.slots_free("task", 3) == 3
    for record, answer in zip(mine, answers, strict=True):  # no slot: nothing was written
        read = room.read(record.id)[0]
        assert read is not None
        assert (read.version, read.step) == ((1, 1) if answer == "saved" else (0, 0))
    losers = [record for record, answer in zip(mine, answers, strict=True) if answer == "no_slot"]
    store.age_slots(namespace, "render", SLOT_WINDOW_S - 20)
    assert room.save(losers[0], losers[0], claim=RENDER) == "no_slot"
    store.age_slots(namespace, "render", 20.1)
    assert room.slots_free("render", 3) == 3
    assert [room.save(loser, loser, claim=RENDER) for loser in losers[:4]] == ["saved"] * 3 + ["no_slot"]


def test_a_conflict_takes_no_slot(room: Room, make_record: Make) -> None:
    old = put(room, make_record())
    assert room.save(old, old) == "saved"
    assert room.save(old, old, claim=RENDER) == "conflict"
    assert room.slots_free("render", 3) == 3
    token = room.lead("a", 30)
    read = room.read(old.id)[0]
    assert read is not None
    assert room.save(read, read, claim=RENDER, token=(token or 0) + 1) == "not_leader"
    assert room.slots_free("render", 3) == 3


def test_who_waits_in_the_queue_goes_first(room: Room, make_record: Make) -> None:
    first, late = put(room, make_record("first")), put(room, make_record("late"))
    queued = wait_in_queue(room, first)
    assert (queued.lane, room.waiting("slot:render")) == ("slot:render", 1)
    assert room.save(late, replace(late, step=1), claim=RENDER) == "no_slot"
    assert room.save(late, replace(late, step=1), claim=RENDER._replace(bucket="task")) == "saved"  # another queue
    late = wait_in_queue(room, stored(late, replace(late, step=1)))
    assert [record.id for record in room.due("slot:render", 10)[0]] == ["first", "late"]
    woken = replace(queued, until="start", step=queued.step + 1, due_at=room.read("x")[1] + 60)
    assert room.save(queued, woken, claim=QUEUED) == "saved"
    assert [record.id for record in room.due("slot:render", 10)[0]] == ["late"]
    assert room.slots_free("render", 3) == 2


def test_a_brake_stops_everyone_and_the_longer_one_stays(room: Room, open_again: Open, make_record: Make) -> None:
    old = put(room, make_record())
    room.brake("render", 30)
    open_again().brake("render", 0.01)
    time.sleep(0.05)
    assert room.slots_free("render", 3) == 0
    assert room.save(old, old, claim=RENDER) == "no_slot"
    assert room.save(old, old, claim=QUEUED) == "no_slot"
    assert room.save(old, old, claim=RENDER._replace(bucket="task")) == "saved"


def test_a_brake_ends(room: Room, make_record: Make) -> None:
    old = put(room, make_record())
    room.brake("render", 2)
    assert room.slots_free("render", 3) == 0
    time.sleep(2.1)
    assert room.slots_free("render", 3) == 3
    assert room.save(old, old, claim=RENDER) == "saved"


# --- what to look at ---


def test_due_is_in_order_up_to_the_limit_and_up_to_now(room: Room, make_record: Make) -> None:
    now = room.read("x")[1]
    for n, offset in enumerate([-1, -3, -2, 30, -5]):
        put(room, make_record(str(n), due_at=now + offset))
    put(room, make_record("nobody looks"))
    found, clock = room.due("clock", 3)
    assert [record.id for record in found] == ["4", "1", "2"]
    assert clock >= now
    assert [record.id for record in room.due("clock", 10)[0]] == ["4", "1", "2", "0"]
    assert (room.waiting("clock"), room.waiting("look")) == (5, 0)
    assert room.due("look", 10)[0] == []


def test_a_record_is_in_one_lane_at_a_time(room: Room, make_record: Make) -> None:
    record = put(room, make_record(due_at=1.0))
    lanes = ("clock", "look", "slot:render")

    def waiting() -> tuple[int, ...]:
        return tuple(room.waiting(lane) for lane in lanes)

    assert waiting() == (1, 0, 0)
    wait_in_queue(room, record)
    assert waiting() == (0, 0, 1)
    move(room, record.id, lambda r, now: records.wake(r, now=now, resend_after_s=60))
    assert waiting() == (1, 0, 0)
    with_job(room, record)
    assert waiting() == (0, 1, 0)
    move(room, record.id, lambda r, now: records.revoke(r, reason="revoked", now=now))
    assert waiting() == (1, 0, 0)
    move(room, record.id, lambda r, now: records.end(r, now=now))
    assert waiting() == (0, 0, 0)
    assert all(room.due(lane, 10)[0] == [] for lane in lanes)


def test_a_hint_finds_its_record_only_while_it_waits_for_the_job(room: Room, make_record: Make) -> None:
    record = put(room, make_record())
    assert room.task_of("render_1") is None
    with_job(room, record)
    assert room.task_of("render_1") == record.id
    move(room, record.id, lambda r, now: replace(r, due_at=now + 60))
    assert room.task_of("render_1") == record.id
    assert room.due("look", 10)[0] == []
    move(room, record.id, lambda r, now: records.hinted(r, now=now))
    assert [r.id for r in room.due("look", 10)[0]] == [record.id]
    move(room, record.id, lambda r, now: records.complete(r, job={"id": "render_1"}, now=now, resend_after_s=60))
    assert room.task_of("render_1") is None


def test_scan_yields_everything_but_what_is_done_oldest_first(room: Room, make_record: Make) -> None:
    for n in range(450):  # more than two pages; many of one age
        put(room, make_record(f"{n:03}", created_at=float(n // 100), due_at=None if n % 2 else 1.0))
    done(room, make_record("449"))
    expected = {f"{n:03}" for n in range(449)}
    found = list(room.scan())
    assert len(found) == 449
    assert {record.id for record in found} == expected
    assert [record.created_at for record in found] == sorted(record.created_at for record in found)


def test_scan_goes_on_when_records_end_meanwhile(room: Room, make_record: Make) -> None:
    for n in range(450):
        put(room, make_record(f"{n:03}", created_at=0.0))
    seen = []
    for record in room.scan():
        seen.append(record.id)
        done(room, record)
    assert len(seen) == len(set(seen)) == 450
    assert list(room.scan()) == []


def test_scan_of_a_lane_is_in_order_of_the_due_times_due_or_not(room: Room, make_record: Make) -> None:
    for n in range(420):  # more than two pages; many at one instant
        put(room, make_record(f"{n:03}", due_at=float((n * 7919 % 5) * 1e9)))
    with_job(room, put(room, make_record("elsewhere")))
    put(room, make_record("nobody looks"))
    found = list(room.scan("clock"))
    assert len(found) == 420
    assert [record.due_at for record in found] == sorted(float(n % 5 * 1e9) for n in range(420))
    assert len({record.id for record in found}) == 420
    assert [record.id for record in room.scan("look")] == ["elsewhere"]
    assert list(room.scan("slot:render")) == []


@pytest.mark.parametrize("due_at", [(1.0, 2.0), (0.0, 0.0)], ids=["apart", "at one instant"])
def test_scan_of_a_lane_skips_nobody_while_the_lane_is_emptied(
    room: Room, make_record: Make, due_at: tuple[float, float]
) -> None:
    for n in range(450):
        put(room, make_record(f"{n:03}", due_at=due_at[0] + n * (due_at[1] - due_at[0])))
    seen = []
    for record in room.scan("clock"):
        seen.append(record.id)
        assert room.save(record, replace(record, due_at=None)) == "saved"
    assert seen == [f"{n:03}" for n in range(450)]
    assert room.waiting("clock") == 0


def test_scan_of_a_lane_skips_nobody_and_ends_while_places_in_it_change(room: Room, make_record: Make) -> None:
    for n in range(450):
        put(room, make_record(f"{n:03}", due_at=float(n)))
    seen = []
    for record in room.scan("clock"):
        seen.append(record.id)
        assert room.save(record, replace(record, due_at=(record.due_at or 0) + 1000)) == "saved"
    assert seen == [f"{n:03}" for n in range(450)]  # each once, though all have come again
    assert room.waiting("clock") == 450


# --- foreign records ---

FOREIGN = [
    '{"format":99,"task":"t","digest":"d","of":"tomorrow"}',
    "not json",
    "[]",
]


@pytest.mark.parametrize("state", FOREIGN)
def test_a_foreign_record_is_left_alone_byte_for_byte(
    room: Room, store: Any, namespace: str, make_record: Make, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    put(room, make_record("foreign", due_at=1.0))
    put(room, make_record("mine", due_at=2.0, created_at=1.0))
    store.put_state(namespace, "foreign", state)
    before = store.row(namespace, "foreign")
    with caplog.at_level(logging.WARNING):
        assert [r.id for r in room.due("clock", 1)[0]] == ["mine"]  # it does not block
        assert [r.id for r in room.due("clock", 1)[0]] == ["mine"]
        assert [r.id for r in room.scan()] == ["mine"]
        assert [r.id for r in room.scan("clock")] == ["mine"]
    assert sum("foreign" in message for message in caplog.messages) == 1
    with pytest.raises(ForeignRecord):
        room.read("foreign")
    with pytest.raises(ForeignRecord):
        room.create(make_record("foreign"))
    assert store.row(namespace, "foreign") == before
    assert room.waiting("clock") == 2  # kept in its lane, for who can read it
    assert room.purge() == 0


def test_many_foreign_records_neither_block_nor_spin(room: Room, store: Any, namespace: str, make_record: Make) -> None:
    for n in range(25):
        put(room, make_record(f"f{n}", due_at=1.0))
        store.put_state(namespace, f"f{n}", FOREIGN[0])
    put(room, make_record("mine", due_at=2.0))
    assert [r.id for r in room.due("clock", 10)[0]] == ["mine"]
    assert [r.id for r in room.due("clock", 10)[0]] == ["mine"]
    assert FOREIGN_S >= 60


def test_foreign_records_in_the_queue_do_not_stop_it(room: Room, store: Any, namespace: str, make_record: Make) -> None:
    wait_in_queue(room, put(room, make_record("foreign")))
    late = put(room, make_record("late"))
    store.put_state(namespace, "foreign", FOREIGN[0])
    assert room.save(late, late, claim=RENDER) == "no_slot"
    assert room.due("slot:render", 10)[0] == []
    assert room.save(late, late, claim=RENDER) == "saved"


def test_what_has_vanished_stops_nobody(room: Room, store: Any, namespace: str, make_record: Make) -> None:
    for n in range(5):
        put(room, make_record(f"gone{n}", due_at=1.0))
        store.vanish(namespace, f"gone{n}")
    put(room, make_record("mine", due_at=2.0, created_at=1.0))
    assert [r.id for r in room.scan("clock")] == ["mine"]
    assert [r.id for r in room.due("clock", 2)[0]] == ["mine"]
    assert [r.id for r in room.scan()] == ["mine"]
    assert room.waiting("clock") == 1


# --- namespaces ---


def test_two_namespaces_in_one_store_do_not_see_each_other(
    room: Room, store: Any, namespace: str, make_record: Make
) -> None:
    other = store.open(f"{namespace}-b")
    try:
        record = put(room, make_record(due_at=1.0))
        with_job(room, record)
        assert other.read(record.id)[0] is None
        put(other, make_record(digest="other", due_at=1.0))
        assert (other.task_of("render_1"), room.task_of("render_1")) == (None, record.id)
        assert [r.digest for r in other.scan()] == ["other"]
        assert [r.digest for r in room.scan()] == ["d"]
        assert other.due("look", 10)[0] == []
        room.brake("render", 60)
        room.add_revokes(["id:x"])
        assert other.slots_free("render", 3) == 3
        assert is_revoked(other, ["id:x"]) is False
        assert other.revokes_since(0)[0] == []
        assert room.lead("a", 30) is not None
        assert other.lead("b", 30) is not None
        room.hold("default", "operator", "r")
        record = put(room, make_record("spends"))
        assert room.save(record, record, claim=SpendClaim("default", 1.0, None, None)) == "saved"
        assert (other.holds()[0], other.release("default"), other.spent("default")) == ([], False, (0, 0.0))
    finally:
        other.close()
        store.clean(f"{namespace}-b")


# --- lives ---


def test_a_tombstone_outlives_the_key_and_is_forgotten_then(
    room: Room, store: Any, namespace: str, make_record: Make
) -> None:
    record = done(room, put(room, make_record(call="x" * 1000)))
    assert store.life_s(namespace, record.id) == pytest.approx(TOMBSTONE_S, abs=30)
    assert TOMBSTONE_S > records.KEY_LIFE_S
    assert room.create(make_record()) == record  # the id is still taken
    assert room.purge() == 0
    store.end_life(namespace, record.id)
    assert room.read(record.id)[0] is None
    assert room.create(make_record(digest="new")) is None  # a new piece of work
    assert store.life_s(namespace, record.id) is None


def test_purge_forgets_what_has_outlived_its_life(room: Room, store: Any, namespace: str, make_record: Make) -> None:
    for n in range(3):
        done(room, put(room, make_record(str(n))))
        store.end_life(namespace, str(n))
    put(room, make_record("mine"))
    assert room.purge() == (0 if store.name == "redis" else 3)
    assert room.purge() == 0
    assert [r.id for r in room.scan()] == ["mine"]


def test_what_is_replaced_for_good_is_forgotten_unless_it_goes_on(
    room: Room, store: Any, namespace: str, make_record: Make
) -> None:
    record = begun(room, put(room, make_record()))
    move(room, record.id, lambda r, now: records.start_replacing(r, run_id="run", now=now, lease_s=60))
    assert store.life_s(namespace, record.id) is None
    move(room, record.id, lambda r, now: records.end_replacing(r))
    assert store.life_s(namespace, record.id) == pytest.approx(TOMBSTONE_S, abs=30)
    assert room.waiting("clock") == 0
    again = move(
        room,
        record.id,
        lambda r, now: records.redo(r, run_id=None, task="t", call="{}", digest="e", due_at=now, at_once=True),
    )
    assert again is not None
    assert store.life_s(namespace, record.id) is None
    assert list(room.scan()) == [again]


# --- revokes ---


def test_revokes_are_remembered_for_a_while(room: Room, open_again: Open, store: Any, namespace: str) -> None:
    start = room.read("x")[1]
    room.add_revokes([])
    room.add_revokes(iter(["id:a", "stamp:batch=ü%_'", "id:a"]))
    marks, now = open_again().revokes_since(start)
    assert sorted(marks) == ["id:a", "stamp:batch=ü%_'"]
    assert now >= start
    time.sleep(0.01)
    later = room.read("x")[1]
    assert room.revokes_since(later)[0] == []
    room.add_revokes(["id:a"])  # heard again: news again
    assert room.revokes_since(later)[0] == ["id:a"]
    assert is_revoked(room, ["id:b", "stamp:batch=ü%_'"])
    assert not is_revoked(room, ["id:b", "stamp:batch=other"])
    assert not is_revoked(room, [])
    store.age_revokes(namespace, REVOKE_S + 1)
    assert not is_revoked(room, ["id:a"])
    assert room.revokes_since(0.0)[0] == []


def test_what_is_revoked_is_not_saved_and_takes_no_slot(room: Room, make_record: Make) -> None:
    record = put(room, make_record())
    room.add_revokes([f"id:{record.id}"])
    changed = replace(record, step=record.step + 1)
    assert room.save(record, changed, claim=RENDER, unless_revoked=[f"id:{record.id}"]) == "revoked"
    assert room.slots_free("render", RENDER.per_minute) == RENDER.per_minute
    assert room.read(record.id)[0] == record
    stale = replace(record, version=record.version + 7)
    assert room.save(stale, changed, unless_revoked=[f"id:{record.id}"]) == "conflict"
    assert room.save(record, changed, claim=RENDER, unless_revoked=["id:other"]) == "saved"


def test_a_thousand_revokes_at_once(room: Room) -> None:
    marks = [f"id:{n}" for n in range(1000)]
    room.add_revokes(marks)
    assert sorted(room.revokes_since(0.0)[0]) == sorted(marks)
    assert is_revoked(room, [f"id:none{n}" for n in range(500)]) is False


# --- the store is away ---


def test_a_store_that_is_away_is_a_room_error_at_once_and_shows_no_password(store: Any, make_record: Make) -> None:
    room, record = open_room(store.away_url, "away"), make_record()
    calls: list[Callable[[], Any]] = [
        lambda: room.create(record),
        lambda: room.read("x"),
        lambda: room.save(record, record, token=1, claim=RENDER),
        lambda: room.forget(record),
        lambda: room.due("clock", 1),
        lambda: room.waiting("clock"),
        lambda: list(room.scan()),
        lambda: list(room.scan("clock")),
        lambda: room.task_of("j"),
        lambda: room.lead("a", 1),
        lambda: room.resign("a"),
        lambda: room.brake("render", 1),
        lambda: room.slots_free("render", 1),
        lambda: room.save(record, record, claim=SpendClaim("a", 1.0, None, None)),
        lambda: room.hold("a", "operator", "r"),
        lambda: room.holds(),
        lambda: room.release("a"),
        lambda: room.drop_hold("a"),
        lambda: room.spent("a"),
        lambda: room.add_revokes(["id:x"]),
        lambda: room.revokes_since(0),
        lambda: room.save(record, record, unless_revoked=["id:x"]),
    ]
    started_at = time.monotonic()
    for call in calls:
        with pytest.raises(RoomError) as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value))
        assert store.name == "sqlite" or "s3cret-pw" not in shown  # there it is part of the path
    assert time.monotonic() - started_at < 40  # each of them would wait for a timeout of 5 s
    room.close()
