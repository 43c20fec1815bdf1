"""Tasks for tests of several accounts: loaded by the workers too (``-I tests.worker.workspaces``)."""

from __future__ import annotations

import os
from typing import Any

from celery import shared_task

from framelane_celery import FramelaneTask, RenderRequest
from framelane_celery.records import shelf
from tests.worker.project import composition, journal

WITH = ("-c", "2", "-I", "tests.worker.workspaces,tests.worker.sooner")
"""Options of such a worker."""

OLD_RELEASE = {"TEST_OLD_RELEASE": "1"}
"""The environment of one whose release knows no accounts: it reads no record of a named one."""

if "TEST_OLD_RELEASE" in os.environ:
    shelf.NEWEST = 1  # type: ignore[misc]


@shared_task(base=FramelaneTask, bind=True, name="tests.worker.project.joined")
def joined(self: Any, jobs: list[dict[str, Any]]) -> RenderRequest:
    """A chord's body: renders what its members have made, from links that were signed just now."""
    links = [self.fresh_url(job) for job in jobs]
    journal("joined", links=links)
    elements = [
        {"type": "video", "source_url": link, "time": at, "out_point": 1, "id": str(at)}
        for at, link in enumerate(links)
    ]
    return RenderRequest.model_validate({"elements": elements})


@shared_task(base=FramelaneTask, name="tests.worker.project.european", framelane_account="eu")
def european(**metadata: str) -> RenderRequest:
    """On an account by its class."""
    return RenderRequest.model_validate(composition(**metadata))


@shared_task(base=FramelaneTask, bind=True, max_retries=2, name="tests.worker.project.again")
def again(self: Any, how: str) -> RenderRequest:
    """Runs twice: by ``retry()``, or replaced by a render."""
    if how == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if how == "replace":
        raise self.replace(self.app.tasks["framelane.render"].s(composition()))
    return RenderRequest.model_validate(composition())
