"""The Celery project of the worker tests: what a user would write, configured from the environment.

Every task that is watched notes its runs in a journal, a file that survives whatever is killed.
"""

from __future__ import annotations

import json
import os
import signal
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from celery import Celery, current_task, shared_task
from celery.exceptions import Ignore, Reject

import framelane_celery as framelane
from framelane_celery import FramelaneTask, RenderRequest
from framelane_celery.settings import settings_of
from tests.worker import typed  # noqa: F401 - more tasks
from tests.worker.lines import lines_in

app = Celery("tests")
app.conf.update(json.loads(os.environ.get("TEST_CELERY", "{}")))
app.conf.framelane = json.loads(os.environ.get("TEST_FRAMELANE", "{}"))


def journal(event: str, **fields: Any) -> None:
    """Note something, in one write that no other process can tear."""
    task_id = current_task.request.id if current_task else None
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), "id": task_id, **fields}) + "\n"
    handle = os.open(os.environ["TEST_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def composition(text: str = "hello", **metadata: str) -> dict[str, Any]:
    """A small composition; ``outcome``, ``code`` and ``seconds`` tell the tests' server how its job shall end."""
    return {"elements": [{"type": "text", "text": text, "duration": 2}], **({"metadata": metadata} if metadata else {})}


def reach(point: str) -> None:
    """Note that a point is reached; if a test has put a file there, die as it says (once)."""
    journal(point)
    order = Path(os.environ["TEST_JOURNAL"]).with_name(f"at-{point}")
    try:
        what = order.read_text()
        order.unlink()
    except FileNotFoundError:
        return
    if what == "kill child":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "kill worker":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    if what == "hang":
        time.sleep(3600)


# --- plain tasks -------------------------------------------------------------------------------------------------


@shared_task(bind=True)
def note(self, value: Any = None, tag: str = "note") -> Any:
    """A plain task of the tail: notes what it got."""
    journal("plain", tag=tag, id=self.request.id)
    return value


@shared_task(bind=True)
def ids(self, jobs: Any) -> list[str]:
    """A chord's body: the ids of the jobs it got."""
    jobs = jobs if isinstance(jobs, list) else [jobs]
    journal("body", count=len(jobs), id=self.request.id)
    return [job["id"] if isinstance(job, dict) else job for job in jobs]


@shared_task
def ping() -> float:
    return time.time()


@shared_task
def errback(task_id: str) -> None:
    journal("errback", id=task_id)


@shared_task
def fail(*args: Any) -> None:
    raise ValueError("a plain failure")


@shared_task
def told(request: Any, error: Exception, traceback: Any) -> None:
    """An errback of the kind that gets the error itself."""
    journal(
        "told",
        id=request.id,
        error=type(error).__name__,
        code=getattr(error, "code", None),
        job=getattr(error, "job_id", None),
    )


@shared_task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


@shared_task
def call_render(text: str, task_id: str | None = None) -> str:
    """A plain task that calls one of ours and goes on."""
    return framelane.render.apply_async((composition(text),), task_id=task_id).id


@shared_task
def downloads(job: Any) -> int:
    """Fetches the file of the job before it, through a signed link."""
    target = BytesIO()
    with framelane.FramelaneClient.from_settings(settings_of(app)) as client:
        client.download(job["kind"], job["id"], target)
    return len(target.getvalue())


# --- tasks of ours -----------------------------------------------------------------------------------------------


class Watched(FramelaneTask):
    """Notes each step of a run, and dies there if a test says so."""

    abstract = True

    def completed(self, job, *args, **kwargs):
        reach("completed")
        return job.to_json()

    def after_return(self, *args):
        reach("after_return")


@shared_task(base=Watched)
def promo(text: str = "hello") -> RenderRequest:
    """A task of the user's own; a second run of its body would build another request."""
    reach("body")
    return RenderRequest.model_validate(composition(f"{text} {time.time_ns()}"))


@shared_task(base=FramelaneTask, bind=True)
def with_result(self, text: str = "hello") -> RenderRequest:
    return RenderRequest.model_validate(composition(text))


def _completed(self, job, *args, **kwargs):
    return {"job": job.id, "args": list(args), "kwargs": kwargs}


class WithResult(FramelaneTask):
    abstract = True
    completed = _completed


@shared_task(base=WithResult)
def own_result(text: str, *, note: str = "") -> RenderRequest:
    return RenderRequest.model_validate(composition(text))


@shared_task(base=FramelaneTask, bind=True, max_retries=3)
def retrying(self, text: str = "hello", **metadata: str) -> RenderRequest:
    """Retries its body once before it submits."""
    journal("body", retries=self.request.retries)
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return RenderRequest.model_validate(composition(text, **metadata))


class RetriesCompleted(FramelaneTask):
    abstract = True

    def completed(self, job, *args, **kwargs):
        journal("completed", retries=self.request.retries, job=job.id)
        if self.request.retries < 1:
            raise self.retry(countdown=0)
        return job.to_json()


@shared_task(base=RetriesCompleted)
def retries_completed(text: str = "hello") -> RenderRequest:
    return RenderRequest.model_validate(composition(text))


@shared_task(base=FramelaneTask, bind=True)
def replacing(self, shape: str, **metadata: str) -> RenderRequest:
    """Replaces itself in the ways that a user can."""
    journal("body", shape=shape)
    if shape == "plain":
        return self.replace(note.s({"id": "plain"}, tag="replaced"))
    if shape == "render":
        return self.replace(framelane.render.s(composition("replaced", **metadata)))
    if shape == "immutable":
        return self.replace(framelane.render.s(composition("replaced", **metadata)) | note.si("after", tag="after"))
    return self.replace(note.s(composition("chained"), tag="before") | framelane.render.s())


@shared_task(base=FramelaneTask)
def raising(kind: str) -> RenderRequest:
    journal("body", kind=kind)
    if kind == "ignore":
        raise Ignore("not today")
    if kind == "reject":
        raise Reject("not today", requeue=False)
    raise ValueError("the body failed")


@shared_task(base=FramelaneTask)
def deadly() -> RenderRequest:
    """Kills its child in every run."""
    journal("body")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@shared_task(base=Watched, time_limit=2)
def slow_body(seconds: float) -> RenderRequest:
    reach("body")
    time.sleep(seconds)
    return RenderRequest.model_validate(composition("slow"))


@shared_task(base=Watched)
def long_body(seconds: float) -> RenderRequest:
    """A body longer than its lease."""
    reach("body")
    time.sleep(seconds)
    return RenderRequest.model_validate(composition("long"))


@shared_task(base=FramelaneTask)
def montage(jobs: Any, **metadata: str) -> RenderRequest:
    """Of the job, or the jobs, before it."""
    jobs = jobs if isinstance(jobs, list) else [jobs]
    return RenderRequest.model_validate(composition(" ".join(job["id"] for job in jobs), **metadata))


def _seen(request: Any) -> dict[str, Any]:
    """What a run sees of its own message."""
    info = request.delivery_info or {}
    return {
        "headers": {key: value for key, value in (request.headers or {}).items() if key != "framelane"},
        "own": request.get("x-mine"), "priority": info.get("priority"), "stamps": request.stamps,
        "stamped_headers": request.stamped_headers, "root_id": request.root_id, "parent_id": request.parent_id,
        "timelimit": list(request.timelimit or ()), "shadow": request.shadow, "queue": info.get("routing_key"),
        "expires": request.expires, "eta": request.eta, "argsrepr": request.argsrepr, "retries": request.retries,
        "group": request.group, "reply_to": request.reply_to,
    }  # fmt: skip


class Reports(FramelaneTask):
    abstract = True

    def completed(self, job, *args, **kwargs):
        journal("second", **_seen(self.request))
        return job.id


@shared_task(base=Reports, bind=True)
def reporting(self, text: str = "hello", **metadata: str) -> RenderRequest:
    """Notes what both of its runs see of their messages."""
    journal("first", **_seen(self.request))
    return RenderRequest.model_validate(composition(text, **metadata))


@shared_task(base=FramelaneTask)
def returns(what: Any) -> Any:
    """A body that does not return a request model."""
    return what


@shared_task(base=FramelaneTask, bind=True, autoretry_for=(OSError,), retry_backoff=False, default_retry_delay=0)
def flaky(self, text: str = "hello") -> RenderRequest:
    """Fails twice before it builds its request."""
    journal("body", retries=self.request.retries)
    if self.request.retries < 2:
        raise OSError("the shop's database is away")
    return RenderRequest.model_validate(composition(text))


@shared_task(base=FramelaneTask, bind=True, max_retries=1)
def never_ready(self) -> RenderRequest:
    raise self.retry(exc=OSError("the shop's database is away"), countdown=0)


class Expected(FramelaneTask):
    abstract = True
    throws = (LookupError, *FramelaneTask.throws)


@shared_task(base=Expected)
def throwing() -> RenderRequest:
    raise LookupError("no such product")


class Starts(FramelaneTask):
    abstract = True

    def completed(self, job, *args, **kwargs):
        note.delay("from completed", tag="child")
        return job.id


@shared_task(base=Starts)
def parent_of(text: str = "hello") -> RenderRequest:
    """Its second run starts a plain task."""
    return RenderRequest.model_validate(composition(text))


@shared_task(base=Watched, soft_time_limit=4)
def hurried(text: str = "hello", sleep_s: float = 0) -> RenderRequest:
    """Has four seconds for each run: enough for one that nothing holds up, on a slow machine too."""
    reach("body")
    time.sleep(sleep_s)
    return RenderRequest.model_validate(composition(text))


class Impatient(FramelaneTask):
    abstract = True
    deadline_s = 1.0


@shared_task(base=Impatient)
def impatient(**metadata: str) -> RenderRequest:
    return RenderRequest.model_validate(composition("soon", **metadata))


# --- routes ------------------------------------------------------------------------------------------------------


def runs(event: str) -> int:
    """How often the running task has noted this before."""
    notes = lines_in(Path(os.environ["TEST_JOURNAL"]))
    return sum(note["event"] == event and note["id"] == current_task.request.id for note in notes)


def _refused(self, times: int = 1, label: str = "hello") -> RenderRequest:
    journal("refused", queue=self.request.delivery_info["routing_key"])
    if runs("refused") > times:
        return RenderRequest.model_validate(composition(label))
    source = {"type": "video", "source_url": "http://files.example.com/not-public.mp4"}
    return RenderRequest.model_validate({"elements": [source]})


for _action in ("again", "spent", "dies", "waits", "fails", "holds"):
    # The API refuses what its first bodies build (422 invalid_source). A task each, for routes go by the task too.
    shared_task(base=FramelaneTask, bind=True, name=f"tests.worker.project.refused_{_action}")(_refused)


OWN_ROUTES = [
    {"code": "mine", "action": "retry", "max_attempts": 2, "backoff_s": 0.1, "then": "fail"},
    {"code": "shared", "kind": "task", "action": "retry"},
]


@shared_task(base=FramelaneTask, routes=OWN_ROUTES)
def with_routes(**metadata: str) -> RenderRequest:
    """Has rules of its own before the settings'."""
    return RenderRequest.model_validate(composition("own routes", **metadata))


class Returns(FramelaneTask):
    abstract = True

    def completed(self, job, *args, **kwargs):
        journal("second", **_seen(self.request))
        return job.to_json()


@shared_task(base=Returns, bind=True)
def returning(self, **metadata: str) -> RenderRequest:
    """Calls ``retry()`` once, in the body of its second attempt."""
    journal("first", **_seen(self.request))
    if runs("first") == 2:
        raise self.retry(countdown=0)
    return RenderRequest.model_validate(composition("returning", **metadata))


class Guarded(framelane.GuardedTask):
    abstract = True

    def after_return(self, *args):
        reach("after_return")


@shared_task(base=Guarded, bind=True)
def guarded(self, value: Any = None, tag: str = "guarded") -> Any:
    """A plain task that is not lost."""
    reach("body")
    journal("plain", tag=tag, id=self.request.id)
    return value["id"] if isinstance(value, dict) else value


@shared_task(base=framelane.GuardedTask, bind=True, max_retries=2)
def guarded_retry(self) -> int:
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@shared_task(base=framelane.GuardedTask)
def guarded_failure() -> None:
    raise ValueError("a plain failure")
