"""The Celery project that is measured: our tasks, plain ones, and the recipes that a user would write."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import requests
from celery import Celery

import framelane_celery as framelane
from framelane_celery import FramelaneTask, RenderRequest

COMPOSITION = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}

app = Celery("benchmarks")
app.conf.update(json.loads(os.environ.get("BENCH_CELERY", "{}")))
app.conf.framelane = json.loads(os.environ.get("BENCH_FRAMELANE", "{}"))
render = framelane.render


@app.task
def next_task(job: dict[str, Any]) -> dict[str, Any]:
    """The task after the job: when it started, and when the job had ended."""
    return {"id": job["id"], "started": time.time(), "ended": job["completed_at"]}


@app.task
def nothing() -> None:
    """What Celery itself costs."""


@app.task
def plain(composition: dict[str, Any]) -> None:
    """The same with what a render is called with."""


@app.task
def now() -> float:
    return time.time()


class Result(FramelaneTask):
    """A task whose result is as small as a plain one's."""

    abstract = True

    def completed(self, job: Any, *args: Any, **kwargs: Any) -> None:
        return None


@app.task(base=Result)
def small() -> RenderRequest:
    return RenderRequest.model_validate(COMPOSITION)


@app.task(bind=True, max_retries=None)
def recipe(self: Any, job_id: str | None = None) -> Any:
    """Forty lines less error handling: submit, then ask every two seconds."""
    url = app.conf.framelane["base_url"] + "/v1/renders"
    headers = {"Authorization": f"Bearer {app.conf.framelane['api_key']}"}
    if job_id is None:
        answer = requests.post(url, json=COMPOSITION, headers=headers, timeout=30)
        raise self.retry(args=(answer.json()["id"],), countdown=2)
    job = requests.get(f"{url}/{job_id}", headers=headers, timeout=30).json()
    if job["status"] not in ("completed", "failed", "cancelled"):
        raise self.retry(countdown=2)
    return job


@app.task(bind=True, max_retries=None, rate_limit="120/m")
def paced_recipe(self: Any, composition: dict[str, Any]) -> str:
    """What a user would write against the limit per minute: Celery's own, for each worker, and a retry on 429."""
    url = app.conf.framelane["base_url"] + "/v1/renders"
    headers = {"Authorization": f"Bearer {app.conf.framelane['api_key']}"}
    answer = requests.post(url, json=composition, headers=headers, timeout=30)
    if answer.status_code == 429:
        raise self.retry(countdown=int(answer.headers["Retry-After"]))
    return str(answer.json()["id"])


if os.environ.get("BENCH_INSTANT_HTTP"):
    # "HTTP apart": the API answers at once, inside the worker, so that what is left is Celery's and ours.
    from framelane_celery import client
    from framelane_celery.models import Job, JobPage
    from framelane_celery.watching import watcher

    class InstantClient:
        """Accepts everything, and every job has ended."""

        def submit(self, path: str, body: bytes, idempotency_key: str) -> client.Submitted:
            job = Job.model_validate({"id": f"render_{idempotency_key}", "kind": "render", "status": "queued"})
            return client.Submitted(job, is_replay=False)

        def get_job(self, kind: str, job_id: str, wait_s: int = 0) -> Job:
            return Job.model_validate({"id": job_id, "kind": "render", "status": "completed"})

        def list_jobs(self, kind: str, **filters: Any) -> JobPage:
            return JobPage()

    assert watcher  # imported before, so that it is found below
    for _module in [module for name, module in sys.modules.items() if name.startswith("framelane_celery")]:
        if hasattr(_module, "shared_client"):
            _module.shared_client = lambda settings: InstantClient()  # type: ignore[attr-defined]
