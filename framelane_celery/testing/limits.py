"""Rate limits per address, and the periods of the quota: pure counting, with the time passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timezone

WINDOW_S = 60.0


@dataclass
class FixedWindow:
    """At most `limit` requests per address in a window that begins with the address's first request (INFER).

    The window is a minute unless a test scales time.

    Source: docs.framelane.io/introduction/rate-limits: 120 renders and 300 tasks a minute and address.
    """

    limit: int | None
    window_s: float = WINDOW_S
    _windows: dict[str, tuple[float, int]] = field(default_factory=dict)

    def take(self, address: str, now: float) -> int | None:
        """Count one request; the seconds to wait, whole ones and at least 1, when it is one too many."""
        if self.limit is None:
            return None
        began, count = self._windows.get(address, (now, 0))
        if now >= began + self.window_s:
            began, count = now, 0
        if count >= self.limit:
            return max(1, math.ceil(began + self.window_s - now))
        self._windows[address] = (began, count + 1)
        return None


def period(now: float) -> tuple[float, float]:
    """Give the calendar month around `now`: its start, and its end, which is no part of it.

    Source: docs.framelane.io/api-reference/workspace/get-workspace-usage.
    """
    today = datetime.fromtimestamp(now, tz=timezone.utc)
    start = datetime(today.year, today.month, 1, tzinfo=timezone.utc)
    end = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=timezone.utc)
    return start.timestamp(), end.timestamp()


@dataclass
class Periods:
    """The periods a quota is counted in: calendar months, or `length_s` at a time from `begins_at` on.

    Units:  begins_at is epoch seconds.
    """

    length_s: float | None = None
    begins_at: float = 0.0

    def around(self, now: float) -> tuple[float, float]:
        """Give the period around `now`: its start, and its end, which is no part of it."""
        if self.length_s is None:
            return period(now)
        number = math.floor((now - self.begins_at) / self.length_s)
        number += now >= self._start(number + 1)  # the division may miss by a hair; the bounds are what counts
        number -= now < self._start(number)
        return self._start(number), self._start(number + 1)

    def _start(self, number: int) -> float:
        return self.begins_at + number * (self.length_s or 0.0)
