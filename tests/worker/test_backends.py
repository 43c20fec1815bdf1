"""Other result backends: django-celery-results, a database, rpc. (Redis and files: everywhere else.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from celery import chain, chord
from sqlalchemy import create_engine, make_url, text

from framelane_celery import JobFailed
from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import POSTGRES, ROOT, Stack, jobs_of, wait_for

pytestmark = [pytest.mark.worker]
MakeStack = Callable[..., Stack]


@pytest.fixture
def database() -> Iterator[str]:
    """A PostgreSQL schema of the test's own, as a URL."""
    schema = f"fl_test_{uuid4().hex[:10]}"
    engine = create_engine(make_url(POSTGRES).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield f"{POSTGRES}?options={quote(f'-csearch_path={schema}')}"
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


def render(stack: Stack, name: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(name, **metadata))


# --- a database --------------------------------------------------------------------------------------------------


@pytest.mark.celery55
def test_a_database_as_result_backend(make_stack: MakeStack, server: FramelaneServer, database: str) -> None:
    stack = make_stack("rabbitmq", server, celery={"result_backend": f"db+{database}", "result_extended": True})
    with stack.worker("-c", "2"):
        chained = chain(render(stack), stack.sig("framelane.transcribe"), stack.sig("note", tag="db")).apply_async()
        waiting = render(stack, outcome="never").apply_async()
        body = chord([render(stack, str(n)) for n in range(3)], stack.sig("ids")).apply_async()
        assert chained.get(timeout=60)["kind"] == "task"
        assert len(set(body.get(timeout=60))) == 3
        with pytest.raises(JobFailed):
            render(stack, outcome="fail").apply_async().get(timeout=60)
        # celery_facts row 13: every state is stored with the task's request
        stack.until(waiting.id, "job")
        assert (waiting.state, waiting.name, waiting.args[0]["elements"][0]["type"]) == (
            "PROGRESS",
            "framelane.render",
            "text",
        )
        stack.app.control.revoke(waiting.id)
        stack.until(waiting.id, "done")
        again = stack.app.AsyncResult(waiting.id)
        assert (again.state, again.name) == ("REVOKED", "framelane.render")
    for result in (chained, body, waiting):
        result.forget()
    stack.app.backend.ResultSession().get_bind().dispose()


# --- django-celery-results ---------------------------------------------------------------------------------------

CLIENT = """
import json, sys, time
from tests.worker.project import app, composition, ids, note
import django
django.setup()
from django.core.management import call_command
import framelane_celery as framelane
from celery import chain, chord

def render(text="hello", **metadata):
    return framelane.render.s(composition(text, **metadata))

answers = {}
if "migrate" in sys.argv:
    call_command("migrate", verbosity=0)
if "run" in sys.argv:
    body = chord([render(str(n)) for n in range(8)], ids.s()).apply_async()
    answers["chord"] = len(set(body.get(timeout=60)))
    chained = chain(render(), framelane.transcribe.s(), note.s(tag="dcr")).apply_async()
    answers["chain"] = chained.get(timeout=60)["kind"]
    failed = render(outcome="fail").apply_async()
    failed.get(timeout=60, propagate=False)
    answers["error"] = [type(failed.result).__name__, failed.result.code]
    waiting = render(outcome="never").apply_async()
    while waiting.state != "PROGRESS":
        time.sleep(0.02)
    from django_celery_results.models import TaskResult
    answers["waiting"] = list(TaskResult.objects.values_list("status", "task_name").get(task_id=waiting.id))
    app.control.revoke(waiting.id)
    while waiting.state != "REVOKED":
        time.sleep(0.02)
    answers["revoked"] = list(TaskResult.objects.values_list("status", "task_name").get(task_id=waiting.id))
if "chord" in sys.argv:
    body = chord([render("a", outcome="never"), render("b", outcome="never")], ids.s()).apply_async()
    answers = [body.id, [member.id for member in body.parent.children]]
if "state" in sys.argv:
    answers = app.AsyncResult(sys.argv[-1]).state
print(json.dumps(answers))
"""


def django(stack: Stack, database: str, *what: str) -> Any:
    """Act as the Django project, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *what],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, **stack.environment(), **site(database)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def site(database: str) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": "tests.worker.django_settings", "TEST_DJANGO_DATABASE": database}


DCR = {"result_backend": "django-db", "result_extended": True, "cache_backend": "memory"}


@pytest.mark.timeout(300)
def test_django_celery_results(make_stack: MakeStack, server: FramelaneServer, database: str) -> None:
    """celery_facts rows 2 and 13: dcr overwrites any state, and wipes what is stored without a request."""
    stack = make_stack("rabbitmq+redis", server, celery=DCR)
    django(stack, database, "migrate")
    with stack.worker("-c", "2", **site(database)):
        assert django(stack, database, "run") == {
            "chord": 8,
            "chain": "task",
            "error": ["JobFailed", "internal"],
            "waiting": ["PROGRESS", "framelane.render"],
            "revoked": ["REVOKED", "framelane.render"],
        }


@pytest.mark.celery55
@pytest.mark.timeout(300)
def test_a_wake_up_that_comes_four_times_at_once(make_stack: MakeStack, server: FramelaneServer, database: str) -> None:
    """celery_facts row 1: dcr counted a chord's member twice, and its body never ran; the tail ran twice everywhere."""
    stack = make_stack("rabbitmq+redis", server, celery=DCR)
    django(stack, database, "migrate")
    with stack.worker("-c", "2", name="w1", **site(database)):
        body, members = django(stack, database, "chord")
        jobs = [stack.until(member, "job").job_id for member in members]
    elsewhere = f"{stack.queue}-elsewhere"
    with stack.worker("-c", "1", "-Q", elsewhere, name="watches", **site(database)):  # takes no task of ours
        for job in jobs:
            server.finish(job)
        woken = [stack.until(member, "start") for member in members]
    for record in woken:
        for _ in range(3):
            stack.app.send_task(
                record.task, [composition()], task_id=record.id, headers={"framelane": {"step": record.step}},
                **options_of(record),
            )  # fmt: skip
    with stack.worker("-c", "4", name="w2", **site(database)):
        stack.until(members[0], "done")
        stack.until(members[1], "done")
        wait_for(lambda: django(stack, database, "state", body) == "SUCCESS")
        wait_for(lambda: len([note for note in stack.journal("body") if note["id"] == body]) == 1)
    assert [len(jobs_of(server, member)) for member in members] == [1, 1]
    assert len([note for note in stack.journal("body") if note["id"] == body]) == 1
    for queue in (elsewhere, f"{elsewhere}.retry"):
        delete_queue(stack, queue)


def options_of(record: Any) -> dict[str, Any]:
    options = dict(json.loads(record.call)["options"])
    options.pop("headers", None)
    return options


def delete_queue(stack: Stack, name: str) -> None:
    with stack.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(name)


# --- rpc ---------------------------------------------------------------------------------------------------------


def test_rpc_for_chains_and_get(make_stack: MakeStack, server: FramelaneServer) -> None:
    """celery_facts, "Backends": chains and get(on_message) work (chords are refused at dispatch, by Celery)."""
    stack = make_stack("rabbitmq+redis", server, celery={"result_backend": "rpc://"})
    with stack.worker("-c", "2"):
        states: list[str] = []
        result = render(stack, seconds="1").apply_async()
        job = result.get(timeout=60, on_message=lambda message: states.append(message["status"]))
        assert jobs_of(server, result.id) == [job["id"]]
        assert states[-1] == "SUCCESS"
        assert "PROGRESS" in states
        assert chain(render(stack), stack.sig("montage")).apply_async().get(timeout=60)["kind"] == "render"
        with pytest.raises(JobFailed):
            render(stack, outcome="fail").apply_async().get(timeout=60)
        with pytest.raises(NotImplementedError):
            chord([render(stack)] * 2, stack.sig("ids")).apply_async()
