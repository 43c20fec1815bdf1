"""Celery forgets what it has half read of a pool process when the broker's connection is lost in between.

Shown with plain Celery, and a message so long that the cut surely falls into its reading. That is why what our tasks
tell is kept shorter than what can be read in pieces (`framelane_celery.watching.brief`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from celery import Celery

from tests.faults.proxy import Proxy
from tests.worker.stacks import AMQP, ROOT, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

LETTERS = 200_000_000
PAUSE_S = 30.0
"""How long a task may take that a worker has received, and that does nothing."""


@contextmanager
def running(proxy: Proxy, queue: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = ["-m", "celery", "-A", "tests.faults.half_read", "worker", "-c", "1", "--without-mingle", "-l", "info"]
    url = urlsplit(AMQP)._replace(netloc=f"{urlsplit(AMQP).netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
    environ = {**os.environ, "HALF_READ_BROKER": url, "HALF_READ_QUEUE": queue}
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environ, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield worker
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def held_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def child_of(pid: int) -> int:
    """The one process of a worker's pool."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_what_celery_has_half_read_is_lost_with_the_connection(tmp_path: Path) -> None:
    """If this fails, Celery has mended it: then `brief` only saves time."""
    there = urlsplit(AMQP)
    queue = f"fl-test-{uuid4().hex[:10]}"
    caller = Celery(broker=AMQP, set_as_current=False)
    caller.conf.task_default_queue = queue

    def call(name: str, size: int) -> Path:
        caller.send_task("tests.faults.half_read.end", (str(tmp_path / name), size))
        return tmp_path / name

    try:
        with (
            Proxy(there.hostname or "127.0.0.1", there.port or 5672) as proxy,
            running(proxy, queue, tmp_path / "log") as worker,
        ):
            wait_for(call("first", 1).exists, what="the first task")
            before = held_bytes(worker.pid)
            wait_for(call("long", LETTERS).exists)
            wait_for(lambda: held_bytes(worker.pid) > before + LETTERS / 10, what="reading", every_s=0.001)
            child = child_of(worker.pid)
            os.kill(child, signal.SIGSTOP)  # so that on a busy machine too the cut falls into the reading
            proxy.cut()
            proxy.restore()
            after = call("after", 1)
            received = (tmp_path / "log").read_text
            wait_for(lambda: received().count("received") >= 3, what="the task after the cut")
            os.kill(child, signal.SIGCONT)
            stop_at = time.monotonic() + PAUSE_S
            while time.monotonic() < stop_at:
                assert not after.exists()
                time.sleep(0.5)
    finally:
        with caller.connection() as connection:
            connection.default_channel.queue_delete(queue)
        caller.close()
