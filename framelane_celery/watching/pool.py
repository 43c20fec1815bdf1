"""The threads in which the watcher's HTTP calls run, so that the clock never waits for one."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from framelane_celery.client import FramelaneClient

logger = logging.getLogger(__name__)


class LookPool:
    """Up to ``size`` daemon threads, made as they are needed. Each has its own client, so connections are kept."""

    def __init__(self, client: Callable[[], FramelaneClient], size: int) -> None:
        self._client, self._size = client, size
        self._errands: queue.SimpleQueue[Callable[[FramelaneClient], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()

    def call(self, work: Callable[[FramelaneClient], None]) -> None:
        """Have a call made; its answers and errors are the caller's own business."""
        with self._lock:
            self._busy += 1
            if self._busy > self._threads and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._work, name="framelane-look", daemon=True).start()
        self._errands.put(work)

    def stop(self) -> None:
        """Let the threads go as each comes back from its call."""
        for _ in range(self._threads):
            self._errands.put(None)

    def _work(self) -> None:
        while (work := self._errands.get()) is not None:
            try:
                work(self._client())
            except Exception:  # isolation: one call never stops the others
                logger.exception("a call went wrong")
            finally:
                with self._lock:
                    self._busy -= 1
