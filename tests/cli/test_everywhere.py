"""What is so of every command: without a broker, without a room, with nothing in it, with ids that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from framelane_celery.operations import room_for
from framelane_celery.room import Room
from tests.cli.conftest import Shell
from tests.cli.rooms import COMPOSITION, ID, ODD, SECRET, make_app

LISTS = [("waiting",), ("dead", "list"), ("dead", "count"), ("holds",)]
OF_AN_ID = [("progress",), ("cancel", "--yes"), ("dead", "show"), ("dead", "replay"), ("dead", "discard", "--yes")]
OTHERS = [("hold",), ("release",), ("dead", "replay", "--all", "--yes"), ("dead", "export", "-", "--all")]
AWAY = ["redis://127.0.0.1:1", "sqlite:////no/such/folder/room.db"]


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_an_empty_room_is_no_error(shell: Shell, command: tuple[str, ...]) -> None:
    assert shell.run(*command).stdout.count("\n") == 1
    assert shell.json(*command) == []


@pytest.mark.parametrize("wrong", ["no-such-id", "", "☂ \x1b[31m", "a\nb", "\udcff"])
@pytest.mark.parametrize("command", OF_AN_ID, ids=" ".join)
def test_a_wrong_id_is_one_line(shell: Shell, command: tuple[str, ...], wrong: str) -> None:
    result = shell.run(*command, wrong, exits=1)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("command", [("dead", "show"), ("dead", "replay"), ("dead", "discard", "--yes")], ids=" ".join)
def test_a_task_that_is_no_letter_says_what_it_is(shell: Shell, room: Room, command: tuple[str, ...]) -> None:
    stderr = shell.run(*command, ID + "5", exits=1).stderr
    assert stderr == f"Error: {ID}5 is no dead letter: the task is job\n"


@pytest.fixture(params=AWAY)
def away(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    with make_app(tmp_path, room_url=request.param) as app:
        yield Shell(app)
        room_for(app).close()


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["", "json"])
@pytest.mark.parametrize("command", [*LISTS, *((*words, "x") for words in OF_AN_ID), *OTHERS], ids=" ".join)
def test_a_room_that_is_away_is_one_line(away: Shell, command: tuple[str, ...], as_json: tuple[str, ...]) -> None:
    result = away.run(*command, *as_json, exits=1)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stdout in ("", "[]\n")


def test_an_import_stops_where_the_room_is_away(shell: Shell, room: Room, away: Shell) -> None:
    lines = shell.run("dead", "export", "-").stdout
    result = away.run("dead", "import", "-", input=lines, exits=1)
    assert "(line 1; those before it are done)" in result.stderr
    assert "0 new letters" in result.stdout


def test_an_estimate_is_told_although_the_room_is_away(tmp_path: Path) -> None:
    with make_app(tmp_path, room_url=AWAY[0], spend_guard={"minutes_per_day": 1}) as app:
        result = Shell(app).run("estimate", "-", input=json.dumps(COMPOSITION), exits=1)
        assert result.stdout == "About 12.5 s of output, 0.21 min.\n"
        assert result.stderr.startswith("Error: what the spend guard leaves cannot be told: ")


def test_settings_that_name_no_room_are_one_line(tmp_path: Path) -> None:
    with make_app(tmp_path, room_url=None) as app:
        result = Shell(app).run("waiting", exits=1)
        assert result.stderr.startswith("Error: room_url: ")
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [("waiting",), ("dead", "list")], ids=" ".join)
def test_a_list_as_json_has_what_every_list_has(shell: Shell, room: Room, command: tuple[str, ...]) -> None:
    rows = shell.json(*command)
    assert all(row["id"] == row["task_id"] and row["task"] and (row.get("until") or row["code"]) for row in rows)
    assert len(rows) == {"waiting": 11, "dead": 4}[command[0]]


def test_nothing_of_a_signed_url_is_shown_unless_asked_for(shell: Shell, room: Room) -> None:
    for command in (*LISTS, ("dead", "show", ID + "d"), ("progress", ID + "d"), ("progress", ID + "9")):
        assert SECRET not in shell.run(*command).output
        assert SECRET not in shell.run(*command, "--json").output
    assert SECRET in shell.run("dead", "show", ID + "d", "--full").output
    assert SECRET in json.dumps(shell.json("dead", "show", ID + "d", "--full"))


def test_listing_changes_nothing(shell: Shell, room: Room) -> None:
    before = [shell.run("dead", "export", "-").stdout, sorted(room.scan(), key=lambda record: record.id)]
    for _ in range(20):
        for command in LISTS:
            shell.run(*command)
    assert before == [shell.run("dead", "export", "-").stdout, sorted(room.scan(), key=lambda record: record.id)]


def test_an_odd_id_works_everywhere(shell: Shell, room: Room) -> None:
    assert ODD in shell.run("dead", "list").stdout
    assert shell.json("dead", "show", ODD)["id"] == ODD
    assert "celery framelane dead replay 'product-42 ü/✓'" in shell.run("dead", "show", ODD).stdout
    assert shell.json("dead", "replay", ODD)[0]["is_new"]


def test_a_command_that_destroys_needs_yes_where_nobody_can_be_asked(shell: Shell, app: Celery, room: Room) -> None:
    for command in (
        ("cancel", ID + "1"),
        ("dead", "discard", ID + "d"),
        ("dead", "replay", "--code", "source_not_found"),
    ):
        result = shell.run(*command, exits=2)
        assert "Nobody is here to ask: add --yes." in result.stderr
    assert room.read(ID + "1")[0].ending is None
    assert shell.json("dead", "count")[0] == {"code": "source_not_found", "count": 2}
