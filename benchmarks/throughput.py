"""What a call, and a whole task of two runs, cost beside plain Celery tasks: HTTP apart (see `project`), and included.

    python -m benchmarks.throughput

With HTTP, a job has ended as soon as it was accepted, and the ``self.retry(countdown=2)`` recipe stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from celery.result import ResultSet

from benchmarks.bench import Goal, alone, report, running
from framelane_celery.testing import FramelaneServer

CALLS, TASKS, CONCURRENCY = 1000, 500, 2
READS_PER_MINUTE = 10_000_000


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


def measure_apart() -> dict[str, float]:
    """Seconds, with an API inside the worker that answers at once."""
    options = {"concurrency": CONCURRENCY, "instant_http": True, "reads_per_minute": READS_PER_MINUTE}
    with running("http://127.0.0.1:9", **options) as run:
        module = run.module
        throughput([module.nothing] * 100 + [module.small] * 20)  # warm
        told = {
            "plain": throughput([module.nothing] * TASKS * 2),
            "ours": throughput([module.small] * TASKS),
            "plain_call": calls(module.nothing, CALLS),
            "our_call": calls(module.small, CALLS),
        }
        module.nothing.apply_async().get(timeout=300)  # a worker stopped behind a backlog takes half a minute
        return told


def measure_included() -> dict[str, float]:
    """Seconds, with the local server, whose jobs have ended when they are accepted."""
    with (
        FramelaneServer(job_seconds=0.0, renders_per_minute=None, tasks_per_minute=None) as server,
        running(server.base_url, concurrency=CONCURRENCY, reads_per_minute=READS_PER_MINUTE) as run,
    ):
        module = run.module
        throughput([module.nothing] * 100 + [module.small] * 20)
        told = {
            "plain": throughput([module.nothing] * TASKS * 2),
            "ours": throughput([module.small] * TASKS),
            "recipe": throughput([module.recipe] * TASKS),
        }
        return told


def main() -> None:
    apart, included = (alone("benchmarks.throughput", "--one", one) for one in ("apart", "included"))
    ratio = apart["plain"] / apart["ours"]
    report(
        "throughput",
        "apply_async, and a whole task (submit, look, wake-up, finish) beside two plain tasks that do nothing",
        ["what", "plain", "framelane_celery", "ratio", "self.retry(countdown=2)"],
        [
            [
                "one call, ms",
                f"{apart['plain_call'] * 1e3:.2f}",
                f"{apart['our_call'] * 1e3:.2f}",
                f"{apart['our_call'] / apart['plain_call']:.2f}",
                "",
            ],
            [
                "tasks per s, HTTP apart (2 plain = 1)",
                f"{TASKS / apart['plain']:.0f}",
                f"{TASKS / apart['ours']:.0f}",
                f"{ratio:.2f}",
                "",
            ],
            [
                "tasks per s, HTTP included",
                f"{TASKS / included['plain']:.0f}",
                f"{TASKS / included['ours']:.0f}",
                f"{included['plain'] / included['ours']:.2f}",
                f"{TASKS / included['recipe']:.0f}",
            ],
        ],
        goals=[Goal("tasks per s by those of two plain tasks, HTTP apart", ratio, 0.4, is_most=False)],
        facts={"workers": f"1, with {CONCURRENCY} processes", "settings": f"reads_per_minute={READS_PER_MINUTE}"},
        figures={"apart": apart, "included": included},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--one", choices=("apart", "included"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure_apart() if chosen.one == "apart" else measure_included()))
    else:
        main()
