"""Ties the demo's worker to the demo: included by the worker, it ends it when the demo is gone, however it went.

The demo holds the other end of the worker's standard input, so even a SIGKILL of the demo is noticed.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from celery import signals


@signals.worker_ready.connect
def hold(**kwargs: Any) -> None:
    """Start to listen, once the pool's processes are there."""
    threading.Thread(target=_end_with_the_demo, name="demo-leash", daemon=True).start()


def _end_with_the_demo() -> None:
    while os.read(0, 1024):
        pass
    if os.getpgrp() == os.getpid():  # the pool's processes too, and nobody else
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGTERM)
