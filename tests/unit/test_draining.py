"""What a drain waits for, what it cancels and what it leaves; and which queues are ours alone."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from framelane_celery import GuardedTask, draining, render
from framelane_celery.draining import is_in_flight, is_not_submitted, is_to_cancel
from framelane_celery.draining.broker import own_queues
from framelane_celery.operations import room_for
from framelane_celery.records import Record
from framelane_celery.settings import settings_of

LETTER = {"at": 1.0, "queue": "shop.dead", "route": {}, "keep_waiting": True, "announced": True}

# state, changes, is it in flight, does it stay unsubmitted, is it cancelled
STATES: list[tuple[Any, dict[str, Any], bool, bool, bool]] = [
    ("start", {}, True, False, True),
    ("start", {"outcome": "completed"}, True, False, False),  # paid for, and ready
    ("start", {"outcome": "failed"}, True, False, False),
    ("slot", {}, False, True, True),
    ("instant", {}, False, True, True),
    ("instant", {"first_post_at": 1.0}, False, True, True),
    ("release", {}, False, True, True),
    ("release", {"letter": LETTER}, False, False, False),
    ("release", {"letter": LETTER, "ending": "revoked"}, True, False, False),
    ("job", {"job_id": "render_1"}, True, False, True),
    ("job", {"job_id": "render_1", "ending": "revoked"}, True, False, False),
    ("slot", {"ending": "revoked"}, True, False, False),
    ("running", {}, True, False, True),
    ("running", {"outcome": "completed"}, True, False, False),
    ("replacing", {}, True, False, False),
    ("dead", {"letter": LETTER}, False, False, False),
    ("done", {}, False, False, False),
]


@pytest.mark.parametrize(("until", "changes", "in_flight", "not_submitted", "to_cancel"), STATES)
def test_what_becomes_of_a_record(
    until: Any, changes: dict[str, Any], in_flight: bool, not_submitted: bool, to_cancel: bool
) -> None:
    record = Record("task-1", "framelane.render", "{}", "d", until=until, **changes)
    assert is_in_flight(record) is in_flight
    assert is_not_submitted(record) is not_submitted
    assert is_to_cancel(record, is_guarded=False) is to_cancel


@pytest.mark.parametrize(
    ("until", "to_cancel"), [("start", False), ("running", False), ("instant", True), ("done", False)]
)
def test_a_tail_that_has_begun_is_not_cancelled(until: Any, to_cancel: bool) -> None:
    record = Record("task-1", "shop.publish", "{}", "d", until=until)
    assert is_to_cancel(record, is_guarded=True) is to_cancel


def test_a_drain_that_cancels_tells_though_callers_go_on(tmp_path: Path) -> None:
    """Each pass cancels what was called since the one before: else its time never ends, and it never rests."""
    app = make_app({"room_url": f"sqlite:///{tmp_path}/room.db"})
    room, drained = room_for(app), draining.drain(app, cancels=True)
    is_over = threading.Event()

    def call() -> None:
        for number in itertools.count():
            if is_over.wait(0.001):
                return
            room.create(Record(f"task-{number}", "framelane.render", "{}", "d", until="instant", due_at=9e9))

    with ThreadPoolExecutor(2) as pool:
        pool.submit(call)
        try:
            seen = pool.submit(next, drained).result(timeout=10)
        finally:
            is_over.set()
    assert seen.in_flight["instant"] > 0
    room.close()


# --- queues ------------------------------------------------------------------------------------------------------


def _mail() -> None: ...


def make_app(framelane: dict[str, Any] | None = None, **conf: Any) -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    app.conf.framelane = {"room_url": "sqlite:///x.db", **(framelane or {})}
    app.finalize(auto=True)
    app.task(name="shop.mail", shared=False)(_mail)
    assert render.name in app.tasks
    return app


def queues_of(app: Celery, *served: str) -> tuple[set[str], set[str]]:
    return own_queues(app, settings_of(app), served)


def test_the_queues_for_retries_and_letters_are_ours() -> None:
    assert queues_of(make_app()) == ({"celery.retry", "shop.dead"}, set())


def test_each_queue_of_the_app_has_one_for_retries() -> None:
    app = make_app(task_routes={"framelane.*": {"queue": "video"}}, task_queues=[Queue("mail")])
    assert queues_of(app, "gpu") == ({"celery.retry", "video.retry", "mail.retry", "gpu.retry", "shop.dead"}, set())


def test_those_that_routes_and_settings_name_are_ours() -> None:
    routes = [{"code": "internal", "action": "retry", "queue": "again"}, {"code": "*", "action": "dead_letter"}]
    app = make_app({"routes": routes, "dead_letter_queue": "letters", "retry_queue": "retries"})

    @app.task(base=GuardedTask, name="shop.publish", shared=False)
    def publish() -> None: ...

    publish.routes = [{"code": "worker_lost", "action": "dead_letter", "queue": "publish.dead"}]
    assert queues_of(app) == ({"retries", "letters", "again", "publish.dead"}, set())


def test_a_queue_that_the_app_itself_uses_stays() -> None:
    """A setting may name any queue: what plain tasks are sent to is never deleted."""
    app = make_app(
        {"retry_queue": "celery", "dead_letter_queue": "mail"},
        task_queues=[Queue("celery"), Queue("other")],
        task_routes={"shop.mail": {"queue": "mail"}},
    )
    assert queues_of(app) == (set(), {"celery", "mail"})
    app = make_app(task_queues=[Queue("celery"), Queue("celery.retry")])
    assert queues_of(app) == ({"celery.retry.retry", "shop.dead"}, {"celery.retry"})
