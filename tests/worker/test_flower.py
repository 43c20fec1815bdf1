"""Flower beside a real worker: what its API, and its pages, say of tasks that wait, end, fail and are tried again."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from framelane_celery.flower import format_task
from framelane_celery.testing import FramelaneServer
from tests.worker.flowers import Flower, running_flower
from tests.worker.project import composition
from tests.worker.stacks import ROOT, Stack

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def flower(request: pytest.FixtureRequest, server: FramelaneServer, tmp_path_factory: Any) -> Iterator[Flower]:
    folder = tmp_path_factory.mktemp(request.param)
    page = (ROOT / "docs" / "flower.md").read_text()
    (folder / "flowerconfig.py").write_text(page.split("```python\n")[1].split("```")[0])
    routes = [
        {"code": code, "action": "retry", "backoff_s": 2, "backoff_max_s": 2} for code in ("internal", "invalid_source")
    ]
    stack = Stack(request.param, folder, server.base_url, framelane={"routes": routes})
    with stack.worker("-c", "2", "-E") as worker, running_flower(stack, worker.node) as flower:
        yield flower
    stack.close()


def test_progress_while_it_waits_then_success_with_the_result(flower: Flower, server: FramelaneServer) -> None:
    result = flower.stack.sig("framelane.render", composition(seconds="3")).apply_async()
    waiting = flower.until(result.id, "PROGRESS")
    assert waiting["succeeded"] is None
    assert "elements" in waiting["args"]  # which ones there are; never what is in them
    assert "hello" not in waiting["args"]
    job = result.get(timeout=60)
    told = flower.until(result.id, "SUCCESS")
    assert job["id"] in told["result"]
    assert told["worker"] == flower.node
    assert not re.search(r"https?://", json.dumps(told))


def test_progress_before_the_job_has_any_news(flower: Flower) -> None:
    """The watcher tells of news only; the run itself tells that the task waits."""
    result = flower.stack.sig("framelane.render", composition(seconds="600")).apply_async()
    flower.until(result.id, "PROGRESS")
    assert flower.stack.until(result.id, "job").job["status"] == "queued"
    flower.stack.app.control.revoke(result.id)
    flower.until(result.id, "REVOKED")


def test_revoked_after_it_was_in_progress(flower: Flower) -> None:
    result = flower.stack.sig("framelane.render", composition(outcome="never")).apply_async()
    flower.until(result.id, "PROGRESS")
    flower.stack.app.control.revoke(result.id)
    assert flower.until(result.id, "REVOKED")["revoked"]
    flower.stack.until(result.id, "done")
    assert flower.task(result.id)["state"] == "REVOKED"


def test_a_failure_shows_its_code(flower: Flower) -> None:
    result = flower.stack.sig("framelane.render", composition(outcome="fail", code="codec_unsupported")).apply_async()
    assert "JobFailed" in flower.until(result.id, "FAILURE")["exception"]


def test_an_attempt_that_is_tried_again_can_be_seen(flower: Flower) -> None:
    result = flower.stack.sig("framelane.render", composition(fails="1", code="internal")).apply_async()
    result.get(timeout=60)
    told = flower.until(result.id, "SUCCESS")  # it was RETRY for as long as its backoff, which may be no time at all
    assert told["retried"] < told["succeeded"]
    assert told["exception"].startswith("internal: ")


def test_a_refusal_that_is_tried_again_can_be_seen(flower: Flower) -> None:
    """A POST that is refused fails in the run, not in the watcher."""
    result = flower.stack.sig("refused_again").apply_async()
    result.get(timeout=60)
    told = flower.until(result.id, "SUCCESS")
    assert told["retried"] < told["succeeded"]
    assert told["exception"].endswith("invalid_source")


def test_there_are_no_workers_but_the_real_one(flower: Flower) -> None:
    result = flower.stack.sig("framelane.render", composition(seconds="1")).apply_async()
    flower.until(result.id, "PROGRESS")
    result.get(timeout=60)
    flower.until(result.id, "SUCCESS")
    workers = {task["worker"] for task in flower.tasks().values() if "worker" in task}
    workers |= set(json.loads(flower.get("/api/workers")))
    assert flower.node in workers
    assert not [name for name in workers if name.startswith("gen") or name.endswith(f"@{socket.gethostname()}")]
    assert [name for name in workers if flower.stack.queue in name] == [flower.node]


def test_a_task_in_the_tail_shows_no_signed_url(flower: Flower) -> None:
    """A plain one gets the finished job, URL and all, as its argument. (What it returns, Celery shows.)"""
    result = chain(flower.stack.sig("framelane.render", composition()), flower.stack.sig("note")).apply_async()
    result.get(timeout=60)
    raw = flower.until(result.id, "SUCCESS")
    assert raw["args"].startswith("(<job render_")
    assert "signature=" not in raw["args"]


def test_pages_show_no_key_of_a_signed_url(flower: Flower) -> None:
    """A plain task that is called with one: Celery's event shows it."""
    link = "https://cdn.example/storage/render_1/output.mp4?signature=5ec7e7"
    result = flower.stack.sig("note", {"id": "render_1", "url": link}).apply_async()
    result.get(timeout=60)
    raw = flower.until(result.id, "SUCCESS")
    page = flower.get(f"/task/{result.id}")
    assert "/storage/render_1" in page
    assert "signature=" not in page
    assert "signature=" in json.dumps(raw)  # so there was something to hide: Flower's API asks no format_task


def test_format_task_keeps_the_rest() -> None:
    url = "https://cdn.example/a.mp4?X-Signature=s3cr3t&x=1"
    texts = {
        "args": f"({{'url': '{url}'}}, 2)",
        "kwargs": "{}",
        "traceback": f"line 1\n  {url}\nline 3",
        "result": None,
    }
    task = format_task(type("Task", (), {"uuid": "t", **texts})())
    assert task.args == "({'url': 'https://cdn.example/a.mp4?…'}, 2)"
    assert (task.kwargs, task.result, task.uuid) == ("{}", None, "t")
    assert task.traceback.split("\n")[0::2] == ["line 1", "line 3"]
    assert "s3cr3t" not in task.traceback


def test_flower_itself_is_not_imported() -> None:
    code = "import sys, framelane_celery.flower; sys.exit('flower' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(ROOT), timeout=60).returncode == 0
