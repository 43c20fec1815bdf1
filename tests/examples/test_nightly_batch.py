"""examples/pipelines/nightly_batch, killed in the middle and run again: each video is paid once, within the budget."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from framelane_celery.testing import FramelaneServer
from tests.examples.project import TRANSPORTS, commands, project
from tests.worker.stacks import wait_for

pytestmark = [pytest.mark.worker, pytest.mark.timeout(400)]

DIES = """
import os, runpy, signal, sys
from celery import signals

called = []

@signals.before_task_publish.connect(weak=False)
def die(**_):
    called.append(1)
    if len(called) == 200:
        os.kill(os.getpid(), signal.SIGKILL)

sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""The README's command, killed at its 200th call: between that task's record and its message."""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_batch_that_is_killed_and_rerun_pays_for_each_video_once(transport: str, tmp_path: Path) -> None:
    [run] = commands("nightly_batch")
    count = int(run[-1])
    budget = {"submissions_per_day": count}  # were one paid twice, another one would wait until tomorrow
    options = {"lease_s": 15, "resend_after_s": 15, "spend_guard": budget}
    with (
        FramelaneServer(job_seconds=0.5, renders_per_minute=None) as server,
        project(transport, tmp_path, server, **options) as made,
    ):
        day = made.name  # results have no namespace, and other tests' results of the same ids are there
        run = [*run, day]
        with made.worker("killed") as worker:
            died = subprocess.run(made.python("-c", DIES, *run[1:]), cwd=made.folder, env=made.env, timeout=100)
            assert died.returncode == -signal.SIGKILL
            wait_for(lambda: server.ledger.counts()["jobs"] >= 100)
            os.killpg(worker.pid, signal.SIGKILL)
        assert 100 <= server.ledger.counts()["jobs"] <= 200
        with made.worker("again"):
            assert made.run(*run, timeout_s=200).splitlines()[-1] == f"{count} SUCCESS"
            paid = {task_id: len(jobs) for task_id, jobs in server.ledger.jobs_per_task().items()}
            assert paid == {f"nightly-{day}-sku-{number}": 1 for number in range(count)}
            posts = len(server.ledger.posts())
            assert made.run(*run).splitlines()[-1] == f"{count} SUCCESS"
            assert len(server.ledger.posts()) == posts
