"""Keeps the results of what waits for long: their keys, and their chords', would fade (celery_facts.md, row 7).

A job that is looked at has its result written with its progress. Who waits for a slot, a backoff, a quota or an
operator is passed through here, slowly, three times in a result's life. So it is here that records are noticed whose
account the settings name no more.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
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
_LEFT_ALONE: Final = (*_QUIET, "start", "job")  # where the settings do not name the account, nobody else does either

logger = logging.getLogger(__name__)


class Keeper:
    """One watcher's. Decisions go first: it only works while the scribe has nothing to do."""

    def __init__(self, watcher: Watcher, scribe: Scribe, desk: Desk) -> None:
        self._watcher, self._scribe, self._desk = watcher, scribe, desk
        self._round: Iterator[Record] = iter(())
        self._began_at: float | None = None
        self._left_alone: Counter[str] = Counter()

    def begin_anew(self) -> None:
        """Another watcher may have left its round unfinished, and workers may live for less than a result."""
        self._round, self._began_at = iter(()), None
        self._left_alone.clear()

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
            is_left_alone = not record.is_over and record.account not in self._watcher.settings.account_names
            if is_left_alone:
                self._left_alone[record.account] += 1
            if record.until in (_LEFT_ALONE if is_left_alone else _QUIET) and not record.ending:
                self._desk.put(partial(self._scribe.keep_alive, record))
        if not page:
            self._tell_left_alone()
        now = time.monotonic()
        if not page and (self._began_at is None or now - self._began_at > self._scribe.result_life_s() / 3):
            self._began_at = now
            self._round = self._watcher.room.scan()

    def _tell_left_alone(self) -> None:
        for account, count in sorted(self._left_alone.items()):
            logger.warning(
                "%d records of account %s wait: framelane['accounts'] does not name it (any more)", count, account
            )
        self._left_alone.clear()
