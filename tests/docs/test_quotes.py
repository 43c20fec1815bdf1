"""What a page quotes of a log line or an error is what is printed, but for ids."""

from __future__ import annotations

import logging
import re

import pytest

from framelane_celery import FramelaneClient, RenderRequest, TranscribeRequest
from framelane_celery.errors import InvalidSource
from framelane_celery.models import VideoElement
from framelane_celery.monitoring import told
from framelane_celery.records import Record
from framelane_celery.testing import FramelaneServer
from tests.docs.pages import texts


def as_pattern(quoted: str) -> str:
    """Where the page has an id that ends in an ellipsis, another one may stand."""
    return r"\S+".join(map(re.escape, re.split(r"\w+-?…", quoted.strip())))


def test_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    (quoted,) = texts("docs/monitoring.md", "text")
    task_id = "9de1d3a5-0f0e-4a08-bb7e-0e2f3a8f0c11"
    waiting = Record(id=task_id, task="framelane.render", call="", digest="", until="job", job_id="render_01M8QR2K5V")
    again = Record(
        id=task_id,
        task="framelane.render",
        call="",
        digest="",
        until="instant",
        attempt=2,
        failure={"code": "internal"},
    )
    with caplog.at_level(logging.INFO, "framelane_celery.transitions"):
        told("shop", waiting, again, 1.0)
    assert re.fullmatch(as_pattern(quoted), caplog.messages[-1])


def test_what_an_assertion_says_of_a_job_that_is_missing() -> None:
    (quoted,) = texts("docs/testing.md", "text")
    metadata = {"celery_task": "framelane.transcribe", "celery_task_id": "5b2fc0a9-6b1d-4b0c-8b11-0c7f3a8f0c11"}
    refused = RenderRequest(elements=[VideoElement(source_url="http://media.example.com/a.mp4")])
    with FramelaneServer(job_seconds=0) as server, FramelaneClient(server.api_key, server.base_url) as client:
        request = TranscribeRequest(source_url="https://media.example.com/a.mp4", metadata=metadata)
        client.create_media_task(request, "one")
        with pytest.raises(InvalidSource):
            client.create_render(refused, "two")
        with pytest.raises(AssertionError) as raised:
            server.assert_submitted("shop.promo", times=1)
    assert re.fullmatch(as_pattern(quoted), f"AssertionError: {raised.value}")
