"""System checks: what each one sees, and that none connects to anything."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from celery import Celery, _state
from django.core.checks import run_checks
from django.core.checks.registry import registry

OURS = ["framelane"]


def told(*, deploy: bool = False) -> dict[str, Any]:
    found = run_checks(tags=OURS, include_deployment_checks=deploy)
    return {message.id: message for message in found if message.id.startswith("framelane.")}


def texts(id: str) -> str:
    """All that is told under an id."""
    return " ".join(f"{m.msg} {m.hint}" for m in run_checks(tags=OURS) if m.id == id)


def test_a_good_project_is_told_nothing(app: Celery) -> None:
    assert told() == {}


def test_the_checks_are_registered_under_a_tag_of_their_own() -> None:
    assert registry.tag_exists("framelane")


def test_no_celery_app(setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state._tls, "current_app", None)
    monkeypatch.setattr(_state, "default_app", None)
    (message,) = told().values()
    assert message.id == "framelane.E001"
    assert "FRAMELANE_CELERY_APP = 'proj.celery.app'" in message.msg


def test_the_app_may_be_named(app: Celery, setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state._tls, "current_app", None)
    monkeypatch.setattr(_state, "default_app", None)
    setting("FRAMELANE_CELERY_APP", "tests.django.test_checks.named")
    monkeypatch.setitem(globals(), "named", app)
    assert told() == {}
    setting("FRAMELANE_CELERY_APP", "tests.django.nowhere.app")
    assert "'tests.django.nowhere.app' cannot be imported" in told()["framelane.E001"].msg


@pytest.mark.parametrize(
    ("conf", "text"),
    [
        ({"api_kee": "x"}, "unknown key 'api_kee'; did you mean 'api_key'?"),
        (["no", "dict"], "framelane must be a dict of settings, not list"),
        ({"deadline_s": -1}, "deadline_s: Input should be greater than 0"),
        ({"routes": [{"code": "internal", "action": "retri"}]}, "routes"),
    ],
)
def test_settings_that_do_not_parse(app: Celery, conf: Any, text: str) -> None:
    app.conf.framelane = conf
    if isinstance(conf, dict):
        app.conf.framelane = {"room_url": "sqlite:///room.db", "api_key": "fl_x", **conf}
    assert text in texts("framelane.E002")
    assert "Set what the message names" in texts("framelane.E002")


def test_an_app_without_a_name_has_no_namespace(app: Celery) -> None:
    """Two such apps on one broker would take each other's work."""
    app.main = None
    assert "namespace: the Celery app has no name" in texts("framelane.E002")


def test_settings_that_the_app_does_not_read(app: Celery, setting: Any) -> None:
    app.conf.framelane = None
    setting("FRAMELANE", {"api_key": "fl_x"})
    assert "Django's FRAMELANE is set, but the app does not read it" in texts("framelane.E002")
    assert "sqlite:///file" in texts("framelane.E002")  # the whole of the other error


def test_no_key_is_a_warning_for_a_web_process_needs_none(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRAMELANE_API_KEY", raising=False)
    app.conf.framelane = {**app.conf.framelane, "api_key": None}
    (message,) = told().values()
    assert (message.id, message.is_serious()) == ("framelane.W003", False)
    assert "framelane['api_key'] or FRAMELANE_API_KEY" in message.hint


def test_a_key_that_would_cross_the_network_in_clear_text(app: Celery) -> None:
    app.conf.framelane = {**app.conf.framelane, "base_url": "http://api.example"}
    assert "not encrypted" in told()["framelane.E004"].msg


def test_the_webhook_is_mounted_without_a_secret(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRAMELANE_WEBHOOK_SECRET", raising=False)
    app.conf.framelane = {**app.conf.framelane, "webhook_secrets": ()}
    message = told()["framelane.W020"]
    assert "FRAMELANE_WEBHOOK_SECRET" in message.hint


def test_no_webhook_is_mounted_and_no_secret_needed(app: Celery, setting: Any) -> None:
    app.conf.framelane = {**app.conf.framelane, "webhook_secrets": ()}
    setting("ROOT_URLCONF", "tests.django.admin_urls")
    from django.urls import clear_url_caches

    clear_url_caches()
    try:
        assert told() == {}
    finally:
        clear_url_caches()


def test_a_permission_that_cannot_be_used(app: Celery, setting: Any) -> None:
    for path in ("nowhere.at_all", "tests.django.conftest.SECRET", 3):
        setting("FRAMELANE_STATUS_PERMISSION", path)
        assert "FRAMELANE_STATUS_PERMISSION" in told()["framelane.E021"].msg


def test_nobody_says_who_is_logged_in(app: Celery, setting: Any) -> None:
    setting("MIDDLEWARE", [])
    assert "framelane.W022" in told()


def test_what_may_be_meant_is_told_on_deployment_only(app: Celery) -> None:
    app.conf.task_always_eager = True
    assert told() == {}
    assert "task_always_eager is on" in told(deploy=True)["framelane.W002"].msg


def test_nothing_is_connected(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a check connects")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("sqlite3.connect", refuse)
    app.conf.framelane = {**app.conf.framelane, "room_url": "redis://127.0.0.1:1/0"}
    # (W012: of other tests' shared tasks, which any app here has.)
    assert told(deploy=True).keys() <= {"framelane.W004", "framelane.W010", "framelane.W011", "framelane.W012"}


def test_no_secret_is_told(app: Celery) -> None:
    app.conf.framelane = {"room_url": "redis+cluster://:hunter2@h/0", "api_key": "fl_secret key", "x": 1}
    for conf in (app.conf.framelane, {"room_url": "nope://:hunter2@h/0", "api_key": "fl_secret key"}):
        app.conf.framelane = conf
        text = repr([(m.msg, m.hint) for m in told(deploy=True).values()])
        assert "hunter2" not in text
        assert "fl_secret" not in text
