"""What this process has done, counted here and handed on now and then: to the room, which sums up all processes.

A count is two lines under a lock, so that it may stand where every run passes. Where nobody has asked to be told, as
in a web process, nothing is kept. What a process that is killed had not handed on, a few seconds' worth, is lost.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from framelane_celery.errors import FramelaneError

logger = logging.getLogger(__name__)

TELL_AFTER_S: Final = 3.0

BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper bounds, in seconds, of what `timed` counts."""

Counts = Mapping[str, float]
"""Numbers by `key_of`."""


@lru_cache(4096)
def key_of(name: str, *labels: str) -> str:
    """A count's key: its name and the values of its labels, as JSON."""
    return json.dumps([name, *labels], ensure_ascii=False, separators=(",", ":"))


class _Tally:
    """Counts by namespace; "" is whatever namespace was the first to ask."""

    def __init__(self) -> None:
        self.tellers: dict[str, Callable[[Counts], None]] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        """After a fork too: what was counted is the parent's, its lock may be held for ever, its timer is gone."""
        self.lock = threading.Lock()
        self.counts: dict[str, dict[str, float]] = {}
        self.timer: threading.Timer | None = None

    def add(self, namespace: str, amounts: Counts) -> None:
        with self.lock:
            counts = self.counts.setdefault(namespace, {})
            for key, amount in amounts.items():
                counts[key] = counts.get(key, 0.0) + amount
            if self.timer is None:
                self.timer = threading.Timer(TELL_AFTER_S, tell)
                self.timer.daemon = True
                self.timer.start()

    def take(self) -> dict[str, dict[str, float]]:
        with self.lock:
            taken, self.counts, self.timer = self.counts, {}, None
            return taken


_tally = _Tally()
os.register_at_fork(after_in_child=lambda: _tally.begin_anew())


def tell_to(namespace: str, teller: Callable[[Counts], None]) -> None:
    """Have this process, and those that it forks, count from now on, and tell what was counted since the last time."""
    _tally.tellers[namespace] = teller


def count(name: str, *labels: str, by: float = 1.0, namespace: str = "") -> None:
    """Add to a counter."""
    if _tally.tellers:
        _tally.add(namespace, {key_of(name, *labels): by})


def timed(name: str, *labels: str, seconds: float, namespace: str = "") -> None:
    """Count a span into the first of `BUCKETS` that holds it."""
    if _tally.tellers:
        seconds = max(0.0, seconds)
        bucket = next((str(bound) for bound in BUCKETS if seconds <= bound), "+Inf")
        amounts = {key_of(f"{name}_bucket", *labels, bucket): 1.0, key_of(f"{name}_sum", *labels): seconds}
        _tally.add(namespace, amounts)


def tell(**kwargs: object) -> None:
    """Hand on what was counted: a little after the first count, and at a process's end. (A receiver of signals.)"""
    for namespace, counts in _tally.take().items():
        teller = _tally.tellers.get(namespace) or next(iter(_tally.tellers.values()))
        try:
            teller(counts)
        except FramelaneError as error:
            logger.info("what was counted is told later: %s", error)
            _tally.add(namespace, counts)
        except Exception:  # counting must not stop
            logger.exception("what was counted is lost")
