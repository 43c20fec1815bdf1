"""The webhook view, through Django's whole stack with CSRF checks on."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery
from django.http import UnreadablePostError
from django.test import Client, RequestFactory

from framelane_celery import webhooks
from framelane_celery.django import views
from framelane_celery.room import Room
from framelane_celery.testing.webhooks import signature
from tests.cli.rooms import ID
from tests.django.conftest import SECRET

URL = "/framelane/webhook/"
BODY = b'{"type": "render.completed", "data": {"id": "render_5", "status": "completed"}}'


def signed(body: bytes = BODY, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    return {"Framelane-Signature": signature(body, secret, time.time() if at is None else at)}


def post(headers: dict[str, str], body: bytes = BODY) -> Any:
    """From outside: no cookie, no token."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=True)
    return client.post(URL, body, content_type="application/json", headers=headers)


def due_at(room: Room) -> float:
    record = room.read(ID + "5")[0]
    assert record is not None
    assert record.due_at is not None
    return record.due_at


def test_a_webhook_leaves_a_hint_and_no_token_is_asked_for(room: Room) -> None:
    before = due_at(room)
    assert post(signed()).status_code == 200
    assert due_at(room) < before


def test_nothing_is_taken_from_the_body(room: Room) -> None:
    post(signed(body := b'{"id": "render_5", "status": "failed", "output": {"url": "https://evil"}}'), body)
    record = room.read(ID + "5")[0]
    assert record is not None
    assert (record.until, record.outcome, (record.job or {}).get("status")) == ("job", None, "processing")


REFUSED: dict[str, Any] = {
    "no signature": {},
    "another secret": signed(secret="whsec_forged"),
    "stale": {"at": 1.0},
    "malformed": {"Framelane-Signature": "t=x,v1=y"},
    "two in one": {"Framelane-Signature": "t=1,v1=" + "0" * 64 + ",t=2"},
    "huge": {"Framelane-Signature": "t" * 5000},
    "not ASCII": {"Framelane-Signature": "t=\u0661,v1=" + "0" * 64},
}


def test_whatever_is_malformed_is_one_refusal(room: Room) -> None:
    before, answers = due_at(room), set()
    for name, headers in REFUSED.items():
        answer = post(signed(at=1.0) if name == "stale" else headers)
        answers.add((answer.status_code, answer.content, tuple(sorted(answer.headers.items()))))
    assert len(answers) == 1
    assert next(iter(answers))[:2] == (400, b"")
    assert due_at(room) == before


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "patch"])
def test_post_only(app: Celery, method: str) -> None:
    assert getattr(Client(), method)(URL).status_code == 405


def test_no_more_is_read_than_a_webhook_may_be_long(app: Celery) -> None:
    asked: list[int | None] = []

    class Endless:
        def read(self, size: int | None = None) -> bytes:
            asked.append(size)
            return b" " * (size or 0)

    request = RequestFactory().post(URL, b"{}", content_type="application/json", headers=signed())
    request._stream = Endless()
    assert views.webhook(request).status_code == 413
    assert asked == [webhooks.MAX_BODY_BYTES + 1]
    too_long = b" " * (webhooks.MAX_BODY_BYTES + 1)
    assert post(signed(too_long), too_long).status_code == 413
    longest = b" " * webhooks.MAX_BODY_BYTES
    assert post(signed(longest), longest).status_code == 200


def test_what_says_that_it_is_too_long_is_not_read_at_all(app: Celery) -> None:
    request = RequestFactory().post(URL, b"{}", content_type="application/json", headers=signed())
    request.META["CONTENT_LENGTH"] = str(10**10)
    request._stream = None
    assert views.webhook(request).status_code == 413


def test_a_sender_that_hangs_up_is_refused(app: Celery) -> None:
    class Gone:
        def read(self, size: int) -> bytes:
            raise OSError("gone")

    request = RequestFactory().post(URL, b"{}", content_type="application/json", headers=signed())
    request._stream = Gone()
    with pytest.raises(UnreadablePostError):
        request.read(1)
    assert views.webhook(request).status_code == 400


def test_a_room_that_is_away_has_it_sent_again(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.framelane = {**app.conf.framelane, "room_url": "redis://:hunter2@127.0.0.1:1/0"}
    answer = post(signed())
    assert (answer.status_code, answer.headers["Retry-After"], answer.content) == (503, "30", b"")
    assert post(signed(secret="whsec_forged")).status_code == 400
    assert "hunter2" not in caplog.text


def test_without_a_secret_nothing_is_taken_and_nothing_is_lost(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("FRAMELANE_WEBHOOK_SECRET", raising=False)
    app.conf.framelane = {**app.conf.framelane, "webhook_secrets": ()}
    assert post(signed()).status_code == 503
    assert "FRAMELANE_WEBHOOK_SECRET" in caplog.text
