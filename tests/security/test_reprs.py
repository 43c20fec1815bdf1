"""Reprs get where nobody looks: into error reports, which keep local variables, and into logs of a debugger."""

from __future__ import annotations

import json
from typing import Any

import pytest

from framelane_celery import FramelaneClient, errors
from framelane_celery.client.sending import Bearer, new_session
from framelane_celery.models import Job, Preview, RenderRequest, TranscribeRequest
from framelane_celery.models.request import WireModel
from framelane_celery.records import Record
from framelane_celery.room import open_room
from framelane_celery.settings import FramelaneSettings, resolve
from framelane_celery.testing import FramelaneServer
from framelane_celery.wakeups import Call
from tests.security.full_run import API_KEY, QUERY, SOURCE, WEBHOOK_SECRET, WORDS
from tests.security.project import secret_body

PASSWORD = "hunter2"
SECRETS = (API_KEY, WEBHOOK_SECRET, QUERY, WORDS, PASSWORD)
BODY = {**secret_body(SOURCE, WORDS), "metadata": {"title": WORDS}, "webhook_url": SOURCE, "extra": {"new": WORDS}}
ROOM = f"redis://:{PASSWORD}@127.0.0.1:6379/12"
CALL = Call("framelane.render", [BODY], {"source": SOURCE}, {"link": [WORDS]})
JOB = {"id": "render_1", "status": "completed", "output": {"url": SOURCE}, "metadata": {"celery_task_id": "1"}}


def settings() -> FramelaneSettings:
    return FramelaneSettings(api_key=API_KEY, room_url=ROOM, webhook_secrets=(WEBHOOK_SECRET,))  # type: ignore[arg-type]


REPRS: dict[str, Any] = {
    "settings": settings,
    "a client": lambda: FramelaneClient.from_settings(settings()),
    "a key": lambda: Bearer(API_KEY),
    "a session": lambda: new_session(Bearer(API_KEY)),
    "a render request": lambda: RenderRequest.model_validate(BODY),
    "elements": lambda: RenderRequest.model_validate(BODY).elements,
    "a media request": lambda: TranscribeRequest(source_url=SOURCE, word_boost=[WORDS]),
    "a job": lambda: Job.model_validate(JOB),
    "a preview": lambda: Preview.model_validate({"ok": True, "url": SOURCE, "violations": [], "body": {"text": WORDS}}),
    "a call": lambda: CALL,
    "a record": lambda: Record("1", "t", CALL.to_text(), "", request=json.dumps(BODY), job=JOB),
    "a room": lambda: open_room(ROOM, "a"),
    "a server": lambda: FramelaneServer(api_keys=(API_KEY,), webhook_secret=WEBHOOK_SECRET),
}


@pytest.mark.parametrize("what", REPRS)
def test_a_repr_shows_no_secret(what: str) -> None:
    made = REPRS[what]()
    for text in (repr(made), str(made), f"{made}", repr([made]), repr({"a": made})):
        assert not [secret for secret in SECRETS if secret in text], text


def test_a_request_shows_which_fields_are_set() -> None:
    request = RenderRequest.model_validate({**secret_body(SOURCE, WORDS), "width": 1080, "height": 1920})
    assert repr(request) == "RenderRequest(width=1080, height=1920, elements=…)"


def test_every_part_of_a_request_is_covered() -> None:
    """One that overrides its repr would be alone with it."""
    waiting = [WireModel]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        assert model.__repr_args__ is WireModel.__repr_args__, model


@pytest.mark.parametrize("make", [errors.JobFailed, errors.JobCancelled, errors.JobTimedOut])
def test_a_job_error_shows_its_message_and_no_more(make: Any) -> None:
    error = make("the job failed", "render_1")
    assert repr(error) == f"{make.__name__}('the job failed')"


def test_a_setting_that_is_wrong_is_not_quoted() -> None:
    conf = {"api_key": f"{API_KEY} x", "room_url": f"http://:{PASSWORD}@x"}
    with pytest.raises(errors.SettingsError) as caught:
        resolve(conf, environ={}, app_name="a", broker_url=None, result_backend=None)
    assert not [secret for secret in SECRETS if secret in f"{caught.value!r}{caught.value}{caught.value.__context__}"]
