"""`celery framelane drain` over a room with one record in each state. With workers: tests/worker/test_drain.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from framelane_celery import dead_letters, draining, operations
from framelane_celery.operations import room_for
from framelane_celery.room import Room
from framelane_celery.wakeups import Call
from tests.cli.conftest import Shell
from tests.cli.rooms import COMPOSITION, ID, ODD, SECRET, make_app, make_letter, make_record
from tests.cli.test_processes import PROJECT, ROOT

NOTHING = ("--timeout", "0")
REMOVE = ("drain", "--remove", "--yes")


@pytest.fixture
def app(app: Celery) -> Celery:
    app.conf.broker_url = "memory://"
    return app


def held(room: Room) -> dict[str, str]:
    return {hold.account: hold.code for hold in room.holds()[0] if hold.is_on}


def end_all(room: Room) -> None:
    """What a worker would do, of what is under way."""
    for record in list(room.scan()):
        if record.until in ("start", "running", "replacing", "job"):
            room.forget(record)


# --- stop, and wait ----------------------------------------------------------------------------------------------


def test_every_account_is_held_and_what_is_there_is_told(shell: Shell, room: Room) -> None:
    room.create(make_record("theirs", "slot", account="eu"))
    room.hold("us", "operator", "my own reason")
    result = shell.run("drain", *NOTHING, exits=1)
    assert held(room) == {"default": "operator", "eu": "operator", "us": "operator"}
    assert {hold.account: hold.reason for hold in room.holds()[0]}["us"] == "my own reason"
    assert "Still in flight: 1 job, 1 replacing, 1 running, 2 start. No watcher leads" in result.stdout
    assert "Not submitted: 2 instant, 1 release, 3 slot." in result.stderr
    assert "The same command goes on; `drain --undo` goes back." in result.stderr


def test_as_json(shell: Shell, room: Room) -> None:
    told = shell.json("drain", *NOTHING, exits=1)
    assert told == {
        "id": "shop",
        "drained": False,
        "in_flight": {"start": 2, "job": 1, "running": 1, "replacing": 1},
        "not_submitted": {"slot": 2, "instant": 2, "release": 1},
        "unanswered": 1,
        "letters": 4,
        "accounts": ["default"],
        "leader": None,
        "exported": None,
        "removed": None,
    }
    room.lead("w1@host/0001", 60)
    assert shell.json("drain", *NOTHING, exits=1)["leader"] == "w1@host"


def test_it_is_drained_when_nothing_moves_any_more(shell: Shell, room: Room) -> None:
    end_all(room)
    result = shell.run("drain")
    assert result.stdout.splitlines() == [
        "Drained: nothing is in flight, and nothing is submitted.",
        "5 tasks not submitted: 2 instant, 1 release, 2 slot.",
        "1 of them were posted and never answered: celery framelane orphans list",
        "4 dead letters: celery framelane dead list",
        "Next: stop the workers, then `drain --remove`. To go back: `drain --undo`.",
    ]
    assert shell.run("drain").stdout == result.stdout
    assert shell.json("drain")["drained"] is True


def test_an_empty_room_is_drained(shell: Shell) -> None:
    assert shell.run("drain").stdout.startswith("Drained: ")


def test_undo_releases_what_the_drain_has_held_and_nothing_else(shell: Shell, room: Room) -> None:
    room.hold("us", "operator", "my own reason")
    shell.run("drain", *NOTHING, exits=1)
    assert shell.run("drain", "--undo").stdout == "1 account released: default.\n"
    assert held(room) == {"us": "operator"}
    assert shell.run("drain", "--undo", exits=1).stderr == "Error: no account is on hold for a drain\n"
    assert shell.json("drain", "--undo", exits=1) == {"released": []}


def test_cancel_asks_and_then_leaves_what_is_ready_and_what_is_a_letter(shell: Shell, room: Room) -> None:
    assert "add --yes" in shell.run("drain", "--cancel", exits=2).stderr
    assert held(room) == {"default": "quota_exceeded"}
    shell.run("drain", "--cancel", "--yes", *NOTHING, exits=1)
    ending = {record.id[-1] for record in room.scan() if record.ending == "revoked"}
    assert ending == {"1", "3", "4", "5", "6", "7", "8", "a"}
    assert len(list(dead_letters.letters(room))) == 4
    shell.run("drain", "--cancel", "--yes", *NOTHING, exits=1)


def test_an_interrupted_drain_says_how_to_go_on(app: Celery, room: Room, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PROJECT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-u", "-m", "celery", "-A", "shop", "framelane", "drain"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        before = {record.id: record for record in room.scan()}
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert first.startswith("In flight: 1 job, ")
    assert process.returncode == 1
    assert "Error: interrupted. The accounts stay on hold" in rest
    assert "Traceback" not in rest
    assert {record.id: record for record in room.scan()} == before
    assert held(room) == {"default": "operator"}


# --- what is left, in a file -------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with make_app(folder) as app:
        yield Shell(app)
        room_for(app).close()


def test_what_was_not_submitted_is_a_letter_elsewhere(
    shell: Shell, room: Room, elsewhere: Shell, tmp_path: Path
) -> None:
    end_all(room)
    file = tmp_path / "left.jsonl"
    assert f"9 lines written to {file}" in shell.run("drain", "--export", str(file)).stdout
    assert oct(file.stat().st_mode)[-2:] == "00"
    assert shell.json("drain", "--export", str(file), "--yes")["exported"] == 9
    assert "exists. Write over it?" in shell.run("drain", "--export", str(file), exits=2).stderr
    assert elsewhere.json("dead", "import", str(file)) == {"new": 9, "known": 0, "bad": []}
    letters = elsewhere.json("dead", "list")
    assert {row["id"] for row in letters} == {ODD, *(ID + end for end in "3467899de")}
    assert Call.from_text(operations.find(elsewhere.app, ID + "3").call).args == [COMPOSITION]
    elsewhere.run("dead", "replay", ID + "3")
    new_id = operations.find(elsewhere.app, ID + "3").letter["replayed_as"]
    assert operations.find(elsewhere.app, new_id).until == "start"


# --- remove ------------------------------------------------------------------------------------------------------


def is_gone(app: Celery, tmp_path: Path) -> bool:
    from sqlalchemy import create_engine, inspect

    engine = create_engine(f"sqlite:///{tmp_path}/room.db")
    try:
        return not inspect(engine).get_table_names()
    finally:
        engine.dispose()


Left = Callable[[Room], None]


def letters_only(room: Room) -> None:
    for record in list(room.scan()):
        if not record.is_letter:
            room.forget(record)


REFUSED: list[tuple[Left, tuple[str, ...], str]] = [
    (lambda room: None, (), "5 tasks are under way (1 job, 1 replacing, 1 running, 2 start)"),
    (lambda room: None, ("--export", "left.jsonl"), "5 tasks are under way"),
    (end_all, (), "5 tasks were not submitted, and 4 dead letters are here"),
    (letters_only, (), "0 tasks were not submitted, and 4 dead letters are here"),
    (lambda room: room.lead("w1@host/0001", 60) and None, ("--discard",), "w1@host still works here"),
]


@pytest.mark.parametrize(("prepare", "options", "why"), REFUSED)
def test_nothing_is_removed_that_would_be_lost(
    shell: Shell, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    prepare: Left, options: tuple[str, ...], why: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    prepare(room)
    before = {record.id: record for record in room.scan()}
    assert why in shell.run(*REMOVE, *options, exits=1).stderr
    assert {record.id: record for record in room.scan()} == before
    if "w1@host" not in why:
        assert room.lead("w1@host/0002", 60) is not None  # a worker may go on at once


def test_two_removals_at_once(shell: Shell, app: Celery, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused, and leaves the lead to the first."""
    end_all(room)
    other, remove = [], draining.remove_queues

    def beside(*arguments: Any) -> Any:
        other.append(shell.run(*REMOVE, "--discard", exits=1).stderr)
        assert room.lead("w1@host/0001", 60) is None
        return remove(*arguments)

    monkeypatch.setattr(draining, "remove_queues", beside)
    draining.remove(app, discards=True)
    assert "drain --remove still works here" in other[0]


@pytest.mark.usefixtures("room")
def test_what_would_be_lost_is_refused_before_anybody_is_asked(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "left.jsonl"
    told = shell.run("drain", "--remove", "--export", str(file), exits=1).stderr
    assert "5 tasks are under way" in told
    assert "for good?" not in told
    assert not file.exists()


def test_records_of_a_newer_version_are_not_removed_unread(shell: Shell, room: Room) -> None:
    room.create(make_record("newer", "start", unread={"format": 99}))
    for record in list(room.scan()):
        room.forget(record)
    why = "1 records are of another version of framelane_celery, which this one cannot read"
    assert why in shell.run(*REMOVE, exits=1).stderr
    assert room.open_count() == 1
    assert shell.json(*REMOVE, "--discard")["removed"]["entries"] > 0


def test_what_was_called_after_the_export_is_not_removed(shell: Shell, app: Celery, room: Room) -> None:
    end_all(room)
    exported = len(list(draining.lines(app)))
    room.create(make_record("late", "instant"))
    with pytest.raises(draining.NotDrained, match="1 tasks were called after the export: stop what calls tasks"):
        draining.remove(app, exported=exported)
    assert room.open_count() == exported + 1
    draining.remove(app, exported=exported + 1)


def test_removal_asks(shell: Shell, room: Room) -> None:
    stderr = shell.run("drain", "--remove", "--discard", exits=2).stderr
    assert "Remove all of shop (4 dead letters, 5 in flight, 5 not submitted), for good?" in stderr


@pytest.mark.parametrize("options", [("--discard",), ("--export", "left.jsonl")])
def test_removal_takes_all(
    shell: Shell, app: Celery, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    if options != ("--discard",):
        end_all(room)
    result = shell.run(*REMOVE, *options)
    assert "Table framelane_records: removed.\nTable framelane_room: removed.\n" in result.stdout
    assert is_gone(app, tmp_path)
    assert (Path("left.jsonl").exists(), "9 lines written" in result.stdout) == ((options != ("--discard",),) * 2)
    again = shell.json(*REMOVE)["removed"]
    assert (again["entries"], again["tables"], again["tables_kept"]) == (0, [], None)
    assert is_gone(app, tmp_path)


def test_queues_with_messages_are_told(shell: Shell, app: Celery, room: Room) -> None:
    with app.connection_for_write() as connection:
        connection.SimpleQueue("celery.retry").put("x")
        connection.SimpleQueue("celery").put("x")
        told = shell.json(*REMOVE, "--discard", "-q", "gpu")["removed"]
        names = Counter({queue["name"]: queue["messages"] for queue in told["queues"]})
        assert names["celery.retry"] == 1
        assert "celery" not in names
        assert connection.default_channel._size("celery") == 1
        assert not connection.default_channel._size("celery.retry")
        connection.SimpleQueue("celery").clear()


def test_a_broker_that_is_away_leaves_the_room_as_it_is(shell: Shell, app: Celery, room: Room) -> None:
    app.conf.broker_url = "amqp://guest:s3cr3t@127.0.0.1:1//"
    before = {record.id: record for record in room.scan()}
    result = shell.run(*REMOVE, "--discard", exits=1)
    assert "the broker cannot be reached" in result.stderr
    assert "s3cr3t" not in result.output
    assert {record.id: record for record in room.scan()} == before


def test_nothing_secret_is_told(shell: Shell, room: Room) -> None:
    room.create(make_letter("odd \x1b[31m", account=f"eu {SECRET}"))
    for words in (("drain", *NOTHING), ("drain", "--undo")):
        for more in ((), ("--json",)):
            result = shell.run(*words, *more, exits=None)
            assert "fl_test_key" not in result.output
            assert "sqlite" not in result.output
            assert "\x1b" not in result.output


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("--undo", "--remove"), "--undo goes with no other option"),
    (("--undo", "--cancel"), "--undo goes with no other option"),
    (("--discard",), "go with --remove"),
    (("--queue", "x"), "go with --remove"),
    (("--remove", "--cancel"), "first the one, then the other"),
]


@pytest.mark.parametrize(("words", "why"), WRONG)
def test_what_does_not_go_together_is_said(shell: Shell, room: Room, words: tuple[str, ...], why: str) -> None:
    assert why in shell.run("drain", *words, exits=2).stderr
    assert held(room) == {"default": "quota_exceeded"}
