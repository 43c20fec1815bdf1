"""How long, how often, how many: the numbers of looking at jobs. Pure; `plan` uses them."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
"""The longest time without a single read of a job, whatever a list says of it."""

READ_EVERY_MAX_S: Final = 30.0
"""The longest time between two single reads of a job that no list shows, if the budget allows it."""

PROBE_S: Final = 600.0
"""After a server ignored `?wait`, or its list was no help, how long until that is tried again."""

PROGRESS_S: Final = 2.0
"""At most one progress report of a job in so long; of many jobs, at most REPORTS_PER_S together."""

REPORTS_PER_S: Final = 25

SWEEP_LEAST_S: Final = 0.3
SWEEP_MOST_S: Final = 60.0
SWEEPS_MOST: Final = 60
"""Sweeps over the list in the life of one job, at most; three times as many in a short one."""

LEAST_SHARE: Final = 12
"""Reads a minute of an account that looks at nothing: enough for its first job, and for its search for orphans."""

PAGE_SIZE: Final = 100
"""Jobs per page that are asked for: the console asks for as many (framelane_api.md §7)."""

Way = Literal["long_poll", "sweep", "read"]


def way(before: Way, count: int, *, long_polls: int, wait_works: bool, list_works: bool) -> Way:
    """How to look, by how many jobs are in flight. A way that was taken is not left for one job more or less."""
    few = long_polls if before == "long_poll" else long_polls * 3 // 4
    if wait_works and long_polls and count <= max(few, 1):
        return "long_poll"
    return "sweep" if list_works and count > READ_THREADS else "read"


def wait_s(count: int, reads_per_minute: int, *, age_s: float, left_s: float | None) -> int:
    """How long the server may hold one long-poll.

    A held look tells nothing of the job's progress, so a young job is held shortly and an old one long: half its age.
    All of them together stay within the budget of reads, and none is held past its deadline (``left_s``).
    """
    wished = max(WAIT_LEAST_S, age_s / 2, count * 60.0 / reads_per_minute)
    return max(1, math.ceil(min(WAIT_S, wished, WAIT_S if left_s is None else left_s)))


def is_wait_ignored(*, wait_s: int, took_s: float, is_terminal: bool) -> bool:
    """Whether the server answered a long-poll at once though the job goes on."""
    return wait_s > 1 and not is_terminal and took_s < 1.0


def read_every_s(count: int, reads_per_minute: int, *, age_s: float, percent: int, trust: float) -> float:
    """Seconds until the next single read of a job that goes on.

    A twentieth of its age, or a quarter of what its progress leaves it, whichever is sooner; rarer while hints come;
    and never so often that all ``count`` jobs together pass the budget of reads.
    """
    wished = age_s / 20
    if percent >= 5:
        wished = min(wished, age_s * (100 - percent) / percent / 4)
    wished = min(READ_EVERY_MAX_S, max(LOOK_AGAIN_S, wished)) * _slower(trust)
    return min(LOOK_LATEST_S, max(wished, count * 60.0 / reads_per_minute))


def sweep_every_s(count: int, pages: int, reads_per_minute: int, *, usual_s: float, trust: float) -> float:
    """Seconds from the start of one sweep to the next.

    A sweep costs its pages, which all jobs share. The pages that a job's life may cost fall with the number of jobs:
    0.35 reads per job at 1,000, 0.11 at 10,000; up to three times as much if jobs last for less than 100 s, for
    then a sweep's pause would be felt. ``usual_s`` is how long jobs last, ``trust`` the share of ends that
    hints have told. Sweeps never take more than half of the budget.
    """
    hurry = min(3.0, max(1.0, 100 / usual_s))
    reads_per_job = 0.35 * math.sqrt(1000 / max(1, count))
    sweeps = min(SWEEPS_MOST, max(1.0, reads_per_job * count / max(1, pages))) * hurry
    wished = min(SWEEP_MOST_S, max(SWEEP_LEAST_S, usual_s / sweeps * _slower(trust)))
    return max(wished, pages * 120.0 / reads_per_minute)


def _slower(trust: float) -> float:
    """While hints tell of most ends, looks are the safety net only: up to ten times slower."""
    return 1 + 9 * max(0.0, (trust - 0.8) / 0.2)


def shares(counts: Mapping[str, int], per_minute: int) -> dict[str, int]:
    """A budget of reads that several have together, by how many jobs each looks at: the same for all, but that nobody
    gets more than a read a second for each of its jobs, as long as another one can do with it."""
    left, found = per_minute, dict[str, int]()
    for place, (name, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        others = len(counts) - place
        wished = left if others == 1 else min(left // others, max(LEAST_SHARE, count * 60))
        found[name] = max(1, wished)
        left -= found[name]
    return found


def after_trouble_s(failures: int) -> float:
    """Seconds until the next look after a read failed: looking is not retrying, so only the pace falls."""
    return float(min(30.0, 2.0 ** min(failures, 6)))


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
