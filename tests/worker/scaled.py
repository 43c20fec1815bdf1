"""Loaded by a worker whose minute is shorter (``-I tests.worker.scaled``): what paces by the minute is scaled.

The server's minute is ``FramelaneServer(rate_window_s=…)``. Ours is no setting, so it is set here, for this process and
the pool's; and so is the watcher's tick, which is a quarter of a second in a whole minute.
"""

from __future__ import annotations

import os
from typing import Any

from framelane_celery.room import redis, rules
from framelane_celery.watching import watcher

SCALED = ("-I", "tests.worker.scaled")

MARGIN_S = 0.1
"""How much longer our minute is than the server's: it is for the way there, which no scale shortens."""


def minute(seconds: float) -> dict[str, Any]:
    """The environment of a worker whose minute has so many seconds."""
    return {"TEST_MINUTE_S": str(seconds)}


if "TEST_MINUTE_S" in os.environ:
    _minute_s = float(os.environ["TEST_MINUTE_S"])
    rules.SLOT_WINDOW_S = redis.SLOT_WINDOW_S = _minute_s + MARGIN_S  # type: ignore[misc]
    watcher.TICK_S = 0.05  # type: ignore[misc]
