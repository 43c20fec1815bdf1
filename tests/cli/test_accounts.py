from __future__ import annotations

import json
from pathlib import Path

import pytest
from celery import Celery

from framelane_celery.operations import room_for
from framelane_celery.room import Room, SpendClaim
from tests.cli.conftest import Shell
from tests.cli.rooms import COMPOSITION, SOURCE, make_app, make_record

TEXT = {"type": "text", "text": "x", "duration": 2}


@pytest.fixture
def _named(app: Celery) -> None:
    app.conf.framelane = {**app.conf.framelane, "accounts": {"eu": {"api_key": "fl_eu"}}}


@pytest.mark.usefixtures("_named")
def test_hold_release_and_what_is_listed(shell: Shell) -> None:
    assert (
        "Account default is on hold (an operator) until: celery framelane release default" in shell.run("hold").stdout
    )
    assert shell.json("hold", "eu", "--reason", f"see {SOURCE}")["reason"] == "see https://files.example/shoe.mp4?…"
    rows = shell.json("holds")
    assert [(row["id"], row["code"], row["held"]) for row in rows] == [
        ("default", "operator", 0),
        ("eu", "operator", 0),
    ]
    assert "an operator releases it" in shell.run("holds").stdout
    assert shell.json("release", "eu")["released"]
    assert "account eu is not on hold" in shell.run("release", "eu", exits=1).stderr
    shell.run("release")
    assert shell.run("holds").stdout == "No account is on hold.\n"
    shell.run("hold", " ", exits=2)


def test_what_is_held_is_counted(shell: Shell, room: Room) -> None:
    assert shell.json("holds")[0]["held"] == 1
    assert "1 task will queue for submit slots" in shell.run("release").stdout


@pytest.mark.parametrize(
    ("composition", "told"),
    [
        (COMPOSITION, "About 12.5 s of output, 0.21 min.\n"),
        ({"output_format": "png"}, "A picture: it has no seconds.\n"),
        ({"elements": []}, "cannot be told: there is no duration, and there are no elements"),
        ({"elements": [{"type": "video", "id": "v", "source_url": SOURCE}]}, "no element tells when it ends"),
        (
            {"elements": [{"type": "video", "id": "v", "source_url": SOURCE}, TEXT]},
            "About 2 s of output, 0.03 min. Perhaps more: 1 element without out_point",
        ),
    ],
)  # fmt: skip
def test_an_estimate(shell: Shell, composition: dict[str, object], told: str) -> None:
    assert told in shell.run("estimate", "-", input=json.dumps(composition)).stdout
    assert shell.json("estimate", "-", input=json.dumps(composition))["left"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "not JSON"), ("", "not JSON"), ("[" * 100_000, "not JSON"),
        ("[]", "must be a RenderRequest or a dict"),
        ('{"widht": 1}', "did you mean 'width'?"), (b"\xff", "not JSON"), ('{"duration": NaN}', "duration"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_clear_error(shell: Shell, text: str, told: str) -> None:
    result = shell.run("estimate", "-", input=text, exits=1)
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_the_spend_guard_leaves(tmp_path: Path) -> None:
    guard = {"minutes_per_day": 0.3, "submissions_per_day": 2}
    with make_app(tmp_path, spend_guard=guard) as app:
        shell, room = Shell(app), room_for(app)
        told = shell.run("estimate", "-", input=json.dumps(COMPOSITION)).stdout
        assert "leaves account default 2 submissions and 0.30 min of output for today (UTC).\n" in told
        assert "stopped" not in told
        old = make_record("x", "start")
        room.create(old)
        assert room.save(old, old, claim=SpendClaim("default", 0.2, 2, 0.3)) == "saved"
        assert "So this one would be stopped by it." in shell.run("estimate", "-", input=json.dumps(COMPOSITION)).stdout
        left = shell.json("estimate", "-", input=json.dumps(COMPOSITION))["left"]
        assert left == {
            "submissions_spent": 1, "minutes_spent": 0.2, "submissions": 1, "minutes": pytest.approx(0.1)
        }  # fmt: skip
        room.close()


@pytest.mark.usefixtures("_named")
@pytest.mark.parametrize("words", [("hold", "euu"), ("estimate", "--account", "euu", "-"), ("release", "euu")])
def test_an_unknown_account_is_told_with_the_nearest_one(shell: Shell, room: Room, words: tuple[str, ...]) -> None:
    told = shell.run(*words, input=json.dumps(COMPOSITION), exits=1).stderr
    assert "no account 'euu' in framelane['accounts']; did you mean 'eu'?" in told
    assert [hold.account for hold in room.holds()[0]] == ["default"]


def test_a_hold_of_an_account_that_was_removed_can_be_released(shell: Shell, room: Room) -> None:
    room.hold("removed", "quota_exceeded", "spent")
    assert shell.json("release", "removed")["released"]


@pytest.mark.usefixtures("_named")
def test_each_account_has_a_spend_guard(shell: Shell, app: Celery) -> None:
    accounts = {"eu": {"api_key": "fl_eu", "spend_guard": {"submissions_per_day": 3}}}
    app.conf.framelane = {**app.conf.framelane, "accounts": accounts}
    left = shell.json("estimate", "--account", "eu", "-", input=json.dumps(COMPOSITION))["left"]
    assert left["submissions"] == 3
    assert shell.json("estimate", "-", input=json.dumps(COMPOSITION))["left"] is None


@pytest.mark.usefixtures("_named")
def test_what_an_account_that_was_removed_waits_for(shell: Shell, room: Room) -> None:
    room.create(make_record("left", "job", account="removed", job_id="render_9"))
    room.create(make_record("named", "start", account="eu"))
    rows = {row["id"]: row["wakes"] for row in shell.json("waiting")}
    assert rows["left"] == "settings that name account removed (again): nobody has its key meanwhile"
    assert "settings" not in rows["named"]
    assert shell.json("progress", "left")["wakes"] == rows["left"]
