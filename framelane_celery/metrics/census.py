"""Counts what waits, record by record, without ever being a burden.

A room of 100,000 records takes seconds to read. So it is read in a thread of its own, for at most a sixth of the time,
and whoever asks meanwhile gets the last whole census, with its age; small rooms are read anew for nearly each scrape.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from framelane_celery.errors import FramelaneError
from framelane_celery.monitoring.transitions import OTHER, code_label
from framelane_celery.records import Record
from framelane_celery.room import Room

logger = logging.getLogger(__name__)

FRESH_S: Final = 2.0
"""A census that is younger is not made anew."""

REST: Final = 5.0
"""For how many times as long as a census takes, none is made after it."""

PATIENCE_S: Final = 4.0
"""How long a scrape waits for the first census. Prometheus gives up after 10 s."""

BRIEFLY_S: Final = 0.5
"""How long it waits for a new one, where there is an older one to show."""

DISTINCT_MAX: Final = 40
"""How many queues, and accounts, have labels of their own; those that come later are "other"."""


@dataclass
class Numbers:
    """What a census has found."""

    waiting: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By until, queue, code, account."""
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By code, account."""
    oldest_letter_at: float | None = None
    made_at: float = 0.0
    """On this process's monotonic clock."""


class Names:
    """Names that users choose, as labels: the first ones as they are, so that no mistake fills Prometheus."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        if name not in self._known and len(self._known) >= DISTINCT_MAX:
            return OTHER
        self._known.add(name)
        return name


def count_records(
    found: Iterable[Record], queue_of: Callable[[Record], str], queues: Names, accounts: Names
) -> Numbers:
    """Count records by their labels."""
    numbers = Numbers()
    for record in found:
        account, code = accounts.label(record.account), code_label(_code(record))
        if record.is_letter:
            numbers.letters[code, account] += 1
            died_at = float((record.letter or {}).get("at") or 0.0)
            numbers.oldest_letter_at = min(died_at, numbers.oldest_letter_at or died_at)
        if not record.is_over:
            numbers.waiting[record.until, queues.label(queue_of(record)), code, account] += 1
    return numbers


def _code(record: Record) -> str | None:
    """Of the failure that it waits for; a job that goes on, or a verdict on its way, waits for none."""
    waits_for_it = record.until in ("instant", "release") or record.is_over
    return (record.failure or {}).get("code") if waits_for_it else None


class Census:
    """One room's. For any number of threads."""

    def __init__(self, room: Callable[[], Room], queue_of: Callable[[Record], str]) -> None:
        self._room, self._queue_of = room, queue_of
        self._queues, self._accounts = Names(), Names()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next_at = 0.0
        self.last: Numbers | None = None

    def latest(self) -> Numbers | None:
        """The last census; a new one, where that is soon made. None: there is none yet."""
        with self._lock:
            if self._thread is None and time.monotonic() >= self._next_at:
                self._thread = threading.Thread(target=self._make, name="framelane-census", daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(PATIENCE_S if self.last is None else BRIEFLY_S)
        return self.last

    def _make(self) -> None:
        began_at = time.monotonic()
        try:
            numbers = count_records(self._room().scan(lean=True), self._queue_of, self._queues, self._accounts)
            numbers.made_at = time.monotonic()
            self.last = numbers
        except FramelaneError as error:
            logger.warning("what waits could not be counted: %s", error)
        except Exception:  # told, and tried again by the next scrape
            logger.exception("what waits could not be counted")
        finally:
            took_s = time.monotonic() - began_at
            with self._lock:
                self._thread, self._next_at = None, time.monotonic() + max(FRESH_S, REST * took_s)
