"""Rate limits per address and the monthly quota: pure counting, with the time passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timezone

WINDOW_S = 60.0


@dataclass
class FixedWindow:
    """At most `limit` requests per address in a minute that begins with the address's first request (INFER).

    Source: docs.framelane.io/introduction/rate-limits: 120 renders and 300 tasks a minute and address.
    """

    limit: int | None
    _windows: dict[str, tuple[float, int]] = field(default_factory=dict)

    def take(self, address: str, now: float) -> int | None:
        """Count one request; the seconds to wait when it is one too many."""
        if self.limit is None:
            return None
        began, count = self._windows.get(address, (now, 0))
        if now >= began + WINDOW_S:
            began, count = now, 0
        if count >= self.limit:
            return max(1, math.ceil(began + WINDOW_S - now))
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
