"""Real Flower beside a real worker, for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.worker.stacks import ROOT, Stack, wait_for


@dataclass
class Flower:
    url: str
    stack: Stack
    node: str

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def tasks(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/api/tasks")))

    def task(self, task_id: str) -> dict[str, Any]:
        """Empty while Flower has not heard of it."""
        try:
            return dict(json.loads(self.get(f"/api/task/info/{task_id}")))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return {}

    def until(self, task_id: str, state: str) -> dict[str, Any]:
        return wait_for(lambda: (told := self.task(task_id)).get("state") == state and told, what=f"{task_id}: {state}")

    def answers(self) -> bool:
        try:
            return bool(self.get("/workers"))
        except OSError:
            return False

    def has_heard(self) -> bool:
        """Whether it hears events: it does not before its subscription."""
        result = self.stack.sig("ping").apply_async()
        result.get(timeout=30)
        return bool(self.task(result.id))


@contextmanager
def running_flower(stack: Stack, node: str) -> Iterator[Flower]:
    """A process of its own, whose API may be read without a password. ``flowerconfig.py`` is in the stack's folder."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder = stack.folder
    command = [sys.executable, "-m", "celery", "-A", "tests.worker.project", "flower", "--address=127.0.0.1"]
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--port={port}", f"--conf={folder}/flowerconfig.py", f"--db={folder}/flower"],
            cwd=ROOT, env={**os.environ, **stack.environment(), "FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        flower = Flower(f"http://127.0.0.1:{port}", stack, node)
        wait_for(flower.answers, what="Flower's first answer")
        wait_for(flower.has_heard, every_s=0.2, what="Flower hears events")
        yield flower
    finally:
        process.kill()
        process.wait()
