"""What a call, and a whole task of two runs, cost beside plain Celery tasks. HTTP is left out (see `project`).

python -m benchmarks.throughput
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from celery.result import ResultSet

from benchmarks.bench import project, table

CALLS, TASKS = 1000, 500


def calls(task: Any, count: int) -> float:
    """Seconds per ``apply_async``, the median of the calls."""
    spans = []
    for _ in range(count):
        started = time.perf_counter()
        task.apply_async()
        spans.append(time.perf_counter() - started)
    return statistics.median(spans)


def throughput(tasks: list[Any]) -> float:
    """Seconds from the first call to the last result."""
    started = time.perf_counter()
    ResultSet([task.apply_async() for task in tasks]).get(timeout=300)
    return time.perf_counter() - started


def main() -> None:
    with project("http://127.0.0.1:9", concurrency=2, instant_http=True, reads_per_minute=10_000_000) as module:
        throughput([module.nothing] * 100 + [module.small] * 20)  # warm
        plain_s, ours_s = throughput([module.nothing] * TASKS * 2), throughput([module.small] * TASKS)
        plain_call_s, our_call_s = calls(module.nothing, CALLS), calls(module.small, CALLS)
        module.nothing.apply_async().get(timeout=300)  # a worker that is stopped behind a backlog takes half a minute
    table(
        "apply_async, and a whole task (submit, look, wake-up, finish) beside two plain tasks that do nothing",
        ["what", "plain", "framelane_celery", "ratio"],
        [
            [
                "one call, ms",
                f"{plain_call_s * 1e3:.2f}",
                f"{our_call_s * 1e3:.2f}",
                f"{our_call_s / plain_call_s:.2f}",
            ],
            [
                "tasks per s (2 plain = 1)",
                f"{TASKS / plain_s:.0f}",
                f"{TASKS / ours_s:.0f}",
                f"{plain_s / ours_s:.2f}",
            ],
        ],
    )


if __name__ == "__main__":
    main()
