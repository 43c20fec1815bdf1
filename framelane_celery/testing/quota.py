"""The quota of a period: what it allows, what is used, and the refusal when it is spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from framelane_celery.testing.jobs import StoredJob
from framelane_celery.testing.limits import Periods
from framelane_celery.testing.refusals import Refusal

_COUNTED = {"render": ("render", "render_minutes"), "task": ("task",)}


@dataclass(frozen=True)
class Used:
    """The work of one period. Every accepted job counts, also one that fails or is cancelled (INFER)."""

    renders: int
    tasks: int
    render_minutes: float


@dataclass
class Quota:
    """At most so many renders, minutes of output and media tasks in a period; None is without a limit.

    The documented quota is minutes and tasks; a number of renders is for tests that want to count by hand.

    Source: docs.framelane.io/introduction/rate-limits; that only what is used up before counts, so that the last
            render may go over the minutes, is INFER.
    """

    limits: Mapping[str, float | None]
    periods: Periods = field(default_factory=Periods)
    status: int = 429
    reset_at: float = 0.0

    def check(self, kind: str, jobs: Iterable[StoredJob], now: float) -> None:
        """Let a submission of this kind pass.

        Raises: Refusal 429 or 402 quota_exceeded.
        """
        if all(self.limits.get(name) is None for name in _COUNTED[kind]):
            return  # and do not count thousands of jobs at every POST
        used = used_since(max(self.periods.around(now)[0], self.reset_at), jobs)
        counts = {"render": used.renders, "render_minutes": used.render_minutes, "task": used.tasks}
        for name in _COUNTED[kind]:
            limit = self.limits.get(name)
            if limit is not None and counts[name] >= limit:
                message = f"Monthly {kind} quota exhausted. Upgrade your plan or wait for reset."
                raise Refusal(self.status, "quota_exceeded", message)


def used_since(since: float, jobs: Iterable[StoredJob]) -> Used:
    """Count the work accepted from an instant on.

    Source: one rendered minute is one minute of output, site pricing/page.tsx.
    """
    counted = [job for job in jobs if job.life.accepted_at >= since]
    renders = [job for job in counted if job.kind == "render"]
    seconds = sum(job.submission.output_s for job in renders)
    return Used(len(renders), len(counted) - len(renders), round(seconds / 60, 3))
