"""The queue of those who wait for a submit slot: a FIFO, woken at the allowed rate, not a row of appointments."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from framelane_celery import records
from framelane_celery.accounts import DEFAULT
from framelane_celery.records import ForeignRecord, JobKind

if TYPE_CHECKING:
    from framelane_celery.watching.watcher import Watcher

AHEAD: Final = 20
"""How many tasks are woken and have not yet begun: a little ahead of the pool. Their slot is taken when they begin."""


class SlotQueue:
    """The queue of one kind of job, whose limit per minute is its own (framelane_api.md §12).

    ``queue``: its name, that of the bucket itself unless an account had a limit of its own and has none any more.
    """

    def __init__(self, watcher: Watcher, bucket: str, per_minute: int, queue: str | None = None) -> None:
        self._watcher, self._bucket, self._per_minute = watcher, bucket, per_minute
        self._lane = f"slot:{queue or bucket}"
        self._woken: deque[tuple[str, int, float]] = deque()

    def let_in(self) -> None:
        """Wake the first ones, as many as there are slots, unless enough are on their way."""
        room, lane = self._watcher.room, self._lane
        if not room.waiting(lane):
            self._woken.clear()
            return
        self._woken = deque(woken for woken in self._woken if self._is_on_its_way(*woken))
        free = min(room.slots_free(self._bucket, self._per_minute), AHEAD) - len(self._woken)
        if free <= 0:
            return
        page, _ = room.due(lane, free)
        for record in page:
            wake = partial(records.wake, resend_after_s=self._watcher.settings.resend_after_s)
            moved = self._watcher.move(record.id, lambda old, now, wake=wake: wake(old, now=now))  # type: ignore[misc]
            if moved is not None:
                if moved.account in self._watcher.settings.account_names:  # else it takes no slot when it begins
                    self._woken.append((moved.id, moved.step, time.monotonic()))
                self._watcher.publish(moved)

    def _is_on_its_way(self, task_id: str, step: int, woken_at: float) -> bool:
        """Not for longer than a wake-up may take: those whose workers are gone must not stop the queue for others."""
        if time.monotonic() - woken_at > self._watcher.settings.resend_after_s:
            return False
        try:
            record, _ = self._watcher.room.read(task_id)
        except ForeignRecord:
            return False
        return record is not None and record.step == step


def slot_queues(watcher: Watcher) -> list[SlotQueue]:
    """All queues: of what accounts have together, and of each account."""
    settings = watcher.settings
    kinds: tuple[JobKind, ...] = ("render", "task")
    queues = [SlotQueue(watcher, kind, settings.per_minute(DEFAULT, kind)) for kind in kinds]
    for account in settings.accounts:
        for kind in kinds:
            bucket, per_minute = settings.bucket(account, kind), settings.per_minute(account, kind)
            queues.append(SlotQueue(watcher, bucket, per_minute, f"{kind}:{account}"))
    return queues
