"""The threads in which the watcher's HTTP calls run, so that the clock never waits for one."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from framelane_celery.client import FramelaneClient
from framelane_celery.errors import ApiError, FramelaneError, NotFound
from framelane_celery.models import Job
from framelane_celery.records import Record

logger = logging.getLogger(__name__)

Errand = Literal["look", "time_out", "end"]


class Seen(NamedTuple):
    """What came of an errand. ``job`` is None if it could not be read; ``error`` says why."""

    errand: Errand
    record: Record
    job: Job | None
    error: Exception | None
    wait_s: int
    took_s: float


class LookPool:
    """Up to ``size`` daemon threads, made as they are needed. Each has its own client, so connections are kept."""

    def __init__(self, client: Callable[[], FramelaneClient], report: Callable[[Seen], None], size: int) -> None:
        self._client, self._report, self._size = client, report, size
        self._errands: queue.SimpleQueue[Callable[[FramelaneClient], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()

    def send(self, errand: Errand, record: Record, wait_s: int = 0) -> None:
        """Look at the record's job; or cancel it, and then look. What was seen goes to ``report``."""
        self.call(partial(self._look_and_report, errand, record, wait_s))

    def call(self, work: Callable[[FramelaneClient], None]) -> None:
        """Have any other call made; its answers and errors are the caller's own business."""
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
                logger.exception("a look went wrong")
            finally:
                with self._lock:
                    self._busy -= 1

    def _look_and_report(self, errand: Errand, record: Record, wait_s: int, client: FramelaneClient) -> None:
        started = time.monotonic()
        job, error = None, None
        try:
            job = self._look(errand, record, wait_s, client)
        except Exception as caught:  # noqa: BLE001 - isolation of one record: reported with it
            error = caught
        self._report(Seen(errand, record, job, error, wait_s, time.monotonic() - started))

    def _look(self, errand: Errand, record: Record, wait_s: int, client: FramelaneClient) -> Job | None:
        if record.job_id is None:
            return None
        kind = record.job_kind or "render"
        if errand != "look":
            try:
                client.cancel_job(kind, record.job_id)
            except (ApiError, FramelaneError) as error:  # best effort: the look says what became of it
                level = logging.INFO if isinstance(error, (ApiError, NotFound)) else logging.WARNING
                logger.log(level, "job %s could not be cancelled: %s", record.job_id, error)
        return client.get_job(kind, record.job_id, wait_s=wait_s)
