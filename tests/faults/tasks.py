"""Tasks that misbehave, loaded by workers under attack (``-I tests.faults.tasks``)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import shared_task
from celery.exceptions import Ignore, Reject

from framelane_celery import FramelaneTask, Job, RenderRequest
from tests.worker.project import composition, journal

LOADED = ("-I", "tests.faults.tasks,tests.faults.points")


class SlowEnd(FramelaneTask):
    abstract = True

    def completed(self, job: Job, seconds: float) -> dict:
        journal("slow completed", id=self.request.id)
        time.sleep(seconds)
        return job.to_json()


@shared_task(base=SlowEnd)
def slow_end(seconds: float) -> RenderRequest:
    """Its `completed` takes longer than a lease."""
    return RenderRequest.model_validate(composition("slow end"))


@shared_task(base=SlowEnd, time_limit=40)  # a limit of each run: the first one must never come near it
def limited_end(seconds: float) -> RenderRequest:
    """Its `completed` runs into the hard time limit."""
    return RenderRequest.model_validate(composition("limited end"))


@shared_task(base=FramelaneTask, time_limit=20)
def limited_wait() -> RenderRequest:
    """Its job does not end."""
    return RenderRequest.model_validate(composition("held"))


@shared_task(base=FramelaneTask, bind=True)
def gives_up(self, how: str) -> RenderRequest:
    journal("body", id=self.request.id)
    raise {"ignore": Ignore("no"), "reject": Reject("no", requeue=False), "requeue": Reject("no", requeue=True),
           "exit": SystemExit(3)}[how]  # fmt: skip


class GivesUpAtTheEnd(FramelaneTask):
    abstract = True

    def completed(self, job: Job, how: str) -> dict:
        journal("body", id=self.request.id)
        raise {"ignore": Ignore("no"), "reject": Reject("no", requeue=False)}[how]


@shared_task(base=GivesUpAtTheEnd)
def gives_up_at_the_end(how: str) -> RenderRequest:
    return RenderRequest.model_validate(composition("gives up"))


@shared_task(base=FramelaneTask, bind=True, time_limit=20)
def limited_body(self) -> RenderRequest:
    """Its first body runs into the hard time limit."""
    journal("body", id=self.request.id)
    time.sleep(0 if len(runs_of(self.request.id)) > 1 else 600)
    return RenderRequest.model_validate(composition("limited"))


def runs_of(task_id: str) -> list[str]:
    """The notes that a task's bodies have made."""
    lines = Path(os.environ["TEST_JOURNAL"]).read_text().splitlines()
    return [line for line in lines if '"event": "body"' in line and task_id in line]
