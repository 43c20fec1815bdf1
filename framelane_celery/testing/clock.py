"""The server's clock: the wall clock moved ahead by a test, or a clock that only a test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone


class Clock:
    """Tells the server the time.

    A virtual clock stands still between calls of `advance`, so that a test decides what has happened by when.
    """

    def __init__(self, *, virtual: bool = False, start: float | None = None) -> None:
        self.is_virtual = virtual
        self._start = time.time() if start is None else start
        self._origin = time.monotonic()
        self._ahead = 0.0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """Give the time.

        Units:  epoch seconds.
        """
        with self._lock:
            running = 0.0 if self.is_virtual else time.monotonic() - self._origin
            return self._start + running + self._ahead

    @property
    def ahead_s(self) -> float:
        """How far `advance` has moved it, in all."""
        with self._lock:
            return self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock ahead and wake every held request, so that it looks again."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: advance({seconds})")
        with self._lock:
            self._ahead += seconds
        for listener in list(self._listeners):
            listener()

    def real_seconds_until(self, at: float) -> float | None:
        """Say how long a thread may sleep until an instant; None when only `advance` can bring it."""
        return None if self.is_virtual else max(0.0, at - self.now())

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each `advance`."""
        self._listeners.append(listener)


def iso(at: float) -> str:
    """Write an instant the way the API does: `2023-11-07T05:31:56Z`, with microseconds when it has any (INFER)."""
    moment = datetime.fromtimestamp(at, tz=timezone.utc)
    return moment.isoformat().replace("+00:00", "Z")
