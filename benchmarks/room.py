"""What the room costs with many records: ``python -m benchmarks.room [--records N] [--stores redis,sqlite]``.

For each store: writing the records, the first page of what is due, a whole scan, a take-over (another watcher leads and
has its first page), one move (read, transition, save), and on Redis the bytes per record.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from benchmarks.bench import report, unlink
from framelane_celery.records import Record
from framelane_celery.room import Room, move, open_room

URLS = {
    "redis": os.environ.get("FRAMELANE_TEST_REDIS_URL", "redis://127.0.0.1:6379/9"),
    "postgresql": os.environ.get("FRAMELANE_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"),
    "sqlite": "sqlite:///{folder}/room.db",
}
CALL = '{"task":"framelane.render","args":[{"elements":[' + ",".join(['{"type":"text","text":"hello"}'] * 30) + "]}]}"
WRITERS = 4
WRITTEN_MAX = 20_000  # in SQL, where writing is slow, the rest is filled in behind the room's back
PAGE = 200


def make_records(count: int) -> Iterator[Record]:
    """Records as they wait for their job: signature and bytes of about 1 kB each, a job, a due time now or later."""
    for n in range(count):
        yield Record(
            id=str(uuid4()),
            task="framelane.render",
            call=CALL,
            digest="0" * 64,
            request=CALL,
            until="job",
            due_at=1.0 + n if n % 10 else 4e9,
            created_at=float(n),
            run_id=str(uuid4()),
            run_node="celery@host",
            begun=True,
            job_id=f"render_{n}",
            job_kind="render",
            job={"id": f"render_{n}", "status": "processing", "progress": {"percent": 10, "description": "Rendering"}},
            accepted_at=1.0,
            deadline_at=4e9,
        )


def seconds(work: Callable[[], Any]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def write(room: Room, records: Iterable[Record]) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        for there in pool.map(room.create, records):
            assert there is None


def fill(url: str, namespace: str, records: list[Record]) -> None:
    import sqlalchemy as sa

    from framelane_celery.records import dump_state
    from framelane_celery.room.database import records as table

    columns = ("id", "until", "step", "version", "due_at", "lane", "created_at", "job_id", "call", "request")
    engine = sa.create_engine(url)
    for start in range(0, len(records), 2000):
        rows = [
            {name: getattr(record, name) for name in columns}
            | {"namespace": namespace, "lane_at": record.due_at, "state": dump_state(record)}
            for record in records[start : start + 2000]
        ]
        with engine.begin() as connection:
            connection.execute(table.insert(), rows)
    engine.dispose()


def put(url: str, namespace: str, records: list[Record]) -> None:
    """Have a room hold these records."""
    room = open_room(url, namespace)
    if url.startswith("redis"):
        write(room, records)
    else:
        write(room, records[:1])  # makes the tables
        fill(url, namespace, records[1:])
    room.close()


def take_over(url: str, namespace: str) -> None:
    """What a standby watcher does once the other has resigned, connections included."""
    room = open_room(url, namespace)
    assert room.lead("second", 30) is not None
    assert len(room.due("look", PAGE)[0]) == PAGE
    room.close()


def move_one(room: Room, records: list[Record]) -> float:
    def look_later(record: Record, now: float) -> Record:
        return replace(record, due_at=now + 20)

    return statistics.median(seconds(lambda id=record.id: move(room, id, look_later)) for record in records)  # type: ignore[misc]


def measure(url: str, namespace: str, count: int) -> dict[str, str]:
    room = open_room(url, namespace)
    used_before = redis_bytes(url)
    records = list(make_records(count))
    written = records if url.startswith("redis") else records[:WRITTEN_MAX]
    write_s = seconds(lambda: write(room, written))
    if len(written) < count:
        fill(url, namespace, records[len(written) :])
    used_bytes = redis_bytes(url) - used_before
    assert room.lead("first", 30) is not None
    due_s = statistics.median(seconds(lambda: room.due("look", PAGE)) for _ in range(5))
    found = 0

    def scan() -> None:
        nonlocal found
        found = sum(1 for _ in room.scan())

    scan_s = seconds(scan)
    assert found == count
    room.resign("first")
    take_over_s = seconds(lambda: take_over(url, namespace))
    move_s = move_one(room, records[:500])
    room.close()
    return {
        "written per s": f"{len(written) / write_s:,.0f}",
        "due, ms": f"{due_s * 1000:.1f}",
        "scan, s": f"{scan_s:.1f}",
        "take-over, ms": f"{take_over_s * 1000:.0f}",
        "move, ms": f"{move_s * 1000:.2f}",
        "bytes each": f"{used_bytes / count:,.0f}" if used_bytes else "",
    }


def redis_bytes(url: str) -> int:
    if not url.startswith("redis"):
        return 0
    from redis import Redis

    with Redis.from_url(url, protocol=2) as client:
        return int(client.info("memory")["used_memory"])


@contextmanager
def clean_after(url: str, namespace: str) -> Iterator[None]:
    try:
        yield
    finally:
        if url.startswith("redis"):
            from redis import Redis

            with Redis.from_url(url, protocol=2) as client:
                unlink(client, f"{{framelane:{namespace}}}*")
        else:
            import sqlalchemy as sa

            from framelane_celery.room.database import metadata

            engine = sa.create_engine(url)
            with engine.begin() as connection:
                for table in metadata.tables.values():
                    connection.execute(sa.delete(table).where(table.c.namespace == namespace))
            engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.room", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--stores", default=",".join(URLS))
    options = parser.parse_args()
    rows: list[list[str]] = []
    head: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.stores.split(","):
            url, namespace = URLS[name].format(folder=folder), f"bench-{uuid4().hex[:12]}"
            with clean_after(url, namespace):
                figures = measure(url, namespace, options.records)
            head = ["store", *figures]
            rows.append([name, *figures.values()])
    report("room", f"{options.records:,} records, {WRITERS} writing threads", head, rows)


if __name__ == "__main__":
    main()
