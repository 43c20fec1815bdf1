"""100,000 tasks that wait for their jobs: what the worker holds, and how soon they are looked at once it is killed.

    python -m benchmarks.memory [--records N] [--stores redis,postgresql,sqlite,recipe]

The records are written straight into the room, their jobs straight into the local server, where they go on for ever.
One worker leads and a second one stands by; when the first has seen all jobs once, it is killed (SIGKILL), and with it
its lead, which ends ten seconds after it was renewed last.

*recipe*: as many tasks that wait for their ``countdown``, on RabbitMQ, where they are messages that the worker holds.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import Any
from uuid import uuid4

from benchmarks import room as rooms
from benchmarks.bench import Goal, alone, kill, report, running, start_worker, stop_workers, wait_for_workers
from framelane_celery.records import Record
from framelane_celery.testing import Entry, FramelaneServer, Never
from framelane_celery.testing.jobs import Submission
from framelane_celery.watching.watcher import LEAD_S

READS_PER_MINUTE = 6000
STORES = (*rooms.URLS, "recipe")
GIVE_UP_S = 180.0
RSS_MOST_MB, FIRST_MOST_S, ALL_MOST_S = 300.0, 10.0, 30.0
HEAD = (
    "store",
    "RSS of the leader, MB",
    "of the next one, MB",
    "its peak, MB",
    "first look, s",
    "all looks, s",
    "seen",
)


class Coverage:
    """Which of the jobs 1 to ``count`` were shown, as the ledger tells: all of them go on, the list's newest first."""

    def __init__(self, count: int, number_of: Mapping[str, int]) -> None:
        self._seen, self._number_of = bytearray(count + 1), number_of
        self.left = self.count = count
        self.first_at: float | None = None
        self.all_at: float | None = None

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            for number in self._shown(entry):
                if not self._seen[number]:
                    self._seen[number] = 1
                    self.left -= 1
                    self.first_at = entry.at if self.first_at is None else self.first_at
                    self.all_at = None if self.left else entry.at

    def _shown(self, entry: Entry) -> Sequence[int]:
        if entry.method != "GET" or entry.status != 200:
            return ()
        if entry.path == "/v1/renders":
            if entry.query.get("status", "processing") != "processing":
                return ()
            cursor = entry.query.get("cursor")
            below = int(base64.urlsafe_b64decode(cursor)) if cursor else self.count + 1
            return range(max(1, below - int(entry.query.get("limit", "50"))), below)
        number = self._number_of.get(entry.path.rpartition("/")[2])
        return () if number is None else (number,)


def megabytes(pid: int) -> dict[str, float]:
    """What a process holds now, and held at most."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def make_records(ids: Sequence[str]) -> list[Record]:
    """Records that wait for these jobs, all due."""
    now = time.time()
    return [
        replace(record, job_id=id, job={**(record.job or {}), "id": id}, due_at=now - 60, accepted_at=now - 60)
        for record, id in zip(rooms.make_records(len(ids)), ids, strict=True)
    ]


def lead_ends_at(url: str, namespace: str) -> float:
    """When the lead of whoever has it ends, by the room's clock."""
    if url.startswith("redis"):
        from redis import Redis

        with Redis.from_url(url) as client:
            return float(client.hget(f"{{framelane:{namespace}}}:lead", "until") or 0)
    import sqlalchemy as sa

    from framelane_celery.room.database import room as table

    engine = sa.create_engine(url)
    with engine.connect() as connection:
        lead = sa.select(table.c.expires_at).where(table.c.namespace == namespace, table.c.name == "lead")
        ends_at = float(connection.execute(lead).scalar() or 0)
    engine.dispose()
    return ends_at


def follow(server: FramelaneServer, coverage: Coverage, since: float, until: Callable[[], bool]) -> None:
    """Read the ledger from an instant on, until something is so or it is given up."""
    read, stop_at = 0, time.monotonic() + GIVE_UP_S
    while time.monotonic() < stop_at and not until():
        entries = server.ledger.entries()
        coverage.add(entry for entry in entries[read:] if entry.at >= since)
        read = len(entries)
        time.sleep(0.2)


def measure(store: str, count: int) -> dict[str, Any]:
    """One room, two workers, one of them killed."""
    unique = uuid4().hex[:8]
    namespace = f"bench-{unique}"
    with tempfile.TemporaryDirectory() as folder:
        url = rooms.URLS[store].format(folder=folder)
        with (
            rooms.clean_after(url, namespace),
            FramelaneServer(duration=lambda submission: 0.0, outcome=lambda submission: Never()) as server,
            running(server.base_url, workers=0, unique=unique, room_url=url, reads_per_minute=READS_PER_MINUTE) as run,
        ):
            submission = Submission("render", None, run.module.COMPOSITION, None, 0)
            for _ in range(count):
                server._workspace.submit(submission, "/v1/renders", b"")
            number_of = {job.id: job.number for job in server._workspace.jobs()}
            rooms.put(url, namespace, make_records(list(number_of)))
            workers: list[Popen[bytes]] = []
            try:
                return _kill_and_follow(server, run, url, Coverage(count, number_of), workers)
            finally:
                stop_workers(workers)


def _start(run: Any, workers: list[Popen[bytes]], name: str) -> Popen[bytes]:
    node = f"bench-{run.unique}-{name}@here"
    workers.append(start_worker(node, f"fl-bench-{run.unique}", 1))
    wait_for_workers(run.module.app, [node])
    return workers[-1]


def _kill_and_follow(
    server: FramelaneServer, run: Any, url: str, coverage: Coverage, workers: list[Popen[bytes]]
) -> dict[str, Any]:
    leader = _start(run, workers, "leader")
    standby = _start(run, workers, "standby")
    before = coverage
    follow(server, before, 0.0, lambda: not before.left)
    told = {"leader": megabytes(leader.pid), "seen_before": before.count - before.left}
    kill(leader)
    ends_at = lead_ends_at(url, f"bench-{run.unique}")
    after = Coverage(before.count, before._number_of)
    # The standby cannot look before; what is earlier is the dead leader's last.
    follow(server, after, ends_at - 0.5, lambda: not after.left)
    return {
        **told,
        "next": megabytes(standby.pid),
        "first_s": None if after.first_at is None else after.first_at - ends_at,
        "all_s": None if after.all_at is None else after.all_at - ends_at,
        "seen": after.count - after.left,
    }


def measure_recipe(count: int) -> dict[str, Any]:
    """As many messages that wait for their countdown, held by one worker, then by another."""
    # With Celery's usual prefetch a worker on a busy machine had taken in 1,053 of 2,000 after 280 s.
    favour = {"worker_prefetch_multiplier": 0}
    with running("http://127.0.0.1:9", broker="rabbitmq", workers=0, celery=favour) as run:
        queue = f"fl-bench-{run.unique}"

        def ready() -> int:
            with run.module.app.connection_for_write() as connection:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)

        def wait(condition: Callable[[], bool]) -> float:
            stop_at = time.monotonic() + 2 * GIVE_UP_S
            while not condition() and time.monotonic() < stop_at:
                time.sleep(0.1)
            return time.monotonic()

        workers: list[Popen[bytes]] = []
        try:
            holder = _start(run, workers, "holder")
            for number in range(count):
                run.module.recipe.apply_async((f"render_{number}",), countdown=36_000)
            wait(lambda: ready() == 0)
            told = {"leader": megabytes(holder.pid), "seen_before": count - ready()}
            other = _start(run, workers, "other")
            killed_at = time.monotonic()
            kill(holder)
            wait(lambda: ready() > 0)
            all_s = wait(lambda: ready() == 0) - killed_at
            left = ready()
            return {**told, "next": megabytes(other.pid), "first_s": None, "all_s": all_s, "seen": count - left}
        finally:
            for worker in workers:
                kill(worker)  # a warm shutdown would give the messages back one by one


def row(store: str, told: Mapping[str, Any], count: int) -> list[str]:
    times = ("never" if told[name] is None else f"{told[name]:.1f}" for name in ("first_s", "all_s"))
    held = (told["leader"]["VmRSS"], told["next"]["VmRSS"], told["next"]["VmHWM"])
    return [store, *(f"{one:.0f}" for one in held), *times, f"{told['seen'] / count:.0%}"]


def goals(store: str, told: Mapping[str, Any]) -> list[Goal]:
    never = float(10**6)
    return [
        Goal(f"{store}, RSS, MB", max(told["leader"]["VmRSS"], told["next"]["VmRSS"]), RSS_MOST_MB),
        Goal(f"{store}, first look, s", never if told["first_s"] is None else told["first_s"], FIRST_MOST_S),
        Goal(f"{store}, all looks, s", never if told["all_s"] is None else told["all_s"], ALL_MOST_S),
    ]


def main(stores: Sequence[str], count: int) -> None:
    told = {store: alone("benchmarks.memory", "--records", str(count), "--one", store) for store in stores}
    report(
        "memory",
        f"{count:,} waiting jobs; the leading worker killed, seconds from the end of its lead",
        HEAD,
        [row(store, one, count) for store, one in told.items()],
        goals=[goal for store, one in told.items() if store != "recipe" for goal in goals(store, one)],
        facts={
            "settings": f"reads_per_minute={READS_PER_MINUTE}; a lead lasts {LEAD_S:.0f} s",
            "looks": "a job is looked at when a page of the list, or a read of its own, shows it",
            "recipe": "self.retry(countdown) on RabbitMQ, worker_prefetch_multiplier=0; seconds from the kill until"
            " another worker holds all; on Redis they would come back after visibility_timeout, an hour",
        },
        figures=told,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--one", metavar="STORE", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one = measure_recipe(chosen.records) if chosen.one == "recipe" else measure(chosen.one, chosen.records)
        print(json.dumps(one))
    else:
        main(chosen.stores.split(","), chosen.records)
