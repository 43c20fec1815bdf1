"""The Python of a page, run by sybil in a process of its own: ``python -m tests.docs.stories PAGE``.

A story surrounds the blocks of its page: it is a generator that yields once before each of them, adds the names that
the page takes for granted to the page's own, and says between and after them what has to have come of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import django
from celery import Celery, shared_task
from django.conf import settings as django_settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import framelane_celery as framelane
from framelane_celery import FramelaneClient, FramelaneTask, RenderRequest, signals
from framelane_celery.operations import find
from framelane_celery.settings import settings_of
from framelane_celery.testing import FramelaneServer
from framelane_celery.testing.webhooks import signature
from framelane_celery.webhooks import MAX_BODY_BYTES
from tests.docs.pages import ROOT

Names = dict[str, Any]
Story = Iterator[None]
SECRET = "whsec_docs"


def run(page: str) -> None:
    """Raises: whatever a block of the page raises, with the page's own line in the traceback."""
    path = ROOT / page
    document = Sybil([PythonCodeBlockParser()], path=str(path.parent)).parse(path)
    app = Celery("shop", broker="memory://", backend="cache+memory://")
    with FramelaneServer(job_seconds=3600, start_at=time.time() - 3600) as server:
        room = f"sqlite:///{Path.cwd()}/room.sqlite"
        app.conf.framelane = {"api_key": server.api_key, "base_url": server.base_url, "room_url": room}
        names = document.namespace
        story = STORIES.get(page, plain)(app, server, names)
        for example in document.examples():
            next(story)
            example.evaluate()
        for _ in story if page in STORIES else ():
            raise AssertionError(f"{page}: its story waits for a block that is not there")


def plain(app: Celery, server: FramelaneServer, names: Names) -> Story:
    """What any page may take for granted, and no more than that its blocks run."""
    names |= {"app": app, "framelane": framelane, "shared_task": shared_task}
    names |= {"FramelaneTask": FramelaneTask, "RenderRequest": RenderRequest}
    while True:
        yield


def failures(app: Celery, server: FramelaneServer, names: Names) -> Story:
    next(plain(app, server, names))
    room = app.conf.framelane["room_url"]
    yield
    app.conf.framelane["room_url"] = room
    assert [route.action for route in settings_of(app).routes] == ["retry", "hold", "dead_letter"]
    yield
    (task,) = [task for name, task in app.tasks.items() if name.endswith(".preview")]
    assert task.routes[0]["action"] == "fail"
    yield
    app.conf.framelane["room_url"] = room
    assert settings_of(app).spend_guard.counts


def webhooks(app: Celery, server: FramelaneServer, names: Names) -> Story:
    app.conf.framelane["webhook_secrets"] = [SECRET]
    shop = ModuleType("shop.celery")
    shop.app = app  # type: ignore[attr-defined]
    sys.modules |= {"shop": ModuleType("shop"), "shop.celery": shop}
    app.set_default()
    result = framelane.render.delay({"elements": [{"type": "text", "text": "Hi", "duration": 1}]})
    body = b'{"data": {"id": "render_1"}}'
    signed = {"HTTP_FRAMELANE_SIGNATURE": signature(body, SECRET, time.time())}
    yield
    django_settings.configure(ALLOWED_HOSTS=["*"])
    django.setup()
    from django.test import RequestFactory

    post = RequestFactory().post
    view = names["framelane_webhook"]
    assert view(post("/", body, "application/json", **signed)).status_code == 200
    assert view(post("/", body, "application/json")).status_code == 400
    yield
    receiver = names["framelane_webhook"]
    assert _answer_of(receiver, body, signed) == "200 OK"
    assert _answer_of(receiver, body, {}) == "400 Bad Request"
    assert _answer_of(receiver, b"x" * (MAX_BODY_BYTES + 1), signed) == "400 Bad Request"
    names["url"] = server.base_url
    yield
    assert find(app, result.id).until == "start"


def _answer_of(receiver: Any, body: bytes, headers: dict[str, str]) -> str:
    from io import BytesIO

    told: list[str] = []
    environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body), **headers}
    receiver(environ, lambda status, headers: told.append(status))
    return told[0]


def orphans(app: Celery, server: FramelaneServer, names: Names) -> Story:
    metadata = {"celery_task": "framelane.render", "celery_task_id": "lost"}
    request = RenderRequest(elements=[{"type": "text", "text": "Hi", "duration": 1}], metadata=metadata)  # type: ignore[list-item]
    with FramelaneClient(server.api_key, server.base_url) as client:
        client.create_render(request, "lost-1")
    names["app"] = app
    yield
    assert find(app, "lost").until == "job"


def of_signals(app: Celery, server: FramelaneServer, names: Names) -> Story:
    yield
    told = signals.job_finished.send(
        "framelane.render", task_id="t1", job_id="render_1", outcome="completed", code=None
    )
    assert len(told) == 1
    assert not isinstance(told[0][1], Exception)


STORIES = {
    "docs/failures.md": failures,
    "docs/webhooks.md": webhooks,
    "docs/orphans.md": orphans,
    "docs/reference/signals.md": of_signals,
}


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(("FRAMELANE_", "CELERY_", "DJANGO_"))]:
        del os.environ[name]
    run(sys.argv[1])
