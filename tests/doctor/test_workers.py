"""Real workers: a deployment that is well, and one whose worker was started with what it should not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from framelane_celery.testing import FramelaneServer
from tests.doctor.conftest import KEY, Told
from tests.worker.stacks import ROOT, Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.timeout(120)]

Tell = Callable[..., Told]


@contextmanager
def deployed(name: str, folder: Path, api: FramelaneServer, **settings: Any) -> Iterator[Stack]:
    stack = Stack(name, folder, api.base_url, **settings)
    try:
        yield stack
    finally:
        stack.close()


def command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As an operator calls it."""
    line = [sys.executable, "-m", "celery", "-A", "tests.worker.project", "framelane", *arguments]
    env = {**os.environ, **stack.environment()}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_deployment_that_is_well(tmp_path: Path, api: FramelaneServer) -> None:
    """On RabbitMQ, which counts consumers; and the worker is seen by its broker."""
    results = {"result_backend": f"db+sqlite:///{tmp_path}/results.db"}
    with deployed("rabbitmq", tmp_path, api, celery=results, framelane={"api_key": KEY}) as stack:
        with stack.worker() as worker:
            wait_for(lambda: command(stack, "health").returncode == 0, 20, "healthy")
            answer = command(stack, "doctor", "--json")
            told = Told(answer.returncode, answer.stdout)
            assert told.exit_code == 0, told.text
            for check in ("workers", "watcher", "task queues", "retry queues", "dead-letter queue", "api key", "acks"):
                assert [level for level, _ in told.findings(check)] == ["ok"], told.findings(check)
            assert told.findings("watcher") == [("ok", f"{worker.node} leads")]
            assert KEY not in answer.stdout + answer.stderr
            worker.stop()  # hands its lead over, to nobody
        health = json.loads(command(stack, "health", "--json").stdout)
        assert [entry["check"] for entry in health["checks"] if not entry["is_healthy"]] == ["watcher"]


def test_a_worker_with_overridden_flags_and_no_watcher(tmp_path: Path, api: FramelaneServer) -> None:
    """On files, where the workers tell what they serve. The worker does not know one of the tasks."""
    celery = {"task_annotations": {"framelane.render": {"reject_on_worker_lost": False}}}
    framelane = {"api_key": KEY, "watcher": False}
    with deployed("filesystem", tmp_path, api, celery=celery, framelane=framelane) as stack:
        stack.room.read("x")  # makes the tables
        with stack.worker("-c", "1"):
            began = time.monotonic()
            answer = command(stack, "doctor", "--json")
            assert time.monotonic() - began < 30
            told = Told(answer.returncode, answer.stdout)
            assert told.exit_code == 1
            assert ("problem", "reject_on_worker_lost is off on framelane.render") in told.findings("acks")
            what = f"nobody leads in namespace {stack.namespace}, and watcher is off"
            assert told.findings("watcher") == [("problem", what)]
            assert [level for level, _ in told.findings("workers")] == ["ok"]
            assert [level for level, _ in told.findings("task queues")] == ["ok"]
            assert KEY not in answer.stdout + answer.stderr
