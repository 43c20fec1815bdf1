"""The status URL: what it tells, and to whom."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from celery import Celery
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import Client

from framelane_celery.errors import JobFailed, SourceNotFound
from framelane_celery.monitoring import progress_meta
from framelane_celery.room import Room
from tests.cli.rooms import COMPOSITION, ID, ODD, SECRET, make_record

URL = "https://cdn.example/out.mp4?X-Signature=s3cr3t"
JOB = {"id": "render_9", "status": "completed", "output": {"url": URL, "width": 9}, "metadata": {"a": "b"}}


def anybody(request: Any, task_id: str) -> bool:
    return True


def owner(request: Any, task_id: str) -> bool:
    return task_id in request.GET.getlist("mine")


def forbids(request: Any, task_id: str) -> bool:
    raise PermissionDenied


def hides(request: Any, task_id: str) -> bool:
    raise Http404


async def awaited(request: Any, task_id: str) -> bool:
    return False


def truthy(request: Any, task_id: str) -> Any:
    return "no"


@pytest.fixture
def open_to_all(setting: Any) -> None:
    setting("FRAMELANE_STATUS_PERMISSION", "tests.django.test_status.anybody")


def ask(task_id: str, query: str = "", client: Client | None = None) -> Any:
    from urllib.parse import quote

    return (client or Client()).get(f"/framelane/status/{quote(task_id)}/{query}")


def told(task_id: str, query: str = "") -> dict[str, Any]:
    answer = ask(task_id, query)
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def store(app: Celery, task_id: str, state: str, result: Any) -> None:
    app.backend.store_result(task_id, result, state)


# --- what it tells -----------------------------------------------------------------------------------------------


def test_progress_of_the_result_backend(app: Celery, room: Room, open_to_all: None) -> None:
    record = room.read(ID + "5")[0]
    assert record is not None
    store(app, "elsewhere", "PROGRESS", progress_meta(record) | {"percent": 41})
    assert told("elsewhere") == {
        "task_id": "elsewhere",
        "state": "PROGRESS",
        "percent": 41,
        "stage": "encoding",
        "description": "processing: encoding",
        "code": None,
        "is_over": False,
    }


@pytest.mark.parametrize(
    ("suffix", "state", "percent", "description", "code"),
    [
        ("1", "PENDING", 0, "waits for a worker", None),
        ("3", "PROGRESS", 0, "queued for a submit slot", None),
        ("5", "PROGRESS", 40, "processing: encoding", None),
        ("6", "PROGRESS", 0, "attempt 3 after internal", "internal"),
        ("8", "PROGRESS", 0, "on hold: quota_exceeded", "quota_exceeded"),
        ("9", "PROGRESS", 0, "dead letter, kept waiting: source_not_found", "source_not_found"),
        ("c", "SUCCESS", 100, None, None),
        ("d", "FAILURE", 0, None, "source_not_found"),
    ],
)
def test_what_the_backend_does_not_know_the_record_tells(
    room: Room, open_to_all: None, suffix: str, state: str, percent: int, description: str | None, code: str | None
) -> None:
    known = told(ID + suffix)
    shown = (known["state"], known["percent"], known["description"], known["code"])
    assert shown == (state, percent, description, code)
    assert known["is_over"] is (state in ("SUCCESS", "FAILURE"))


@pytest.mark.parametrize(
    ("changes", "state", "code"),
    [
        ({"ending": "revoked"}, "REVOKED", None),
        ({"outcome": "cancelled"}, "FAILURE", "cancelled"),
        ({"failure": {"code": "internal", "message": "x"}}, "FAILURE", "internal"),
        ({}, "ENDED", None),
    ],
)
def test_ends_of_records(
    app: Celery, room: Room, open_to_all: None, changes: dict[str, Any], state: str, code: str | None
) -> None:
    room.create(make_record("ended", "done", due_at=None, call="", **changes))
    known = told("ended")
    assert (known["state"], known["code"], known["is_over"]) == (state, code, True)


def test_an_id_with_a_slash(room: Room, open_to_all: None) -> None:
    assert told(ODD)["task_id"] == ODD


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailed("no file", "render_1", "source_not_found"), "source_not_found"),
        (SourceNotFound("https://u:p@host/?key=1 gone", 422, "source_not_found"), "source_not_found"),
        (ValueError("https://host/?key=1"), None),
    ],
)
def test_a_failure_tells_its_code_and_no_message(
    app: Celery, open_to_all: None, error: Exception, code: str | None
) -> None:
    app.backend.mark_as_failure("t", error, traceback="Traceback: secret")
    known = told("t", "?result=1")
    assert (known["state"], known["code"], known["is_over"]) == ("FAILURE", code, True)
    assert not [word for word in ("host", "no file", "Traceback") if word in json.dumps(known)]


def test_a_state_of_the_projects_own(app: Celery, open_to_all: None) -> None:
    store(app, "t", "UPLOADING", {"secret": 1})
    assert told("t")["state"] == "UPLOADING"
    assert "secret" not in ask("t").content.decode()


def test_the_result_is_its_url_and_only_where_it_is_asked_for(app: Celery, open_to_all: None) -> None:
    store(app, "t", "SUCCESS", JOB)
    assert "result" not in told("t")
    assert told("t", "?result=1")["result"] == {"output": {"url": URL}}
    for other in ({"output": "x"}, {"output": {"url": 3}}, [1], "text", None):
        store(app, "u", "SUCCESS", other)
        assert "result" not in told("u", "?result=1")


def test_no_key_no_signed_url_no_body(app: Celery, room: Room, open_to_all: None) -> None:
    ids = [record.id for record in room.scan()]
    assert len(ids) > 10
    store(app, "hidden", "PROGRESS", {"percent": 5, "stage": f"reading https://h/x?{SECRET}", "request": COMPOSITION})
    texts = [ask(id, "?result=1").content.decode() for id in [*ids, "hidden"]]
    for secret in ("s3cr3t", "fl_test_key", "source_url", "elements"):
        assert not [text for text in texts if secret in text]
    record = room.read(ID + "5")[0]
    assert record is not None
    assert "s3cr3t" in json.dumps(asdict(record), default=str)  # so there was something to show


def test_a_room_that_is_away_is_no_404(app: Celery, open_to_all: None) -> None:
    app.conf.framelane = {**app.conf.framelane, "room_url": "redis://:hunter2@127.0.0.1:1/0"}
    answer = ask("unknown")
    assert (answer.status_code, answer.json()) == (503, {"error": "unavailable"})


@pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:1/0", "file:///nowhere/at/all"])
def test_a_result_backend_that_is_away_is_no_500(
    app: Celery, room: Room, open_to_all: None, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.result_backend = url
    app._backend_cache = None
    answer = ask(ID + "5")
    assert (answer.status_code, answer.json()) == (503, {"error": "unavailable"})
    assert "the result backend is away" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_answer_is_not_cached_and_only_read(room: Room, open_to_all: None) -> None:
    assert "no-store" in ask(ID + "5").headers["Cache-Control"]
    assert Client().post(f"/framelane/status/{ID}5/").status_code == 405


# --- to whom -----------------------------------------------------------------------------------------------------


def seen_by(client: Client, task_id: str) -> tuple[Any, ...]:
    answer = ask(task_id, "?result=1", client)
    return answer.status_code, answer.content, {k: v for k, v in answer.headers.items() if k != "Expires"}


def test_who_is_not_logged_in_learns_not_even_whether_an_id_exists(room: Room) -> None:
    assert seen_by(Client(), ID + "5") == seen_by(Client(), "no-such")
    assert seen_by(Client(), ID + "5")[:2] == (404, b'{"error": "not found"}')


def test_who_is_logged_in_may_read_but_not_the_result(app: Celery, room: Room, database: None) -> None:
    from django.contrib.auth.models import User

    client = Client()
    client.force_login(User.objects.get_or_create(username="reader")[0])
    store(app, "t", "SUCCESS", JOB)
    answer = ask("t", "?result=1", client)
    assert answer.status_code == 200
    assert "result" not in answer.json()  # ids can be guessed: a result takes a permission of the project's own
    assert ask("no-such", "", client).status_code == 404


def test_the_projects_own_permission(room: Room, setting: Any) -> None:
    setting("FRAMELANE_STATUS_PERMISSION", "tests.django.test_status.owner")
    assert ask(ID + "5", f"?mine={ID}5").status_code == 200
    assert ask(ID + "6", f"?mine={ID}5").status_code == 404


@pytest.mark.parametrize("name", ["forbids", "hides", "awaited", "truthy", "no_such"])
@pytest.mark.filterwarnings("ignore:coroutine 'awaited' was never awaited")
def test_whatever_is_no_plain_yes_is_the_same_no(room: Room, setting: Any, name: str) -> None:
    setting("FRAMELANE_STATUS_PERMISSION", f"tests.django.test_status.{name}")
    assert seen_by(Client(), ID + "5") == seen_by(Client(), "no-such")
    assert seen_by(Client(), ID + "5")[:2] == (404, b'{"error": "not found"}')
