"""One run through everything that tells something, and all that was told: a text for each surface."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis
from celery import chain, chord, group
from celery.bin.base import CLIContext
from click.testing import CliRunner

from framelane_celery import FramelaneError, webhooks
from framelane_celery.cli.commands import framelane as commands
from framelane_celery.metrics import text as metrics_text
from framelane_celery.testing import FramelaneServer
from framelane_celery.testing.webhooks import event_body, signature
from tests.security.project import TAP, secret_body
from tests.worker.flowers import Flower, running_flower
from tests.worker.stacks import REDIS, Stack, Worker, make_server, wait_for

API_KEY = "fl_live_hushkey0123456789"
WEBHOOK_SECRET = "whsec_hushhook0123456789"
QUERY = "X-Hush-Signature=hushquery0123456789"
SOURCE = f"https://media.example.com/raw.mp4?{QUERY}"
WORDS = "hushwords: the film that nobody may know of"


@contextmanager
def full_run(name: str, folder: Path) -> Iterator[tuple[Stack, dict[str, str], dict[str, str]]]:
    with make_server(api_keys=(API_KEY,), webhook_secret=WEBHOOK_SECRET) as server:
        stack = Stack(
            name,
            folder,
            server.base_url,
            celery={"task_send_sent_event": True, "worker_hijack_root_logger": True},
            framelane={
                "api_key": API_KEY,
                "webhook_secrets": [WEBHOOK_SECRET],
                "routes": [
                    {"code": "internal", "action": "retry", "backoff_s": 0.1, "max_attempts": 3},
                    {"code": "kept", "action": "dead_letter", "keep_waiting": True},
                ],
            },
        )
        tap = folder / "tap"
        (folder / "flowerconfig.py").write_text("from framelane_celery.flower import format_task\n")  # docs/flower.md
        try:
            with mock.patch.dict("os.environ", {TAP: str(tap), **stack.environment()}), _log_of_this_process() as lines:
                told: dict[str, str] = {}
                with (
                    stack.worker("-c", "2", "-E", "-l", "DEBUG", "--include", "tests.security.project") as worker,
                    running_flower(stack, worker.node) as flower,
                ):
                    ids = _run(stack, server, worker, told)
                    _ask(stack, ids, told)
                    told["Flower's API"], told["Flower's pages"] = _seen_in(flower)
                    told["metrics"] = metrics_text(stack.app)
                told["caller's log"] = "\n".join(lines)
                told["worker's log"] = worker.log
                _read(stack, tap, told)
                yield stack, told, ids
        finally:
            stack.close()


def body(**metadata: str) -> dict[str, Any]:
    return secret_body(SOURCE, WORDS, **metadata)


def _run(stack: Stack, server: FramelaneServer, worker: Worker, told: dict[str, str]) -> dict[str, str]:
    """Everything that can become of a task."""

    def render(**metadata: str) -> Any:
        return stack.sig("framelane.render", body(**metadata))

    def sig(name: str, *args: Any) -> Any:
        return stack.sig(f"tests.security.project.{name}", *args)

    with stack.events() as events:
        fetched = chain(
            render(), stack.sig("framelane.transcribe"), sig("fetch", "fetched"), sig("plain")
        ).apply_async()
        chorded = chord([render(), sig("again", body())], sig("plain")).apply_async()
        linked = render()
        linked.link(sig("plain"))
        linked = linked.apply_async()
        nested = chain(render(), group(sig("plain"), chain(sig("plain"), sig("plain")))).apply_async()
        ours_last = chord([render(), render()], stack.sig("montage")).apply_async()
        retried = render(fails="1").apply_async()
        tailed = chain(sig("wrongly"), stack.sig("framelane.render")).apply_async()
        wrong = sig("not_a_request", body()).apply_async()
        ended = {"never": None, "dead": "source_unreachable", "kept": "kept", "revoked": None, "hinted": None}
        jobs = {name: render(outcome="never") for name in ended}
        jobs["dead"].link_error(stack.sig("told"))
        waiting = {name: call.apply_async() for name, call in jobs.items()}
        job_of = {name: str(stack.until(result.id, "job").job_id) for name, result in waiting.items()}
        for name, code in ended.items():
            if code:
                server.fail(job_of[name], code, f"Could not read {SOURCE}: 403")
        stack.app.control.revoke(waiting["revoked"].id)
        _hint(stack, server, job_of["hinted"])
        for result in (fetched, chorded, retried, linked, nested, ours_last, waiting["hinted"]):
            result.get(timeout=60)
        for result in (tailed, wrong, waiting["dead"]):
            with suppress(FramelaneError, Exception):
                result.get(timeout=60)
        stack.until(waiting["dead"].id, "dead")
        stack.until(waiting["kept"].id, "release")
        stack.until(waiting["revoked"].id, "done")
        slow = sig("slow", body(), 2.0).apply_async()
        told["inspect"] = _inspected(stack, worker, slow.id)
        slow.get(timeout=60)
        told["caller's errors"] = _errors_of_the_caller(stack, waiting["never"].id)
        wait_for(lambda: any(event["type"] == "task-revoked" for event in events))
        wait_for(lambda: stack.waiting_in(f"{stack.namespace}.dead"))
        told["events"] = "\n".join(json.dumps(event, default=str) for event in events)
    ids = {name: result.id for name, result in waiting.items()}
    return {
        **ids,
        "fetched": fetched.id,
        "rendered": fetched.parent.parent.parent.id,
        "wrong": wrong.id,
        "tailed": tailed.id,
    }


def _hint(stack: Stack, server: FramelaneServer, job_id: str) -> None:
    """The job ends, and its webhook says so; then forged ones."""
    server.finish(job_id)
    event = event_body("data", "render.completed", {**server.jobs[job_id], "request": body()})
    for secret in (WEBHOOK_SECRET, "whsec_forged"):
        with suppress(webhooks.WebhookRefused):
            headers = {"Framelane-Signature": signature(event, secret, time.time())}
            webhooks.receive(headers, event, app=stack.app)


def _inspected(stack: Stack, worker: Worker, task_id: str) -> str:
    """What the remote control shows of a task of ours that runs, and of the worker's configuration."""
    inspect = stack.app.control.inspect([worker.node], timeout=5)
    wait_for(lambda: task_id in json.dumps(inspect.active(), default=str), every_s=0.1)
    asked = [inspect.active(), inspect.query_task(task_id), inspect.reserved(), inspect.conf(), inspect.stats()]
    return json.dumps(asked, default=str)


def _errors_of_the_caller(stack: Stack, taken: str) -> str:
    calls = [
        lambda: stack.sig("framelane.render", {**body(), "widht": 3}).apply_async(),
        lambda: stack.sig("framelane.render", {"elements": [{"type": WORDS, "source_url": SOURCE}]}).apply_async(),
        lambda: stack.sig("framelane.render", {"elements": [{"type": "video", "source_url": f" {SOURCE}"}]}).delay(),
        lambda: stack.sig("framelane.render", body()).apply_async(task_id=taken),
        lambda: stack.sig("framelane.transcribe", {"source_url": SOURCE, "speakers": WORDS}).delay(),
        lambda: stack.sig("framelane.render", {**body(), "metadata": {"a": {WORDS}}}).delay(),
    ]
    said = []
    for call in calls:
        with pytest.raises(FramelaneError) as caught:
            call()
        said.append(f"{caught.value!r} {caught.value}")
    return "\n".join(said)


def _ask(stack: Stack, ids: dict[str, str], told: dict[str, str]) -> None:
    """The command line, each command for the eye and as JSON."""
    asked = {
        "waiting": ("waiting",),
        "progress": ("progress", ids["never"]),
        "dead list": ("dead", "list"),
        "dead show": ("dead", "show", ids["dead"]),
        "ends": ("ends",),
        "health": ("health",),
        "doctor": ("doctor",),
        "orphans": ("orphans", "list"),
    }
    for name, words in asked.items():
        for options in ((), ("--json",)):
            context = CLIContext(app=stack.app, no_color=False, workdir=None)
            ran = CliRunner().invoke(commands, [*words, *options], obj=context)
            assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
            assert ran.exit_code != 2, ran.output
            told[f"{name} {' '.join(options)}".strip()] = ran.output


def _seen_in(flower: Flower) -> tuple[str, str]:
    """Of the tasks of this run, and of what it asked the workers."""
    tasks = {id: task for id, task in flower.tasks().items() if task.get("worker") in (None, flower.node)}
    answers = [json.dumps(tasks), *(json.dumps(flower.task(task_id)) for task_id in tasks), flower.get("/api/workers")]
    pages = [flower.get(path) for path in ("/tasks", "/workers", *(f"/task/{task_id}" for task_id in tasks))]
    return "\n".join(answers), "\n".join(pages)


def _read(stack: Stack, tap: Path, told: dict[str, str]) -> None:
    """What is in the services, once the worker has ended."""
    messages = [json.loads(line) for line in tap.read_text().splitlines()]
    told["messages' headers"] = "\n".join(message["around"] for message in messages)
    told["messages' bodies"] = "\n".join(message["body"] for message in messages)
    dead = [message for message in messages if message["key"] == f"{stack.namespace}.dead"]
    told["dead-letter messages"] = json.dumps(dead)
    with redis.Redis.from_url(f"{REDIS}/11", decode_responses=True) as client:
        keys = list(client.scan_iter("celery-task-meta-*", count=1000))
        metas = [json.loads(client.get(key) or "{}") for key in keys]
    published = {(json.loads(message["around"])[3] or {}).get("id") for message in messages} - {None}
    seen = told["events"].splitlines()  # others' workers tell theirs on the same broker
    told["events"] = "\n".join(event for event in seen if json.loads(event).get("uuid") in published)
    ours = [meta for meta in metas if meta.get("task_id") in published]
    told["results of success"] = json.dumps([meta for meta in ours if meta["status"] == "SUCCESS"])
    told["results of failure and progress"] = json.dumps([meta for meta in ours if meta["status"] != "SUCCESS"])


@contextmanager
def _log_of_this_process() -> Iterator[list[str]]:
    """Everything that is logged, at DEBUG."""
    lines: list[str] = []
    root, handler = logging.getLogger(), logging.Handler()
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
