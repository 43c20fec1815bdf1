"""Keeps the results of what waits for long: their keys, and their chords', would fade (celery_facts.md, row 7).

A job that is looked at has its result written with its progress. Who waits for a slot, a backoff, a quota or an
operator is passed through here, slowly, three times in a result's life.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from framelane_celery.errors import RoomError
from framelane_celery.records import Record

if TYPE_CHECKING:
    from framelane_celery.watching.desk import Desk
    from framelane_celery.watching.scribe import Scribe
    from framelane_celery.watching.watcher import Watcher

AT_ONCE: Final = 100
_QUIET: Final = ("slot", "instant", "release")


class Keeper:
    """One watcher's. Decisions go first: it only works while the scribe has nothing to do."""

    def __init__(self, watcher: Watcher, scribe: Scribe, desk: Desk) -> None:
        self._watcher, self._scribe, self._desk = watcher, scribe, desk
        self._round: Iterator[Record] = iter(())
        self._began_at: float | None = None

    def begin_anew(self) -> None:
        """Another watcher may have left its round unfinished, and workers may live for less than a result."""
        self._round, self._began_at = iter(()), None

    def keep(self) -> None:
        """Go on with this round, or begin the next one when it is time."""
        if not self._desk.is_idle:
            return
        try:
            page = list(islice(self._round, AT_ONCE))
        except RoomError:
            self.begin_anew()
            raise
        for record in page:
            if record.until in _QUIET and not record.ending:
                self._desk.put(partial(self._scribe.keep_alive, record))
        now = time.monotonic()
        if not page and (self._began_at is None or now - self._began_at > self._scribe.result_life_s() / 3):
            self._began_at = now
            self._round = self._watcher.room.scan()
