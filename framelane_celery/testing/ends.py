"""Assertions about tasks that run in a worker: they look at the result and at the record, and need Celery and a room.

Each waits a little for what a worker in another thread is about to do, and says what there was instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from framelane_celery import dead_letters
from framelane_celery.room import room_of
from framelane_celery.settings import settings_of
from framelane_celery.testing.assertions import WAIT_S

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import AsyncResult

    from framelane_celery.records import Record

Found = TypeVar("Found")
PAUSE_S = 0.02


def assert_waiting(result: AsyncResult, until: str = "job", timeout_s: float = WAIT_S) -> dict[str, Any]:
    """Assert that a task waits, holding no worker, and give what it shows meanwhile: `job_id`, `percent`, `attempt`, …

    `until` is what for: "job", "instant" (a backoff), "release" (a spent quota, or a kept pipeline).
    """
    __tracebackhide__ = True

    def shown() -> dict[str, Any] | None:
        meta = result.info if result.state == "PROGRESS" else None
        return meta if isinstance(meta, dict) and meta.get("until") == until else None

    found = _within(timeout_s, shown)
    if found is None:
        raise AssertionError(
            f"expected task {result.id} to wait until {until}; its state is {result.state}: {result.info!r}"
        )
    return found


def assert_dead_letter(app: Celery, code: str | None = None, task: Any = None, timeout_s: float = WAIT_S) -> Record:
    """Assert that exactly one dead letter waits for somebody, of this code and this task (or its name); and give it.

    `framelane_celery.dead_letters.replay(app, letter.id)` runs it again.
    """
    __tracebackhide__ = True
    room, name = room_of(app, settings_of(app)), None if task is None else str(getattr(task, "name", task))

    def found() -> list[Record] | None:
        return list(dead_letters.letters(room, code=code, task=name)) or None

    letters = _within(timeout_s, found) or []
    if len(letters) != 1:
        wanted = " ".join(filter(None, [f"with code {code}" if code else "", f"of {name}" if name else ""]))
        there = "\n".join(f"  {_told(record)}" for record in room.scan()) or "  nothing"
        raise AssertionError(
            f"expected 1 dead letter {wanted}".rstrip() + f", not {len(letters)}. In the room:\n{there}"
        )
    return letters[0]


def _told(record: Record) -> str:
    code = (record.failure or {}).get("code")
    return (
        f"{record.task} {record.id}: {'dead letter' if record.is_letter else record.until}{f', {code}' if code else ''}"
    )


def _within(timeout_s: float, look: Callable[[], Found | None]) -> Found | None:
    """What a look finds, once it finds something; None when timeout_s passes first."""
    give_up_at = time.monotonic() + timeout_s
    while (found := look()) is None and time.monotonic() < give_up_at:
        time.sleep(PAUSE_S)
    return found
