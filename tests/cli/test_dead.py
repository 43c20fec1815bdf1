from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from framelane_celery.operations import room_for
from framelane_celery.room import Room
from framelane_celery.testing import FramelaneServer
from framelane_celery.wakeups import Call
from tests.cli.conftest import Shell
from tests.cli.rooms import COMPOSITION, ID, ODD, make_app, make_letter

LETTERS = [ID + "9", ID + "d", ODD, ID + "e"]


def ids_of(shell: Shell) -> list[str]:
    return [row["id"] for row in shell.json("dead", "list")]


def test_list_count_and_show(shell: Shell, room: Room) -> None:
    assert ids_of(shell) == LETTERS
    assert [row["id"] for row in shell.json("dead", "list", "--code", "source_not_found")] == [ID + "9", ID + "d"]
    assert [row["id"] for row in shell.json("dead", "list", "--task", "framelane.transcribe")] == [ID + "e"]
    assert len(shell.json("dead", "list", "--limit", "1")) == 1
    assert "1 letter, and 3 more: --limit 0 shows all." in shell.run("dead", "list", "--limit", "1").stdout
    assert sum(row["count"] for row in shell.json("dead", "count")) == 4
    shown = shell.json("dead", "show", ID + "d")
    assert shown["args"][0]["elements"][0]["source_url"] == "https://files.example/shoe.mp4?…"
    assert shown["route"] == {"code": "source_*", "action": "dead_letter"}
    assert shown["after"] == {
        "next": ["framelane.transcribe", "shop.publish"],
        "on_success": ["shop.note"],
        "on_error": ["chain(shop.alarm, shop.mail)"],
        "chord": "shop.all_done",
        "group_id": "group-1",
    }
    assert "framelane.transcribe → shop.publish" in shell.run("dead", "show", ID + "d").stdout


# --- replay ------------------------------------------------------------------------------------------------------


def test_a_letter_is_replayed_once_and_the_second_time_says_so(shell: Shell, room: Room) -> None:
    first, second = shell.json("dead", "replay", ID + "d"), shell.json("dead", "replay", ID + "d")
    new_id = first[0]["task_id"]
    assert first[0]["is_new"]
    assert (second[0]["is_new"], second[0]["task_id"]) == (False, new_id)
    assert f"{ID}d  was replayed before, as {new_id}" in shell.run("dead", "replay", ID + "d").stdout
    assert room.read(new_id)[0].until == "slot"
    assert new_id not in ids_of(shell)


def test_a_pipeline_that_is_kept_waiting_goes_on_under_its_id(shell: Shell, room: Room) -> None:
    assert f"{ID}9  goes on as {ID}9" in shell.run("dead", "replay", ID + "9").stdout
    assert room.read(ID + "9")[0].until == "slot"
    assert "was replayed before" in shell.run("dead", "replay", ID + "9").stdout


def test_all_leaves_out_what_may_be_paid_for_already(shell: Shell, room: Room) -> None:
    result = shell.run("dead", "replay", "--all", "--yes")
    assert "1 letter of code outcome_unknown left out" in result.stderr
    assert "3 letters replayed" in result.stdout
    assert ids_of(shell) == [ODD]
    assert "no dead letter matches" in shell.run("dead", "replay", "--all", "--yes", exits=1).stderr
    assert shell.json("dead", "replay", "--code", "outcome_unknown")[0]["is_new"]


def test_by_code_and_by_task(shell: Shell, room: Room) -> None:
    assert len(shell.json("dead", "replay", "--code", "source_not_found", "--yes")) == 2
    assert len(shell.json("dead", "replay", "--task", "framelane.transcribe")) == 1
    assert ids_of(shell) == [ODD]


def test_a_wrong_id_among_others_stops_nobody(shell: Shell, room: Room) -> None:
    rows = shell.json("dead", "replay", "--yes", "no-such", ID + "d", exits=1)
    assert rows[0] == {
        "id": "no-such",
        "task": "",
        "task_id": "no-such",
        "code": None,
        "error": "no-such is no dead letter: no such task",
    }
    assert rows[1]["is_new"]


def test_edited_arguments_are_checked_and_kept(shell: Shell, room: Room) -> None:
    bad = shell.run("dead", "replay", ID + "d", "--args", '[{"widht": 5}]', exits=1)
    assert "did you mean 'width'?" in bad.stderr
    assert "positional argument" in shell.run("dead", "replay", ID + "e", "--args", "[1,2,3]", exits=1).stderr
    new_id = shell.json("dead", "replay", ID + "d", "--args", '[{"width": 640, "height": 360, "duration": 1}]')[0][
        "task_id"
    ]
    assert Call.from_text(room.read(new_id)[0].call).args == [{"width": 640, "height": 360, "duration": 1}]
    other = shell.run("dead", "replay", ID + "d", "--args", '[{"duration": 2}]', exits=1)
    assert "replayed with other arguments already" in other.stderr
    kwargs = shell.json("dead", "replay", ID + "e", "--args", "[]", "--kwargs", '{"source": "https://a.example/b.mp4"}')
    assert Call.from_text(room.read(kwargs[0]["task_id"])[0].call).kwargs == {"source": "https://a.example/b.mp4"}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--all", "--code", "x"),
        (ID + "d", "--all"),
        (ID + "d", "--code", "x"),
        ("--all", "--args", "[]"),
        (ID + "d", ODD, "--args", "[]"),
        (ID + "d", "--args", "{}"),
        (ID + "d", "--args", "nonsense"),
        (ID + "d", "--kwargs", "[]"),
        (ID + "d", "--args", "[" * 100_000),
    ],
    ids=lambda words: " ".join(words)[-30:],
)
def test_wrong_usage(shell: Shell, room: Room, words: tuple[str, ...]) -> None:
    shell.run("dead", "replay", *words, exits=2)
    assert ids_of(shell) == LETTERS


# --- dry run -----------------------------------------------------------------------------------------------------

Served = tuple[Shell, FramelaneServer, Room]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with FramelaneServer() as server, make_app(tmp_path, base_url=server.base_url, api_key=server.api_key) as app:
        yield Shell(app), server, room_for(app)
        room_for(app).close()


def test_a_dry_run_asks_the_api_and_pays_nothing(served: Served) -> None:
    shell, server, room = served
    sent = json.dumps({**COMPOSITION, "surely_new": 1, "metadata": {"celery_task_id": "stored"}})
    letters = [
        make_letter("good"),
        make_letter("stored", task="shop.promo", args=(7,), request=sent),
        make_letter("refused", task="shop.promo", args=(7,)),
        make_letter("media", task="shop.speech", job_kind="task"),
        make_letter("speech", task="framelane.transcribe", job_kind=None),
    ]
    for letter in letters:
        room.create(letter)
    rows = {row["id"]: row for row in shell.json("dead", "replay", "--all", "--dry-run")}
    assert rows["good"]["ok"] is True
    assert rows["stored"]["checked"] is True
    assert "which is not run" in rows["refused"]["why"]
    assert rows["media"]["why"] == rows["speech"]["why"] == "a media task has no free check"
    assert server.ledger.counts()["jobs"] == 0
    assert len(ids_of(shell)) == 5
    twins = [{"type": "text", "id": "a", "text": "x", "duration": 1}] * 2
    edited = shell.run(
        "dead", "replay", "good", "--dry-run", "--args", json.dumps([{**COMPOSITION, "elements": twins}]), exits=1
    )
    assert "the API would refuse it: DUPLICATE_ELEMENT_ID" in edited.stderr
    assert "1 letter looked at" not in edited.stdout


def test_a_dry_run_says_why_it_cannot_check(served: Served) -> None:
    shell, _, room = served
    room.create(make_letter("good"))
    room.create(make_letter("good too"))
    shell.app.conf.framelane["base_url"] = "http://127.0.0.1:9"
    rows = shell.json("dead", "replay", "--all", "--dry-run")
    assert [row["why"].partition(":")[0] for row in rows] == ["the API did not answer"] * 2
    shell.app.conf.framelane["api_key"] = None
    assert "no key is set" in shell.run("dead", "replay", "--all", "--dry-run", exits=1).stderr


# --- discard, export, import -------------------------------------------------------------------------------------


def test_discard(shell: Shell, room: Room) -> None:
    assert [row["id"] for row in shell.json("dead", "discard", "--yes", ID + "d", ID + "9")] == [ID + "d", ID + "9"]
    assert room.read(ID + "9")[0].until == "start"
    assert "letters discarded" in shell.run("dead", "discard", "--all", "--yes").stdout
    assert ids_of(shell) == []
    assert "no dead letter matches" in shell.run("dead", "discard", "--all", "--yes", exits=1).stderr
    shell.run("dead", "discard", exits=2)


def test_letters_travel_as_lines(shell: Shell, room: Room, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    assert shell.json("dead", "export", str(file)) == {"file": str(file), "exported": 4}
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists" in shell.run("dead", "export", str(file), exits=2).stderr
    assert len(shell.run("dead", "export", "-", ID + "d").stdout.splitlines()) == 1
    assert "no dead letter matches" in shell.run("dead", "export", "-", "--code", "x", exits=1).stderr
    assert "4 known already" in shell.run("dead", "import", str(file)).stdout
    other = tmp_path / "other"
    other.mkdir()
    with make_app(other) as app:
        there = Shell(app)
        assert there.json("dead", "import", str(file)) == {"new": 4, "known": 0, "bad": []}
        assert sorted(ids_of(there)) == sorted(LETTERS)
        assert there.json("dead", "import", "-", input=file.read_bytes()) == {"new": 0, "known": 4, "bad": []}
        assert there.json("dead", "replay", ID + "9")[0]["task_id"] != ID + "9"
        room_for(app).close()


def test_an_export_of_nothing_is_an_empty_file(shell: Shell, tmp_path: Path) -> None:
    assert "0 letters exported" in shell.run("dead", "export", str(tmp_path / "none")).stdout
    assert (tmp_path / "none").read_text() == ""
    assert "No such file" in shell.run("dead", "export", str(tmp_path / "no" / "folder"), exits=1).stderr


BAD_LINES = [
    b"nonsense", b"[]", b"{}", b'"x"', b"null", b"1e999", b"\xff\xfe", b"[" * 100_000, b'{"id": "x", "step": 1}',
    b'{"id": "x", "step": 1, "call": {}, "state": null}',
    b'{"id": "x", "step": 1, "call": {"task": "t", "args": 1, "kwargs": {}, "options": {}}, "state": {"format": 1}}',
    b'{"id": "x", "step": 1, "call": null, "state": {"format": 99}}',
]  # fmt: skip


def test_a_bad_line_is_told_and_stops_nobody(shell: Shell, room: Room, app: Celery) -> None:
    good = shell.run("dead", "export", "-", ID + "d").stdout.encode()
    shell.run("dead", "discard", "--yes", ID + "d")
    result = shell.run("dead", "import", "-", input=b"\n".join([*BAD_LINES, b"", good]), exits=1)
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        f"line {number}" for number in range(1, len(BAD_LINES) + 1)
    ]
    assert "1 new letter, 0 known already, 12 bad lines." in result.stdout
    assert ID + "d" in ids_of(shell)


@pytest.mark.parametrize(
    "state",
    [
        {"failure": "x"}, {"failure": [1]}, {"letter": "x"}, {"letter": {"at": "soon"}}, {"history": [1]}, {"job": 5},
        {"attempt": "many"}, {"created_at": None}, {"task": 7}, {"account": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_would_spoil_the_list_is_refused(shell: Shell, room: Room, state: dict[str, object]) -> None:
    line = json.loads(shell.run("dead", "export", "-", ID + "d").stdout)
    line["id"], line["state"] = "new", {**line["state"], **state}
    assert "line 1: not a dead letter" in shell.run("dead", "import", "-", input=json.dumps(line), exits=1).stderr
    assert ids_of(shell) == LETTERS


def test_a_missing_file_is_wrong_usage(shell: Shell) -> None:
    shell.run("dead", "import", "/no/such/file", exits=2)
    shell.run("estimate", "/no/such/file", exits=2)
