"""What to look at, how and when. Pure: plain values in, plain values out.

A few jobs: one long-poll each. Many: single reads, under the budget of reads per minute. (List sweeps and a slower
pace while hints arrive will be decided here too.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

WAIT_S: Final = 25
"""How long a long-poll is held open (framelane_api.md §8)."""

WAIT_LEAST_S: Final = 2
"""The shortest long-poll: what a young job's progress is worth."""

READ_THREADS: Final = 8
LOOK_AGAIN_S: Final = 1.0
"""The shortest time between two single reads of one job."""

LOOK_LATEST_S: Final = 900.0
WAIT_PROBE_S: Final = 600.0
"""After a server ignored `?wait`, how long until it is tried again."""

PROGRESS_S: Final = 2.0
"""At most one progress report of a job in so long."""

Way = Literal["long_poll", "read"]


def way(waiting: int, *, long_polls: int, wait_works: bool) -> Way:
    """How to look, by how many jobs are in flight."""
    return "long_poll" if wait_works and waiting <= long_polls else "read"


def wait_s(chosen: Way, waiting: int, reads_per_minute: int, *, age_s: float, left_s: float | None) -> int:
    """How long the server may hold one look. 0: answer at once.

    A held look tells nothing of the job's progress, so a young job is held shortly and an old one long: half its age.
    All of them together stay within the budget of reads, and none is held past its deadline (``left_s``).
    """
    if chosen == "read":
        return 0
    wished = max(WAIT_LEAST_S, age_s / 2, waiting * 60.0 / reads_per_minute)
    return max(1, math.ceil(min(WAIT_S, wished, WAIT_S if left_s is None else left_s)))


def is_wait_ignored(*, wait_s: int, took_s: float, is_terminal: bool) -> bool:
    """Whether the server answered a long-poll at once though the job goes on."""
    return wait_s > 1 and not is_terminal and took_s < 1.0


def next_look_s(chosen: Way, waiting: int, reads_per_minute: int) -> float:
    """Seconds until the next look at a job that was not finished: a long-poll goes on at once."""
    if chosen == "long_poll":
        return 0.0
    return min(LOOK_LATEST_S, max(LOOK_AGAIN_S, waiting * 60.0 / reads_per_minute))


def after_trouble_s(failures: int) -> float:
    """Seconds until the next look after a read failed: looking is not retrying, so only the pace falls."""
    return float(min(60.0, 2.0 ** min(failures, 6)))


@dataclass(frozen=True)
class ReadBudget:
    """Reads that may be made, refilled with time: at most ten seconds' worth at once."""

    per_minute: int
    left: float = 1.0
    at: float | None = None

    def at_time(self, now: float) -> ReadBudget:
        """The budget now. ``now`` is any clock that goes on, in seconds."""
        gone_s = 0.0 if self.at is None else max(0.0, now - self.at)
        left = min(max(1.0, self.per_minute / 6), self.left + gone_s * self.per_minute / 60)
        return replace(self, left=left, at=now)

    def spend(self, reads: int) -> ReadBudget:
        return replace(self, left=self.left - reads)
