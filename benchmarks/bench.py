"""What the measurements share: a worker on Redis under names of its own, and a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import redis

from scripts.check_servers import SERVERS

REDIS = next(server.url for server in SERVERS if server.name == "Redis").rsplit("/", 1)[0]


@contextmanager
def project(
    base_url: str, *, concurrency: int, workers: int = 1, instant_http: bool = False, **framelane: Any
) -> Iterator[Any]:
    """The module `benchmarks.project`, configured here, and workers of it that are ready."""
    unique = uuid4().hex[:8]
    queue = f"fl-bench-{unique}"
    os.environ["BENCH_CELERY"] = json.dumps(
        {
            "broker_url": f"{REDIS}/10",
            "result_backend": f"{REDIS}/11",
            "task_default_queue": queue,
            "result_expires": 600,
            "broker_connection_retry_on_startup": True,
        }
    )
    os.environ["BENCH_FRAMELANE"] = json.dumps(
        {
            "api_key": "fl_test_key",
            "base_url": base_url,
            "namespace": f"bench-{unique}",
            "room_url": f"{REDIS}/12",
            "renders_per_minute": 1_000_000,
            **framelane,
        }
    )
    os.environ["BENCH_INSTANT_HTTP"] = "1" if instant_http else ""
    from benchmarks import project as module

    module.app.conf.update(json.loads(os.environ["BENCH_CELERY"]))
    module.app.conf.framelane = json.loads(os.environ["BENCH_FRAMELANE"])
    command = [
        sys.executable, "-m", "celery", "-A", "benchmarks.project", "worker",
        "-c", str(concurrency), "-l", "WARNING", "-Q", queue, "-n",
    ]  # fmt: skip
    names = [f"bench-{unique}-{number}@here" for number in range(workers)]
    started = [
        subprocess.Popen([*command, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in names
    ]
    try:
        wait_until(lambda: len(module.app.control.ping(names, timeout=0.5)) == workers)
        module.nothing.apply_async().get(timeout=30)
        yield module
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait(60)
        _clean(unique)


def _clean(unique: str) -> None:
    for db in (10, 12):
        with redis.Redis.from_url(f"{REDIS}/{db}") as client:
            for key in client.scan_iter(f"*{unique}*", count=1000):
                client.delete(key)


def wait_until(condition: Any, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the benchmark did not come to its end")
        time.sleep(0.01)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under a head, as wide as they need."""
    texts = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    print(f"\n{title}")
    for row in texts:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
