"""Dead letters: listed, replayed once, thrown away, carried elsewhere. On a room of SQLite, without a broker."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord
from celery.exceptions import Reject
from freezegun import freeze_time

from framelane_celery import FramelaneTask, RenderRequest, dead_letters, records, wakeups
from framelane_celery.dead_letters import NoSuchLetter, Replay
from framelane_celery.errors import DuplicateTask, FramelaneError, InvalidArguments, RoomError
from framelane_celery.records import Record
from framelane_celery.room import TOMBSTONE_S, Room, move, room_of
from framelane_celery.settings import settings_of

NOW = 1_000_000.0
COMPOSITION: dict[str, Any] = {"elements": [{"type": "text", "text": "a secret", "duration": 2}]}
OTHER: dict[str, Any] = {
    "elements": [{"type": "text", "text": "another secret", "duration": 3}],
    "width": 640,
    "height": 360,
}
FAILURE = {"code": "source_not_found", "message": "Source URL returned 404"}
JOB = {"id": "render_1", "status": "failed", "error": FAILURE}
TOLD = {"at": NOW, "queue": "shop.dead", "route": {"code": "*"}, "keep_waiting": False, "announced": True}
NEW = {**TOLD, "announced": False}
FAILED: dict[str, Any] = {
    "until": "dead", "step": 7, "due_at": NOW, "created_at": NOW - 60, "begun": True, "request": '{"bytes":1}',
    "first_post_at": NOW - 50, "job_id": "render_1", "job_kind": "render", "job": JOB, "accepted_at": NOW - 49,
    "letter": TOLD, "failure": FAILURE, "outcome": "failed",
    "history": ({"attempt": 1, "job_id": "render_1", "outcome": "failed", "at": NOW, "code": "source_not_found"},),
}  # fmt: skip
KEPT: dict[str, Any] = {**FAILED, "until": "release", "letter": {**TOLD, "keep_waiting": True}}


def make_app(path: Path, name: str = "shop") -> Celery:
    app = Celery(name, set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.framelane = {"api_key": "fl_test_key", "room_url": f"sqlite:///{path}/{name}.sqlite"}

    @app.task(base=FramelaneTask, name="shop.promo", shared=False)
    def promo(product_id: int, language: str = "en") -> RenderRequest:
        return RenderRequest.model_validate(COMPOSITION)

    @app.task(name="shop.publish", shared=False)
    def publish(job: Any) -> None:
        """A plain task of the tail."""

    return app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    app = make_app(tmp_path)
    yield app
    room_for(app).close()
    app.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Celery]:
    """Another app, with a room of its own."""
    app = make_app(tmp_path, "elsewhere")
    yield app
    room_for(app).close()
    app.close()


def room_for(app: Celery) -> Room:
    return room_of(app, settings_of(app))


def make_letter(
    app: Celery,
    id: str = "letter",
    args: tuple[Any, ...] = (COMPOSITION,),
    kwargs: dict[str, Any] | None = None,
    task: str = "framelane.render",
    options: dict[str, Any] | None = None,
    **fields: Any,
) -> Record:
    shown = wakeups.shown(args, kwargs or {})
    call = wakeups.call_of(app.tasks[task], args, kwargs or {}, {**shown, **(options or {})})
    record = Record(id=id, task=task, call=call.to_text(), digest=wakeups.digest_of(call), **{**FAILED, **fields})
    assert room_for(app).create(record) is None
    return record


def read(app: Celery, id: str) -> Record:
    record, _ = room_for(app).read(id)
    assert record is not None
    return record


def everything(app: Celery) -> dict[str, Record]:
    return {record.id: record for record in room_for(app).scan()}


def call_in(record: Record) -> wakeups.Call:
    return wakeups.Call.from_text(record.call)


def finished(app: Celery, id: str) -> None:
    """Let a replayed task go on to its end."""
    room = room_for(app)
    for transition in (
        lambda r, now: records.wake(r, now=now, resend_after_s=60),
        lambda r, now: records.begin(r, step=r.step, run_id="run", node="n", now=now, lease_s=60),
        lambda r, now: records.accept(r, run_id="run", job=JOB, kind="render", now=now, deadline_s=60),
        lambda r, now: records.complete(r, job=JOB, now=now, resend_after_s=60),
        lambda r, now: records.begin(r, step=r.step, run_id="run", node="n", now=now, lease_s=60),
        lambda r, now: records.finish(r, run_id="run", now=now),
    ):
        assert move(room, id, transition) is not None


# --- listing -----------------------------------------------------------------------------------------------------


def test_listing_changes_nothing(app: Celery) -> None:
    """Reading a queue by get-and-requeue spends its delivery limit (broker_facts.md, 6): letters are no messages."""
    make_letter(app)
    make_letter(app, "kept", **KEPT)
    before = everything(app)
    for _ in range(50):
        assert [letter.id for letter in dead_letters.letters(room_for(app))] == ["kept", "letter"]
    assert everything(app) == before


def test_letters_are_found_by_code_and_task(app: Celery) -> None:
    make_letter(app, "a")
    make_letter(app, "b", (7,), task="shop.promo", failure={"code": "internal", "message": "x"}, letter=NEW)
    make_letter(app, "held", letter=None, until="release")  # on hold is no letter
    make_letter(app, "revoked", until="release", ending="revoked")

    def ids(**wanted: Any) -> set[str]:
        return {letter.id for letter in dead_letters.letters(room_for(app), **wanted)}

    assert ids() == {"a", "b"}
    assert (ids(code="internal"), ids(task="framelane.render")) == ({"b"}, {"a"})
    assert (ids(code="internal", task="framelane.render"), ids(code="nothing")) == (set(), set())


def test_a_letter_that_is_announced_while_it_is_listed_is_listed_once(app: Celery) -> None:
    make_letter(app, letter=NEW)
    listing = dead_letters.letters(room_for(app))
    assert next(listing).id == "letter"
    assert move(room_for(app), "letter", lambda r, now: records.announced(r, step=r.step)) is not None
    assert list(listing) == []


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("nobody", "nobody is no dead letter: no such task"),
        ("waits", "waits is no dead letter: the task is job"),
        ("held", "held is no dead letter: the task is release"),
        ("revoked", "revoked is no dead letter: the task is release"),
    ],
)
@pytest.mark.parametrize("act", ["find", "replay", "discard"])
def test_what_is_no_letter_is_told(app: Celery, id: str, said: str, act: str) -> None:
    make_letter(app, "waits", until="job", letter=None, outcome=None)
    make_letter(app, "held", until="release", letter=None, outcome=None)
    make_letter(app, "revoked", **{**KEPT, "ending": "revoked"})
    before = everything(app)
    acts: dict[str, Callable[[], Any]] = {
        "find": lambda: dead_letters.find(room_for(app), id),
        "replay": lambda: dead_letters.replay(app, id),
        "discard": lambda: dead_letters.discard(app, id),
    }
    with pytest.raises(NoSuchLetter) as caught:
        acts[act]()
    assert str(caught.value) == said
    assert everything(app) == before


# --- replaying ---------------------------------------------------------------------------------------------------


def test_two_replays_are_one_piece_of_work(app: Celery) -> None:
    letter = make_letter(app)
    first = dead_letters.replay(app, "letter")
    second = dead_letters.replay(app, "letter")
    assert (first.letter_id, first.is_new, second) == ("letter", True, first._replace(is_new=False))
    assert first.task_id != "letter"
    new, old = read(app, first.task_id), read(app, "letter")
    assert (new.until, new.step, new.attempt, new.attempts_made) == ("slot", 0, 2, 1)
    assert (new.call, new.digest) == (letter.call, letter.digest)
    assert (old.until, (old.letter or {})["replayed_as"]) == ("done", first.task_id)
    assert list(everything(app)) == [first.task_id]
    finished(app, first.task_id)
    assert dead_letters.replay(app, "letter") == second  # also once it is over
    assert everything(app) == {}


def test_a_replay_that_was_cut_short_is_gone_on_with(app: Celery, tmp_path: Path) -> None:
    """Killed after the new record was written, before the letter was put away: record, then message."""
    (tmp_path / "other").mkdir()
    twin = make_app(tmp_path / "other")  # of the same namespace, so that its ids are the same
    twin.conf.framelane = {**twin.conf.framelane, "namespace": "shop"}
    make_letter(twin)
    new = read(twin, dead_letters.replay(twin, "letter").task_id)
    make_letter(app)
    assert room_for(app).create(new) is None
    with pytest.raises(DuplicateTask):
        dead_letters.replay(app, "letter", args=[OTHER])
    assert dead_letters.replay(app, "letter") == Replay("letter", new.id, is_new=False)
    assert everything(app) == {new.id: new}
    room_for(twin).close()
    twin.close()


def test_two_rooms_and_two_letters_have_different_heirs(app: Celery, elsewhere: Celery) -> None:
    for each in (app, elsewhere):
        make_letter(each, "a")
        make_letter(each, "b")
    ids = {dead_letters.replay(each, id).task_id for each in (app, elsewhere) for id in ("a", "b")}
    assert len(ids) == 4


def test_a_pipeline_that_was_kept_waiting_goes_on_under_its_own_id(app: Celery) -> None:
    tail = app.signature("shop.publish")
    letter = make_letter(app, options={"link": tail, "group_id": "g", "chord": dict(tail)}, **KEPT)
    assert dead_letters.replay(app, "letter") == Replay("letter", "letter", is_new=True)
    again = read(app, "letter")
    assert (again.until, again.step, again.attempt, again.key, again.letter) == ("slot", 8, 2, 2, None)
    assert call_in(again).options == call_in(letter).options  # chord and tail included
    assert dead_letters.replay(app, "letter") == Replay("letter", "letter", is_new=False)
    with pytest.raises(DuplicateTask):
        dead_letters.replay(app, "letter", args=[{**COMPOSITION, "width": 640}])
    assert read(app, "letter") == again


@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_who_replay_a_letter_at_once_are_one(app: Celery, fields: dict[str, Any]) -> None:
    make_letter(app, **fields)
    barrier = threading.Barrier(4)

    def replay(_: int) -> Replay | None:
        barrier.wait(10)
        try:
            return dead_letters.replay(app, "letter")
        except NoSuchLetter:  # it had gone on before this one looked
            return None

    with ThreadPoolExecutor(4) as pool:
        done = [each for each in pool.map(replay, range(4)) if each is not None]
    assert [each.is_new for each in done].count(True) == 1
    assert {each.task_id for each in done} == set(everything(app))
    assert len(everything(app)) == 1


def test_a_new_id_leaves_the_old_chord_with_its_whole_tail(app: Celery) -> None:
    """The chord has failed already: nothing of the replay may count as a part of it. The tail itself comes along."""
    publish = app.tasks["shop.publish"]
    body = dict(publish.s().set(task_id="body-of-the-old-chord"))
    part = {"chord": body, "group_id": "g", "group_index": 1}
    inner = chord([publish.s(), publish.s()], publish.s().set(**part))
    deep = chain(publish.s(), publish.s().set(**part))
    tail = [publish.s().set(task_id="last", **part), publish.s().set(task_id="next")]
    for name, steps in {"letter": tail, "nested": [dict(inner)], "deep": [dict(deep)]}.items():
        make_letter(app, name, options={**part, "chain": [dict(step) for step in steps], "link": publish.s()})
        options = call_in(read(app, dead_letters.replay(app, name).task_id)).options
        assert "body-of-the-old-chord" not in json.dumps(options)
        assert not {"chord", "group_id", "group_index"} & set(options)
        assert len(options["chain"]) == len(steps)
        assert len(options["link"]) == 1


def test_the_ids_of_the_tail_stay(app: Celery) -> None:
    """So that a tail of Framelane tasks which is sent twice is one piece of work."""
    tail = chain(app.tasks["shop.publish"].s(), app.tasks["shop.publish"].s())
    letter = make_letter(app, options={"link": tail})
    again = read(app, dead_letters.replay(app, "letter").task_id)
    assert call_in(again).options["link"] == call_in(letter).options["link"]


# --- with other arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_edited_arguments_are_shown_without_bodies(app: Celery, fields: dict[str, Any]) -> None:
    make_letter(app, options={"queue": "renders"}, **fields)
    call = call_in(read(app, dead_letters.replay(app, "letter", args=[OTHER]).task_id))
    assert (call.args, call.kwargs, call.options["queue"]) == ([OTHER], {}, "renders")
    assert (call.options["argsrepr"], call.options["kwargsrepr"]) == ("(<elements, width, height>)", "{}")
    assert "secret" not in json.dumps(call.options)


def test_only_what_is_given_is_edited(app: Celery) -> None:
    make_letter(app, "a", (7,), {"language": "de"}, task="shop.promo")
    make_letter(app, "b", (7,), {"language": "de"}, task="shop.promo")
    a = read(app, dead_letters.replay(app, "a", args=[8]).task_id)
    b = read(app, dead_letters.replay(app, "b", kwargs={"language": "fr"}).task_id)
    assert (call_in(a).args, call_in(a).kwargs) == ([8], {"language": "de"})
    assert (call_in(b).args, call_in(b).kwargs) == ([7], {"language": "fr"})
    assert a.digest == wakeups.digest_of(call_in(a))


@pytest.mark.parametrize(
    ("task", "edit"),
    [
        ("framelane.render", {"args": [{"elements": 7}]}),
        ("framelane.render", {"args": [7]}),
        ("shop.promo", {"args": [1, "en", 3]}),
        ("shop.promo", {"kwargs": {"colour": "red"}}),
        ("shop.promo", {"args": [object()]}),
    ],
)
@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_edited_arguments_are_checked(app: Celery, task: str, edit: dict[str, Any], fields: dict[str, Any]) -> None:
    make_letter(app, args=(COMPOSITION,) if task == "framelane.render" else (7,), task=task, **fields)
    before = everything(app)
    with pytest.raises(InvalidArguments):
        dead_letters.replay(app, "letter", **edit)
    assert everything(app) == before


def test_a_task_that_this_process_does_not_know_is_replayed_unchecked(app: Celery) -> None:
    """The admin's process may not import the workers' tasks."""
    make_letter(app, args=(7,), task="shop.promo")
    del app.tasks["shop.promo"]
    again = read(app, dead_letters.replay(app, "letter", args=[8]).task_id)
    assert (again.task, call_in(again).args) == ("shop.promo", [8])


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ({}, {"args": [OTHER]}, False),
        ({"args": [OTHER]}, {"args": [OTHER]}, True),
        ({"args": [OTHER]}, {"args": [OTHER], "kwargs": {}}, True),
        ({"args": [OTHER]}, {}, True),  # whatever it has become
        ({"args": [OTHER]}, {"args": [COMPOSITION]}, False),
        ({}, {"args": [COMPOSITION]}, True),
    ],
)
def test_a_second_replay_with_other_arguments_is_refused(
    app: Celery, first: dict[str, Any], second: dict[str, Any], is_same: bool, is_over: bool
) -> None:
    make_letter(app)
    done = dead_letters.replay(app, "letter", **first)
    if is_over:
        finished(app, done.task_id)
    before = everything(app)
    if is_same:
        assert dead_letters.replay(app, "letter", **second) == done._replace(is_new=False)
    else:
        with pytest.raises(DuplicateTask) as caught:
            dead_letters.replay(app, "letter", **second)
        assert caught.value.task_id == done.task_id
    assert everything(app) == before


# --- paying ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_a_job_that_completed_is_not_paid_for_again(app: Celery, fields: dict[str, Any]) -> None:
    """The runs that should have told it died: the replay has only to tell it."""
    completed = {"outcome": "worker_lost", "job": {"id": "render_1", "status": "completed"}, "lost_runs": 5}
    letter = make_letter(app, **{**fields, **completed})
    again = read(app, dead_letters.replay(app, "letter").task_id)
    assert (again.until, again.outcome, again.job_id, again.attempt) == ("start", "completed", "render_1", 1)
    assert (again.lost_runs, again.letter) == (0, None)
    assert key_of(app, again) == key_of(app, letter)


def key_of(app: Celery, record: Record) -> str:
    return record.idempotency_key(room_for(app).namespace)


@pytest.mark.parametrize("fields", [FAILED, KEPT])
@pytest.mark.parametrize(
    ("outcome", "job_id", "posted", "is_same"),
    [
        ("worker_lost", None, '{"bytes":1}', True),  # posted, never answered: perhaps there is a job
        ("failed", None, '{"bytes":1}', True),  # refused after a POST that was never answered
        ("outcome_unknown", None, '{"bytes":1}', False),  # the operator was told, and has looked
        ("failed", "render_1", '{"bytes":1}', False),
        ("failed", None, None, False),
    ],
)
def test_the_key_and_bytes_of_a_replay(
    app: Celery, fields: dict[str, Any], outcome: str, job_id: str | None, posted: str | None, is_same: bool
) -> None:
    posted_at = NOW - 50 if posted else None
    state = {"outcome": outcome, "job_id": job_id, "job": None, "request": posted, "first_post_at": posted_at, "key": 3}
    letter = make_letter(app, **{**fields, **state})
    again = read(app, dead_letters.replay(app, "letter").task_id)
    assert (key_of(app, again) == key_of(app, letter)) == is_same
    assert (again.request, again.first_post_at) == ((posted, NOW - 50) if is_same else (None, None))
    assert again.job_id is None


def test_a_letter_that_was_never_answered_cannot_be_asked_for_from_another_namespace(
    app: Celery, elsewhere: Celery
) -> None:
    """Its key would be another; so it says that a job may exist."""
    make_letter(app, outcome="worker_lost", job_id=None, job=None)
    line = dead_letters.to_line(read(app, "letter"), room_for(app).namespace)
    assert dead_letters.from_line(elsewhere, line)
    assert read(elsewhere, "letter").outcome == "outcome_unknown"
    room_for(app).forget(read(app, "letter"))
    assert dead_letters.from_line(app, line)
    again = read(app, dead_letters.replay(app, "letter").task_id)
    assert (again.key_id, again.key, again.request) == ("letter", 1, '{"bytes":1}')


def test_a_replay_that_died_half_way_is_one_job_even_when_it_is_forgotten(app: Celery) -> None:
    """Between the new record and the end of the letter; what it was replayed as is remembered for two days."""
    letter = make_letter(app)
    _, now = room_for(app).read("letter")
    told = {**(letter.letter or {}), "replaying_at": now - TOMBSTONE_S}
    assert room_for(app).save(letter, replace(letter, letter=told)) == "saved"
    done = dead_letters.replay(app, "letter")
    assert not done.is_new
    assert everything(app) == {}
    assert room_for(app).read(done.task_id)[0] is None


@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_what_was_never_answered_is_replayed_as_it_was_or_not_at_all(app: Celery, fields: dict[str, Any]) -> None:
    """Its job, if there is one, is of the old arguments."""
    make_letter(app, **{**fields, "outcome": "worker_lost", "job_id": None, "job": None})
    before = everything(app)
    with pytest.raises(InvalidArguments, match="never answered"):
        dead_letters.replay(app, "letter", args=[{**COMPOSITION, "width": 640}])
    assert everything(app) == before
    assert dead_letters.replay(app, "letter").is_new


def test_a_replay_that_died_before_its_new_record_is_made_good(app: Celery) -> None:
    letter = make_letter(app)
    _, now = room_for(app).read("letter")
    told = {**(letter.letter or {}), "replaying_at": now - 60}
    assert room_for(app).save(letter, replace(letter, letter=told)) == "saved"
    assert dead_letters.replay(app, "letter").is_new
    assert len(everything(app)) == 1


# --- throwing away -----------------------------------------------------------------------------------------------


def test_a_letter_that_is_discarded_is_gone(app: Celery) -> None:
    make_letter(app)
    dead_letters.discard(app, "letter")
    assert (read(app, "letter").until, read(app, "letter").call, everything(app)) == ("done", "", {})
    for act in (dead_letters.discard, dead_letters.replay):
        with pytest.raises(NoSuchLetter, match="the task is done"):
            act(app, "letter")


def test_a_pipeline_that_is_discarded_fails(app: Celery) -> None:
    make_letter(app, **KEPT)
    dead_letters.discard(app, "letter")
    record = read(app, "letter")
    assert (record.until, record.outcome, record.failure, record.letter) == ("start", "failed", FAILURE, None)
    assert record.lane == "clock"  # the watcher wakes it, the run raises
    assert call_in(record).args == [COMPOSITION]


# --- carrying ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_a_letter_goes_elsewhere_and_is_replayed_there(app: Celery, elsewhere: Celery, fields: dict[str, Any]) -> None:
    letter = make_letter(
        app, args=(7,), kwargs={"language": "dé—🎬"}, task="shop.promo", **{**fields, "account": "acme"}
    )
    line = dead_letters.to_line(letter)
    assert "\n" not in line
    assert dead_letters.from_line(elsewhere, line) is True
    there = dead_letters.find(room_for(elsewhere), "letter")
    kept = ("task", "digest", "account", "attempt", "history", "failure", "outcome", "request", "job")
    assert {name: getattr(there, name) for name in kept} == {name: getattr(letter, name) for name in kept}
    assert call_in(there) == call_in(letter)
    assert (there.until, there.lane) == ("dead", "dead:new")  # announced here anew; its pipeline is elsewhere
    done = dead_letters.replay(elsewhere, "letter")
    assert done.is_new
    assert done.task_id != "letter"
    assert call_in(read(elsewhere, done.task_id)).kwargs == {"language": "dé—🎬"}
    assert read(app, "letter") == letter


def test_an_imported_letter_is_announced_on_the_queue_that_its_route_named(app: Celery, elsewhere: Celery) -> None:
    make_letter(app, "a", letter={**TOLD, "queue": "sources"})
    make_letter(app, "b", letter={**TOLD, "queue": None})
    for id in ("a", "b"):
        dead_letters.from_line(elsewhere, dead_letters.to_line(read(app, id)))
    told = [(read(elsewhere, id).letter or {})["queue"] for id in ("a", "b")]
    assert told == ["sources", "elsewhere.dead"]


def test_an_import_over_what_is_there_changes_nothing(app: Celery) -> None:
    letter = make_letter(app)
    line = dead_letters.to_line(letter)
    assert dead_letters.from_line(app, line) is False
    assert read(app, "letter") == letter
    make_letter(app, "kept", **KEPT)
    kept = dead_letters.to_line(read(app, "kept"))
    dead_letters.replay(app, "kept")
    before = everything(app)
    assert dead_letters.from_line(app, kept) is False  # it is under way
    assert everything(app) == before


def test_an_import_over_a_discarded_one_brings_it_back(app: Celery) -> None:
    letter = make_letter(app)
    dead_letters.discard(app, "letter")
    assert dead_letters.from_line(app, dead_letters.to_line(letter)) is True
    back = dead_letters.find(room_for(app), "letter")
    assert call_in(back) == call_in(letter)
    assert back.step > letter.step  # the old messages are stale
    assert dead_letters.from_line(app, dead_letters.to_line(letter)) is False
    assert dead_letters.replay(app, "letter").is_new


def test_an_import_over_a_replayed_one_pays_for_nothing(app: Celery) -> None:
    line = dead_letters.to_line(make_letter(app))
    done = dead_letters.replay(app, "letter")
    for _ in range(2):
        assert dead_letters.from_line(app, line) is False
        assert dead_letters.replay(app, "letter") == done._replace(is_new=False)
        if read(app, done.task_id).until != "done":
            finished(app, done.task_id)
    assert everything(app) == {}


def test_an_import_over_a_kept_one_that_went_on_and_completed_pays_for_nothing(app: Celery) -> None:
    """It keeps its id, so its tombstone is the task's own."""
    line = dead_letters.to_line(make_letter(app, **KEPT))
    dead_letters.replay(app, "letter")
    finished(app, "letter")
    assert dead_letters.from_line(app, line) is False
    assert read(app, "letter").until == "done"


def test_an_import_over_one_that_was_revoked_changes_nothing(app: Celery) -> None:
    line = dead_letters.to_line(make_letter(app, **KEPT))
    room = room_for(app)
    assert move(room, "letter", lambda r, now: records.revoke(r, reason="revoked", now=now)) is not None
    assert dead_letters.from_line(app, line) is False
    assert move(room, "letter", lambda r, now: records.end(r, now=now)) is not None
    assert dead_letters.from_line(app, line) is False


GOOD: dict[str, Any] = {
    "id": "x", "until": "dead", "step": 1, "request": None,
    "call": {"task": "framelane.render", "args": [], "kwargs": {}, "options": {}},
    "state": {"format": 1, "task": "framelane.render", "digest": "d"},
}  # fmt: skip
GARBAGE: dict[str, Any] = {
    "empty": "",
    "no JSON": "letter",
    "cut short": json.dumps(GOOD)[:-9],
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "nothing in it": "{}",
    **{f"without {name}": {key: value for key, value in GOOD.items() if key != name} for name in GOOD
       if name not in ("until", "request")},
    "a step that is none": {**GOOD, "step": "x"},
    "a call that is none": {**GOOD, "call": 7},
    "a call without a task": {**GOOD, "call": {"args": [], "kwargs": {}, "options": {}}},
    "a call with more": {**GOOD, "call": {**GOOD["call"], "more": 1}},
    "a state that is none": {**GOOD, "state": []},
    "of a newer format": {**GOOD, "state": {**GOOD["state"], "format": records.NEWEST + 1}},
    "of no format": {**GOOD, "state": {"task": "t", "digest": "d"}},
    "with a history that is none": {**GOOD, "state": {**GOOD["state"], "history": 7}},
    "with a letter that is none": {**GOOD, "state": {**GOOD["state"], "letter": "x"}},
    "with a letter that is a list": {**GOOD, "state": {**GOOD["state"], "letter": [1]}},
    "with a failure that is none": {**GOOD, "state": {**GOOD["state"], "failure": "x"}},
    "with a request that is none": {**GOOD, "request": {"path": "/v1/renders"}},
    "with arguments that are none": {**GOOD, "call": {**GOOD["call"], "args": 7}},
    "with options that are none": {**GOOD, "call": {**GOOD["call"], "options": []}},
    "with an id that is none": {**GOOD, "id": None},
}  # fmt: skip


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_no_letter(app: Celery, name: str) -> None:
    line = GARBAGE[name]
    with pytest.raises(FramelaneError) as caught:
        dead_letters.from_line(app, line if isinstance(line, str) else json.dumps(line))
    assert not isinstance(caught.value, RoomError)
    assert "\n" not in str(caught.value)
    assert everything(app) == {}


def test_the_least_that_is_a_letter(app: Celery) -> None:
    """An older release's line may know nothing of letters: it has the default queue."""
    assert dead_letters.from_line(app, json.dumps(GOOD)) is True
    letter = dead_letters.find(room_for(app), "x")
    assert letter.letter is not None
    assert (letter.letter["queue"], letter.letter["announced"], letter.lane) == ("shop.dead", False, "dead:new")


def test_a_newer_releases_letter_keeps_what_is_not_known_here(app: Celery) -> None:
    newer = {**GOOD, "state": {**GOOD["state"], "colour": 1}}
    assert dead_letters.from_line(app, json.dumps(newer)) is True
    letter = dead_letters.find(room_for(app), "x")
    assert json.loads(dead_letters.to_line(letter))["state"]["colour"] == 1


@freeze_time("2026-11-25")
def test_an_imported_letter_is_as_old_as_it_was(app: Celery, elsewhere: Celery) -> None:
    letter = make_letter(app)
    dead_letters.from_line(elsewhere, dead_letters.to_line(letter))
    there = read(elsewhere, "letter")
    assert (there.failure, (there.letter or {})["at"]) == (FAILURE, NOW)


# --- the queue ---------------------------------------------------------------------------------------------------


def take(app: Celery, id: str = "letter", step: int = 7, **headline: Any) -> None:
    app.tasks["framelane.replay"].run(id, step, **{"task": "framelane.render", "code": "x", "at": NOW, **headline})


def test_a_message_replays_its_letter_once(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    make_letter(app)
    with caplog.at_level(logging.INFO, "framelane_celery.dead_letters"):
        take(app)
        take(app)  # delivered twice
    new = list(everything(app))
    assert len(new) == 1
    assert new[0] in caplog.text
    assert "secret" not in caplog.text


def test_a_message_never_replays_what_may_have_a_job(app: Celery) -> None:
    make_letter(app, outcome="outcome_unknown", job_id=None, job=None)
    before = everything(app)
    take(app)
    assert everything(app) == before
    assert dead_letters.replay(app, "letter").is_new  # an operator does


@pytest.mark.parametrize("fields", [FAILED, KEPT])
def test_a_message_never_replays_what_has_died_again(app: Celery, fields: dict[str, Any]) -> None:
    """Else a worker that is left on the queue would pay for what always fails, for ever."""
    make_letter(app, **fields)
    again = read(app, dead_letters.replay(app, "letter").task_id)
    assert again.replays == 1
    died = replace(again, **{name: fields[name] for name in ("until", "due_at", "letter", "failure")})
    assert room_for(app).save(again, died) == "saved"
    before = everything(app)
    take(app, again.id, step=again.step)
    assert everything(app) == before
    assert dead_letters.replay(app, again.id).is_new  # but an operator does


@pytest.mark.parametrize("fields", [FAILED, KEPT])
@pytest.mark.parametrize("step", [0, 6, 8])
def test_a_stale_message_does_nothing(app: Celery, fields: dict[str, Any], step: int) -> None:
    make_letter(app, **fields)
    before = everything(app)
    take(app, step=step)
    assert everything(app) == before


def test_a_message_of_a_letter_that_is_gone_does_nothing(app: Celery) -> None:
    take(app, "nobody")
    make_letter(app)
    dead_letters.discard(app, "letter")
    take(app)
    make_letter(app, "kept", **KEPT)
    dead_letters.replay(app, "kept")
    before = everything(app)
    take(app, "kept")
    assert everything(app) == before


def test_a_message_may_say_more_than_we_know(app: Celery) -> None:
    make_letter(app)
    take(app, colour="a newer release's")
    assert list(everything(app)) != ["letter"]


def test_a_message_is_put_back_while_the_room_is_away(tmp_path: Path) -> None:
    app = make_app(tmp_path / "away")
    with pytest.raises(Reject) as caught:
        take(app)
    assert caught.value.requeue is True
    (tmp_path / "away").mkdir()
    make_letter(app)
    take(app)
    assert list(everything(app)) != ["letter"]
    room_for(app).close()
    app.close()


def test_a_worker_that_dies_with_a_message_loses_nothing(app: Celery) -> None:
    task = app.tasks["framelane.replay"]
    assert (task.acks_late, task.reject_on_worker_lost, task.ignore_result) == (True, True, True)
