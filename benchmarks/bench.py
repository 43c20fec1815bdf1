"""What the measurements share: workers under names of their own, a table, the goals, and a file of JSON for each."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import redis

from scripts.check_servers import SERVERS

REDIS = next(server.url for server in SERVERS if server.name == "Redis").rsplit("/", 1)[0]
RABBITMQ = next(server.url for server in SERVERS if server.name == "RabbitMQ")
BROKERS = {"redis": f"{REDIS}/10", "rabbitmq": RABBITMQ}
ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "bench-output"

# ---------------------------------------------------------------- workers


class Run(NamedTuple):
    """One project of `benchmarks.project`, and its workers, which are ready."""

    module: Any
    workers: list[subprocess.Popen[bytes]]
    unique: str


@contextmanager
def project(base_url: str, **options: Any) -> Iterator[Any]:
    """The module of `running`, where nothing else of it is needed."""
    with running(base_url, **options) as run:
        yield run.module


@contextmanager
def running(
    base_url: str,
    *,
    concurrency: int = 1,
    workers: int = 1,
    broker: str = "redis",
    instant_http: bool = False,
    unique: str = "",
    celery: Mapping[str, Any] | None = None,
    **framelane: Any,
) -> Iterator[Run]:
    """The module `benchmarks.project`, configured here, and workers of it that are ready.

    Once per process: Celery keeps what it has read of its configuration.
    """
    signal.signal(signal.SIGTERM, _end)
    unique = unique or uuid4().hex[:8]
    queue = f"fl-bench-{unique}"
    configure(
        {
            "broker_url": BROKERS[broker],
            "result_backend": f"{REDIS}/11",
            "task_default_queue": queue,
            "result_expires": 600,
            "broker_connection_retry_on_startup": True,
            **(celery or {}),
        },
        {
            "api_key": "fl_test_key",
            "base_url": base_url,
            "namespace": f"bench-{unique}",
            "room_url": f"{REDIS}/12",
            "renders_per_minute": 1_000_000,
            **framelane,
        },
        instant_http=instant_http,
    )
    from benchmarks import project as module

    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(workers):
            started.append(start_worker(f"bench-{unique}-{number}@here", queue, concurrency))
        wait_for_workers(module.app, [f"bench-{unique}-{number}@here" for number in range(workers)])
        if workers:
            module.nothing.apply_async().get(timeout=30)
        yield Run(module, started, unique)
    finally:
        stop_workers(started)
        clean(unique, module.app)


def _end(*_: object) -> None:
    """End, and clean up; being told twice, as `timeout` does, is no reason to stop that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def configure(celery: Mapping[str, Any], framelane: Mapping[str, Any], *, instant_http: bool = False) -> None:
    """What `benchmarks.project` reads, in this process and in those that it starts."""
    os.environ["BENCH_CELERY"] = json.dumps(celery)
    os.environ["BENCH_FRAMELANE"] = json.dumps(framelane)
    os.environ["BENCH_INSTANT_HTTP"] = "1" if instant_http else ""


def start_worker(name: str, queue: str, concurrency: int, pool: str = "prefork") -> subprocess.Popen[bytes]:
    """A worker in a process group of its own, so that what is interrupted here leaves none behind.

    It asks no other worker what was revoked, and listens to none: brokers are shared. BENCH_LOG is a file for its log.
    """
    command = [
        sys.executable, "-m", "celery", "-A", "benchmarks.project", "worker", "-c", str(concurrency), "-P", pool,
        "-l", "WARNING", "-Q", queue, "--without-mingle", "--without-gossip", "-n", name,
    ]  # fmt: skip
    with open(os.environ.get("BENCH_LOG") or os.devnull, "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def wait_for_workers(app: Any, names: Sequence[str]) -> None:
    if names:
        wait_until(lambda: len(app.control.ping(names, timeout=0.5)) == len(names))


def stop_workers(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let each end what it is doing; after a minute it is killed."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            kill(worker)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL a worker and its children."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)


def clean(unique: str, app: Any) -> None:
    """Leave the servers as they were: queues, exchanges, keys, results."""
    queue = f"fl-bench-{unique}"
    names = (queue, f"{queue}.retry", f"bench-{unique}.dead")
    if not app.conf.broker_url.startswith("redis"):
        for name in names:
            with suppress(Exception), app.connection_for_write() as connection:
                connection.default_channel.queue_delete(name)
                connection.default_channel.exchange_delete(name)
    for db in (10, 12):
        with redis.Redis.from_url(f"{REDIS}/{db}") as client:
            unlink(client, f"*{unique}*")
            if db == 10:
                for key in client.scan_iter("_kombu.binding.*", count=1000):
                    gone = [member for member in client.smembers(key) if unique.encode() in member]
                    if gone:
                        client.srem(key, *gone)


def unlink(client: redis.Redis, pattern: str) -> None:
    keys = client.scan_iter(match=pattern, count=1000)
    while batch := list(islice(keys, 1000)):
        client.unlink(*batch)


def wait_until(condition: Any, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the benchmark did not come to its end")
        time.sleep(0.01)


def alone(module: str, *arguments: str) -> Any:
    """Run a part of a measurement in a process of its own; its last line is what it has to say, as JSON."""
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


# ---------------------------------------------------------------- figures


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent do not pass."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Goal(NamedTuple):
    """What a figure has to reach: at most, or at least."""

    what: str
    got: float
    bound: float
    is_most: bool = True

    @property
    def is_reached(self) -> bool:
        return self.got <= self.bound if self.is_most else self.got >= self.bound

    def __str__(self) -> str:
        word = "<=" if self.is_most else ">="
        return f"{self.what}: {self.got:.4g} {word} {self.bound:g}: {'reached' if self.is_reached else 'NOT REACHED'}"


def report(
    name: str,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    goals: Sequence[Goal] = (),
    facts: Mapping[str, Any] | None = None,
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Print a table, its settings and its goals, and write them to ``bench-output/<name>.json``.

    ``figures``: what was measured, before it was rounded for the table; for the file only.
    """
    table(title, head, rows)
    for fact, value in (facts or {}).items():
        print(f"  {fact}: {value}")
    for goal in goals:
        print(f"  goal: {goal}")
    OUTPUT.mkdir(exist_ok=True)
    told = {
        "name": name,
        "title": title,
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "facts": dict(facts or {}),
        "rows": [dict(zip(head, row, strict=True)) for row in rows],
        "figures": dict(figures or {}),
        "goals": [{**goal._asdict(), "is_reached": goal.is_reached} for goal in goals],
    }
    (OUTPUT / f"{name}.json").write_text(json.dumps(told, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """What the figures depend on. ``load`` is that of the last minute: much more than our own means other work."""
    names = ("celery", "kombu", "redis", "pydantic")
    return {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under a head, as wide as they need."""
    texts = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    print(f"\n{title}")
    for row in texts:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
