"""A burst of renders against the limit per minute, with two workers: how much of the rate is used, and what it costs.

    python -m benchmarks.pacing [--renders N]

Beside it, at the same time, with a server and two workers of its own: a plain task with ``rate_limit="120/m"`` that
retries on 429. The minutes are whole ones, so 600 renders take about four and a half of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.bench import project, report, wait_until
from framelane_celery.testing import FramelaneServer

PER_MINUTE, WORKERS, CONCURRENCY = 120, 2, 2
HOW = {"ours": "framelane_celery", "recipe": 'rate_limit="120/m", self.retry'}
PING_EVERY_S = 1.0


def measure(how: str, renders: int) -> list[str]:
    """One row of the table."""
    with (
        FramelaneServer(renders_per_minute=PER_MINUTE) as server,
        project(server.base_url, concurrency=CONCURRENCY, workers=WORKERS, renders_per_minute=PER_MINUTE) as module,
    ):
        task = module.render if how == "ours" else module.paced_recipe
        for number in range(renders):
            task.delay({**module.COMPOSITION, "metadata": {"number": str(number)}})
        pings: list[tuple[float, Any]] = []

        def are_accepted() -> bool:
            if not pings or time.time() - pings[-1][0] >= PING_EVERY_S:
                pings.append((time.time(), module.now.delay()))
            return server.ledger.counts()["jobs"] >= renders

        wait_until(are_accepted, 60 * (2 + 3 * renders / PER_MINUTE))
        latencies = sorted(result.get(timeout=120) - called_at for called_at, result in pings)
        return [*_pace(server, renders), *_milliseconds(latencies)]


def _pace(server: FramelaneServer, renders: int) -> list[str]:
    """The rate used: how long the jobs of the whole minutes should take, by how long they took. Refused POSTs per job.
    The largest distance of a job's place in the order of acceptance from its place in the order of calls."""
    posts = server.ledger.posts()
    accepted = [post for post in posts if post.is_new_job]
    minutes = (renders - 1) // PER_MINUTE
    took_s = accepted[minutes * PER_MINUTE].at - accepted[0].at
    order = [int(post.json()["metadata"]["number"]) for post in accepted]
    displaced = max(abs(number - place) for place, number in enumerate(order))
    refused = sum(post.status == 429 for post in posts)
    return [f"{60 * minutes / took_s:.3f}", f"{refused / renders:.2f}", str(displaced)]


def _milliseconds(latencies: list[float]) -> list[str]:
    return [f"{statistics.median(latencies) * 1000:.0f}", f"{latencies[int(len(latencies) * 0.95) - 1] * 1000:.0f}"]


def main(renders: int = 600) -> None:
    command = [sys.executable, "-m", "benchmarks.pacing", "--renders", str(renders), "--how"]
    at_once = [subprocess.Popen([*command, how], stdout=subprocess.PIPE, text=True) for how in HOW]
    rows = [[name, *json.loads(one.communicate()[0])] for name, one in zip(HOW.values(), at_once, strict=True)]
    report(
        "pacing",
        f"{renders} renders at once against {PER_MINUTE} a minute, {WORKERS} workers; a plain task each second",
        ["how", "rate used", "refused POSTs per job", "displaced", "plain task, median ms", "95 % ms"],
        rows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--renders", type=int, default=600)
    parser.add_argument("--how", choices=HOW)
    arguments = parser.parse_args()
    if arguments.how:
        print(json.dumps(measure(arguments.how, arguments.renders)))
    else:
        main(arguments.renders)
