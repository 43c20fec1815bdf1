"""More tasks for the worker tests' project, and a tap: every message that a process of theirs publishes is noted."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import shared_task
from kombu.messaging import Producer

from framelane_celery import FramelaneClient, FramelaneTask, GuardedTask, Job, RenderRequest
from framelane_celery.settings import settings_of
from tests.worker.project import app, composition

TAP = "TEST_TAP"


def _noted(publish: Any) -> Any:
    def _publish(self: Any, *args: Any, **options: Any) -> Any:
        if os.environ.get(TAP):
            body, _, _, encoding, headers, properties, key, _, _, exchange = args[:10]
            text = body.decode("latin-1") if isinstance(body, bytes) else str(body)
            around = json.dumps([exchange, key, encoding, headers, properties], default=str)
            line = json.dumps({"exchange": exchange, "key": key, "around": around, "body": text}) + "\n"
            handle = os.open(os.environ[TAP], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        return publish(self, *args, **options)

    return _publish


if Producer._publish.__name__ == "_publish" and not hasattr(Producer, "tapped"):
    Producer.tapped, Producer._publish = True, _noted(Producer._publish)


@shared_task(base=GuardedTask)
def fetch(result: Any, tag: str) -> str:
    """What a user's last step does: it fetches the finished file."""
    job = Job.model_validate(result)
    with FramelaneClient.from_settings(settings_of(app)) as client, tempfile.TemporaryDirectory() as folder:
        client.download(job.kind, job.id, Path(folder) / "file")
        client.download_url(job.kind, job.id)
    return tag


@shared_task
def plain(result: Any) -> str:
    """A task of Celery's own after one of ours: it gets a finished job, or several."""
    return "plain"


@shared_task
def wrongly() -> dict[str, Any]:
    """What the next task cannot take."""
    return {"width": 1080, "height": 1920, "output_format": "mp4", "elements": [{"type": "texts"}] * 50}


@shared_task(base=FramelaneTask)
def slow(body: dict[str, Any], seconds: float) -> RenderRequest:
    time.sleep(seconds)
    return RenderRequest.model_validate(body)


@shared_task(base=FramelaneTask, bind=True)
def again(self: Any, body: dict[str, Any]) -> RenderRequest:
    """Calls ``retry()`` with an error that quotes what it should not."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return RenderRequest.model_validate(body)


@shared_task(base=FramelaneTask)
def not_a_request(body: dict[str, Any]) -> Any:
    return body


def secret_body(source: str, words: str, **metadata: str) -> dict[str, Any]:
    """A composition that holds both kinds of what nobody may see."""
    body = composition(words, **metadata)
    body["elements"].append({"type": "video", "source_url": source, "out_point": 2})
    return body
