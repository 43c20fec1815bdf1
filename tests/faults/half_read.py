"""The app of test_half_read: a plain Celery task that says much when it ends."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from celery.exceptions import Ignore

app = Celery("half_read", broker=os.environ.get("HALF_READ_BROKER"))
app.conf.update(
    task_default_queue=os.environ.get("HALF_READ_QUEUE", "fl-test-half-read"),
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)


@app.task
def end(file: str, size: int) -> None:
    """Leave a file, and end with an ``Ignore`` of so many letters."""
    Path(file).touch()
    raise Ignore("x" * size)
