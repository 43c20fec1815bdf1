"""Revokes: from a worker's memory into the room, and from the room to the records that they are for.

Celery keeps revokes in the memory of the workers that heard them (celery_facts.md, row 8). So every worker writes what
it hears into the room, and the active watcher, or a task's ``begin`` on a worker that never heard it, acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from framelane_celery import records
from framelane_celery.records import Record
from framelane_celery.wakeups import revoke_marks

if TYPE_CHECKING:
    from framelane_celery.watching.watcher import Watcher


class Revokes:
    """One watcher's view of them. ``heard`` tells what its worker knows."""

    def __init__(self, watcher: Watcher, heard: Callable[[], Iterable[str]]) -> None:
        self._watcher, self._heard = watcher, heard
        self._told: set[str] = set()
        self._done: set[str] = set()
        self._read_at = 0.0

    def tell(self) -> None:
        """Write into the room what this worker has heard since the last time."""
        heard = set(self._heard())
        new = heard - self._told
        if new:
            self._watcher.room.add_revokes(new)
        self._told = heard

    def forget(self) -> None:
        """Read all that the room remembers again: another watcher may have left something undone."""
        self._read_at = 0.0
        self._done.clear()

    def read(self) -> None:
        """End what was revoked. What runs is left to run, as Celery does, and ended when it next waits."""
        marks, now = self._watcher.room.revokes_since(self._read_at)
        new = set(marks) - self._done
        for mark in new:
            if mark.startswith("id:"):
                self._watcher.move(mark.removeprefix("id:"), _revoked)
        stamps = {mark for mark in new if mark.startswith("stamp:")}
        if stamps:
            for record in self._watcher.room.scan():
                if stamps.intersection(revoke_marks(record)):
                    self._watcher.move(record.id, _revoked)
        self._read_at = now - 1.0
        self._done = set(marks)


def _revoked(record: Record, now: float) -> Record | None:
    return records.revoke(record, reason="revoked", now=now)
