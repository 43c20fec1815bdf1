from __future__ import annotations

import time

import pytest
from freezegun import freeze_time

from framelane_celery.room import Hold, Room
from framelane_celery.waits import places, relative, span, wait_of
from tests.cli.conftest import Shell
from tests.cli.rooms import ID, make_letter, make_record

NOW = 1_800_000_000.0
OPERATOR = Hold("default", "operator", "an operator", NOW - 10, None)
QUOTA = Hold("default", "quota_exceeded", "spent", NOW - 10, NOW + 7200)
INTERNAL = {"code": "internal", "message": "oops"}

SENTENCES = [
    ({"until": "start"}, "a worker that takes its message; sent again in 30 s"),
    ({"until": "start", "resends": 1}, "a worker that takes its message; sent again in 30 s (2 sent so far)"),
    ({"until": "start", "outcome": "completed"}, "a worker that takes its message, to return the result; sent again"),
    ({"until": "start", "due_at": NOW - 9000}, "overdue for 2 h 30 min: is a worker with a watcher up?"),
    ({"until": "slot", "place": 41}, "a submit slot: 41 before it"),
    ({"until": "slot", "place": 0}, "a submit slot: it is the next one"),
    ({"until": "slot", "place": 0, "hold": OPERATOR}, "but account default is on hold for operator"),
    ({"until": "job"}, "the job's end, which a watcher looks for"),
    ({"until": "job", "hinted_at": NOW - 3}, "which a watcher looks for; a webhook told of it 3 s ago"),
    ({"until": "job", "due_at": NOW - 300}, "overdue for 5 min: is a worker with a watcher up?"),
    ({"until": "instant", "attempt": 3, "failure": INTERNAL}, "its time (in 30 s): attempt 3 after internal"),
    ({"until": "instant", "pauses": 1}, "its submission was not answered, or refused for now"),
    ({"until": "instant"}, "its time (in 30 s): as its caller asked (eta, countdown)"),
    ({"until": "instant", "begun": True}, "as the task itself asked (retry)"),
    ({"until": "release", "hold": OPERATOR}, "from its hold for operator: celery framelane release default"),
    ({"until": "release", "hold": QUOTA}, "from its hold for quota_exceeded, at the latest in 2 h; or by the next"),
    ({"until": "release"}, "a watcher: account default is on hold no more"),
    ({"until": "running", "run_node": "w1@host"}, "its worker w1@host; its lease ends in 30 s"),
    ({"until": "replacing"}, "the signature that replaces it"),
    ({"until": "replacing", "due_at": None}, "the signature that replaces it"),
    ({"until": "job", "ending": "revoked"}, "a watcher, which ends it: it is cancelled"),
    ({"until": "start", "ending": "expired", "due_at": 0.0}, "it is expired; overdue: is a worker"),
    ({"until": "running", "ending": "revoked"}, "the run's end: it is cancelled"),
]


@pytest.mark.parametrize(("changes", "sentence"), SENTENCES)
def test_every_wait_says_what_would_wake_it(changes: dict[str, object], sentence: str) -> None:
    changes = {"due_at": NOW + 30, "account": "default", **changes}
    hold, place = changes.pop("hold", None), changes.pop("place", None)
    wait = wait_of(make_record("x", **changes), NOW, holds={"default": hold} if hold else {}, place=place)
    assert sentence in wait.wakes


def test_a_letter_that_is_kept_waiting_waits_for_an_operator() -> None:
    wait = wait_of(make_letter("a b", keeps_waiting=True), NOW)
    assert wait.wakes == "an operator: celery framelane dead replay 'a b'"
    assert wait.ends_at is None
    assert wait_of(make_letter("x"), NOW) is None
    assert wait_of(make_record("x", "done"), NOW) is None


@pytest.mark.parametrize(
    ("changes", "since", "ends_at"),
    [
        ({"until": "start"}, NOW - 200, None),
        ({"until": "start", "expires_at": NOW + 60}, NOW - 200, NOW + 60),
        ({"until": "start", "history": ({"at": NOW - 5},)}, NOW - 5, None),
        ({"until": "slot", "queued_at": NOW - 40}, NOW - 40, None),
        ({"until": "job", "accepted_at": NOW - 9, "deadline_at": NOW + 99}, NOW - 9, NOW + 99),
        ({"until": "instant", "pauses": 1, "first_post_at": NOW - 7}, NOW - 7, NOW + 30),
        ({"until": "release", "held_at": NOW - 70}, NOW - 70, NOW + 30),
        ({"until": "release", "held_at": NOW - 70, "due_at": NOW + 9000}, NOW - 70, NOW + 7200),
        ({"until": "running"}, NOW - 200, NOW + 30),
        ({"until": "job", "ending": "revoked", "accepted_at": NOW - 9}, NOW - 9, None),
    ],
)
def test_since_when_and_until_when(changes: dict[str, object], since: float, ends_at: float | None) -> None:
    changes = {"due_at": NOW + 30, "created_at": NOW - 200, **changes}
    wait = wait_of(make_record("x", **changes), NOW, holds={"default": QUOTA})
    assert (wait.since, wait.ends_at) == (since, ends_at)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (100000, "1 d 3 h"),
    ],
)
def test_spans_are_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert relative(NOW + seconds, NOW - 1).startswith("in ")
    assert relative(NOW - seconds, NOW) == f"{text} ago"


def test_places_are_per_lane() -> None:
    lanes = [[make_record("a", "slot"), make_record("b", "slot")], [make_record("c", "slot")]]
    assert places(lanes) == {"a": 0, "b": 1, "c": 0}


# --- the commands ------------------------------------------------------------------------------------------------


def test_waiting_has_every_state_but_the_ended_ones(shell: Shell, room: Room) -> None:
    rows = {row["id"].removeprefix(ID): row for row in shell.json("waiting")}
    assert "".join(rows) == "123456789ab"
    assert rows["4"]["wakes"].startswith("a submit slot: 1 before it")
    assert rows["5"]["job_id"] == "render_5"
    assert rows["5"]["next_at"] == pytest.approx(time.time() + 12, abs=10)
    assert rows["6"]["code"] == "internal"
    assert rows["8"]["ends_at"] == pytest.approx(time.time() + 3 * 86400, abs=10)


def test_waiting_as_a_table_is_one_line_each_and_a_total(shell: Shell, room: Room) -> None:
    lines = shell.run("waiting").stdout.splitlines()
    assert len(lines) == 13
    assert lines[-1] == "11 tasks: 1 running, 1 replacing, 1 job, 2 start, 2 slot, 2 instant, 2 release."
    assert lines[5].startswith(f"{ID}5  framelane.render  job ")
    assert "\x1b" not in "".join(lines)


def test_waiting_can_be_narrowed(shell: Shell, room: Room) -> None:
    assert [row["until"] for row in shell.json("waiting", "--until", "slot")] == ["slot", "slot"]
    assert len(shell.json("waiting", "--limit", "3")) == 3
    assert shell.json("waiting", "--account", "other") == []
    assert shell.json("waiting", "--task", "shop.promo") == []
    stdout = shell.run("waiting", "--until", "slot", "--limit", "1").stdout
    assert stdout.endswith("2 tasks: 2 slot. The first 1 are shown: --limit 0 shows all.\n")
    shell.run("waiting", "--until", "dead", exits=2)


def test_a_table_stops_somewhere_but_json_does_not(shell: Shell, room: Room) -> None:
    for number in range(120):
        room.create(make_record(f"more-{number}", "start"))
    assert len(shell.run("waiting").stdout.splitlines()) == 102
    assert len(shell.run("waiting", "--limit", "0").stdout.splitlines()) == 133
    assert len(shell.json("waiting")) == 131


@freeze_time("2026-10-01 12:00:00")
@pytest.mark.parametrize("number", "123456789abcde")
def test_progress_shows_a_task_in_every_state(shell: Shell, room: Room, number: str) -> None:
    stdout = shell.run("progress", ID + number).stdout
    assert ID + number in stdout
    detail = shell.json("progress", ID + number)
    assert {"id", "task", "task_id", "until", "job", "history", "attempt"} <= detail.keys()
    assert ("wakes" in detail) == (detail["until"] not in ("dead", "done"))


def test_progress_of_a_job_and_of_its_end(shell: Shell, room: Room) -> None:
    assert "render_5 (processing, 40 %, encoding)" in shell.run("progress", ID + "5").stdout
    assert "done: it completed" in shell.run("progress", ID + "c").stdout
    assert f"dead (celery framelane dead show {ID}d)" in shell.run("progress", ID + "d").stdout
    new_id = shell.json("dead", "replay", ID + "d")[0]["task_id"]
    stdout = shell.run("progress", ID + "d").stdout
    assert "done: it failed and was replayed" in stdout
    assert new_id in stdout


def test_cancel_marks_the_record(shell: Shell, room: Room) -> None:
    rows = shell.json("cancel", "--yes", ID + "5", ID + "a", ID + "5")
    assert [row["id"] for row in rows] == [ID + "5", ID + "a"]
    assert room.read(ID + "5")[0].ending == "revoked"
    assert f"id:{ID}5" in room.revokes_since(0)[0]
    assert "its job render_5 will be" in shell.run("cancel", "--yes", ID + "5").stdout


def test_cancel_of_some_wrong_ids_does_the_others(shell: Shell, room: Room) -> None:
    result = shell.run("cancel", "--yes", "no-such", ID + "1", ID + "c", ID + "d", exits=1)
    assert result.stdout == f"framelane.render {ID}1 is cancelled.\n"
    assert len(result.stderr.splitlines()) == 3
