"""From a job's end to the start of the next task, and the API reads that it costs.

    python -m benchmarks.latency

Beside it, in the same run on the same worker and server: the ``self.retry(countdown=2)`` recipe.
"""

from __future__ import annotations

import random
import statistics
from datetime import datetime
from typing import Any

from celery import chain

from benchmarks.bench import project, report
from framelane_celery.testing import FramelaneServer

SECONDS = (6.0, 10.0)


def measure(module: Any, server: FramelaneServer, first: Any, jobs: int) -> list[Any]:
    reads = server.ledger.counts()["reads"]
    results = [chain(first, module.next_task.s()).apply_async() for _ in range(jobs)]
    answers = [result.get(timeout=120) for result in results]
    gaps = sorted(answer["started"] - datetime.fromisoformat(answer["ended"]).timestamp() for answer in answers)
    cost = (server.ledger.counts()["reads"] - reads) / jobs
    return [f"{statistics.median(gaps) * 1000:.0f}", f"{gaps[int(len(gaps) * 0.95) - 1] * 1000:.0f}", f"{cost:.1f}"]


def main() -> None:
    chance = random.Random(7)
    with (
        FramelaneServer(
            duration=lambda submission: chance.uniform(*SECONDS), renders_per_minute=None, tasks_per_minute=None
        ) as server,
        project(server.base_url, concurrency=2) as module,
    ):
        rows = []
        for jobs in (1, 10, 40):
            ours = measure(module, server, module.render.s(module.COMPOSITION), jobs)
            theirs = measure(module, server, module.recipe.s(), jobs)
            rows += [[jobs, "framelane_celery", *ours], [jobs, "self.retry(countdown=2)", *theirs]]
    report(
        "latency",
        f"A job's end to the start of the next task (jobs of {SECONDS[0]:.0f} to {SECONDS[1]:.0f} s)",
        ["in flight", "how", "median ms", "95 % ms", "reads per job"],
        rows,
    )


if __name__ == "__main__":
    main()
