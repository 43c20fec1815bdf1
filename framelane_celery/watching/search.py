"""Searches for orphans, slowly and unasked: what a room that came back empty has lost is waited for again.

A round begins a lease after this watcher took the lead, which it also does when its room has forgotten who leads; then
every hour. A read of the API every few seconds, and only one that the looks can spare.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from framelane_celery import orphans
from framelane_celery.accounts import DEFAULT
from framelane_celery.errors import ApiError, FramelaneError, InternalError, RateLimited

if TYPE_CHECKING:
    from framelane_celery.client import FramelaneClient
    from framelane_celery.watching.looker import Looker
    from framelane_celery.watching.pool import LookPool
    from framelane_celery.watching.watcher import Watcher

logger = logging.getLogger(__name__)

ROUND_EVERY_S: Final = 3600.0
SHARE: Final = 0.02
"""How much of the budget of reads a round may take."""

_TROUBLE_MAX: Final = 10
"""After so many reads in a row that went wrong, a round is given up."""


class OrphanSearch:
    """One watcher's, in one account's workspace. `keep` runs in the clock's thread, the reads in the pool's, one at a
    time."""

    def __init__(self, watcher: Watcher, looker: Looker, pool: LookPool, account: str = DEFAULT) -> None:
        self._watcher, self._looker, self._pool, self._account = watcher, looker, pool, account
        self._is_out = False
        self._told: set[str | None] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """What is younger than a lease may yet get its record."""
        self._round: orphans.Search | None = None
        self._trouble = 0
        self._next_at = time.monotonic() + self._watcher.settings.lease_s

    def keep(self) -> None:
        """Make the next read, if it is time and the budget has one to spare."""
        now = time.monotonic()
        if self._is_out or now < self._next_at or not self._looker.spare_read():
            return
        self._is_out, self._next_at = True, now + 60 / (self._watcher.settings.reads_per_minute * SHARE)
        if self._round is None:
            self._round = orphans.Search(self._watcher.app, self._account)
        round_ = self._round
        self._pool.call(lambda client: self._step(round_, client))

    def _step(self, round_: orphans.Search, client: FramelaneClient) -> None:
        is_over = False
        try:
            if not round_.step(client) and round_ is self._round:  # else another watcher has led meanwhile
                self._tend(round_.found)
                is_over = True
            self._trouble = 0
        except FramelaneError as error:
            self._trouble += 1
            is_refused = isinstance(error, ApiError) and not isinstance(error, (RateLimited, InternalError))
            is_over = is_refused or self._trouble >= _TROUBLE_MAX
            logger.log(
                logging.WARNING if is_over else logging.INFO,
                "orphans of account %s cannot be searched for: %s",
                self._account,
                error,
            )
        finally:
            if is_over and round_ is self._round:
                self._round, self._trouble = None, 0
                self._next_at = time.monotonic() + ROUND_EVERY_S
            self._is_out = False

    def _tend(self, found: orphans.Orphans) -> None:
        """What was told once is not told each hour."""
        news = found._replace(
            jobs=[job for job in found.jobs if job.id not in self._told],
            gone=[record for record in found.gone if record.job_id not in self._told],
        )
        orphans.tend(self._watcher.app, news)
        self._told.update(job.id for job in news.jobs)
        self._told.update(record.job_id for record in news.gone)
