"""docs/guides/from_self_retry.md: the day of the change, with a task of the old kind in flight."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from framelane_celery.testing import FramelaneServer
from tests.demo.processes import process, said
from tests.docs_followed.pages import DOCS, ROOT, blocks_of
from tests.room.test_servers import PrivateRedis
from tests.worker.stacks import wait_for

PAGE = DOCS / "guides" / "from_self_retry.md"
BEFORE, CALLED, ADDED, CALLED_NOW = [block.text for block in blocks_of(PAGE) if block.language == "python"]
QUICKLY = BEFORE.replace("countdown=10", "countdown=1")

PROJECT = """
from celery import Celery
app = Celery("shop", broker="{url}", backend="{url}", include=["tasks"])
app.conf.framelane = {{"namespace": "shop"}}
"""
CALL = """
import shop
from celery import chain
from tasks import *
composition = {{"elements": [{{"type": "text", "text": "hello", "duration": 2}}]}}
print({call}.id)
"""
RESULT = "import shop; print(shop.app.AsyncResult('{id}').get(timeout=60))"

pytestmark = [pytest.mark.worker, pytest.mark.timeout(400)]


class Shop:
    """A project in a folder, at some version of its tasks."""

    def __init__(self, folder: Path, url: str, server: FramelaneServer) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "FRAMELANE_API_KEY": server.api_key,
            "FRAMELANE_BASE_URL": server.base_url,
        }
        (folder / "shop.py").write_text(PROJECT.format(url=url))

    def deploy(self, tasks: str) -> None:
        (self.folder / "tasks.py").write_text(tasks)

    def run(self, *words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        return done.stdout.strip()

    def call(self, text: str) -> str:
        return self.run("-c", CALL.format(call=text.strip()))

    @contextmanager
    def worker(self, name: str) -> Iterator[None]:
        log = self.folder / f"{name}.log"
        words = ("celery", "-A", "shop", "worker", "-c", "2", "-n", f"{name}@shop", "-l", "INFO")
        with process(sys.executable, "-m", *words, cwd=self.folder, env=self.env, log=log):
            said(log, r" ready\.")
            yield


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=8) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, start_redis: Callable[..., PrivateRedis], server: FramelaneServer) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, start_redis("--save", "").url, server)


def test_the_old_ones_end_as_they_began_beside_the_new_one(shop: Shop, server: FramelaneServer) -> None:
    shop.deploy(QUICKLY)
    with shop.worker("before"):
        old = shop.call(CALLED)
        wait_for(lambda: server.ledger.counts()["jobs"] == 1, what="the old task has submitted")
        wait_for(
            lambda: "tasks.make_video" in shop.run("-m", "celery", "-A", "shop", "inspect", "scheduled"),
            what="it is listed while it waits",
        )
    shop.deploy(f"{QUICKLY}\n\n{ADDED}")
    with shop.worker("after"):
        new = shop.call(CALLED_NOW)
        for task_id in (old, new):
            assert shop.run("-c", RESULT.format(id=task_id)).startswith("sneaker: ")
    assert server.ledger.counts()["jobs"] == 2


def test_the_new_base_on_the_old_name_fails_what_is_in_flight(shop: Shop, server: FramelaneServer) -> None:
    """What the page warns of."""
    shop.deploy(QUICKLY)
    task_id = shop.call("make_video.apply_async((composition,), {'job_id': 'render_1'})")
    shop.deploy(f"from celery import shared_task\n{ADDED.replace('render_video', 'make_video')}")
    with shop.worker("after"):
        failed = shop.run("-c", f"import shop; print(type(shop.app.AsyncResult('{task_id}').get(propagate=False)))")
        assert "TypeError" in failed or "InvalidRequest" in failed, failed
    assert server.ledger.counts()["jobs"] == 0


def test_it_is_forty_lines_or_so() -> None:
    ast.parse(BEFORE)
    assert 30 < len(BEFORE.splitlines()) < 50
    assert len(ADDED.splitlines()) < 10
