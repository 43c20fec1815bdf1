"""What tests do with records on the way to what they are about."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from framelane_celery import records
from framelane_celery.records import Record
from framelane_celery.room import Room, move

Make = Callable[..., Record]
Open = Callable[[], Room]


def in_parallel(count: int, work: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(10)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def put(room: Room, record: Record) -> Record:
    assert room.create(record) is None
    return record


def is_revoked(room: Room, marks: list[str]) -> bool:
    """Whether a save that must not go through with any of these marks is refused; else it goes through."""
    record = Record(id=f"probe-{uuid4()}", task="t", call="{}", digest="d", due_at=1e12, created_at=1.0)
    put(room, record)
    saved = room.save(record, record, unless_revoked=marks)
    assert saved in ("saved", "revoked")
    there, _ = room.read(record.id)
    assert there is not None
    assert there.version == record.version + (saved == "saved")
    room.forget(there)
    return saved == "revoked"


def begun(room: Room, record: Record, *, lease_s: float = 60.0) -> Record:
    moved = move(
        room,
        record.id,
        lambda r, now: records.begin(r, step=r.step, run_id="run", node="node", now=now, lease_s=lease_s),
    )
    assert moved is not None
    return moved


def with_job(room: Room, record: Record, job_id: str = "render_1") -> Record:
    begun(room, record)
    moved = move(
        room,
        record.id,
        lambda r, now: records.accept(r, run_id="run", job={"id": job_id}, kind="render", now=now, deadline_s=600),
    )
    assert moved is not None
    return moved


def done(room: Room, record: Record) -> Record:
    begun(room, record)
    moved = move(room, record.id, lambda r, now: records.finish(r, run_id="run", now=now))
    assert moved is not None
    assert moved.until == "done"
    return moved


def wait_in_queue(room: Room, record: Record) -> Record:
    moved = move(room, record.id, lambda r, now: records.queue(r, step=r.step, kind="render", now=now))
    assert moved is not None
    return moved
