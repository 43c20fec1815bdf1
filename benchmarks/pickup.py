"""A thousand jobs of half a minute in flight: from a job's end on the server to the start of the chain's next task.

    python -m benchmarks.pickup [--webhooks] [--jobs N] [--brokers redis,rabbitmq]

Beside it, on the same broker, with a server and two workers of its own: the ``self.retry(countdown=2)`` recipe.
``--webhooks``: the server tells of each end to a receiver, a process of its own, that hands it to
`framelane_celery.webhooks.receive`. Server and workers share this host, and so its clock and its processors.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any

from celery import chain

from benchmarks.bench import BROKERS, ROOT, Goal, alone, percentile, report, running
from framelane_celery.testing import Entry, FramelaneServer

SECONDS = (20.0, 40.0)
WORKERS, CONCURRENCY, COUNTDOWN_S = 2, 1, 2
RENDERS_PER_MINUTE, READS_PER_MINUTE = 1_000_000, 6000
SECRET = "whsec_benchmark"  # noqa: S105 - of a server of our own
HOW = {"ours": "framelane_celery", "recipe": f"self.retry(countdown={COUNTDOWN_S})"}
HEAD = ("broker", "how", "p50 s", "p99 s", "worst s", "its read, p50 s", "p99 s", "reads per job", "all jobs, s")


def delays(answers: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds from each job's end, as the server tells it, to the start of the next task's body."""
    return [answer["started"] - datetime.fromisoformat(_explicit(answer["ended"])).timestamp() for answer in answers]


def _explicit(instant: str) -> str:
    return instant.replace("Z", "+00:00")  # which Python 3.10 does not read


def reading_delays(answers: Sequence[dict[str, Any]], reads: Iterable[Entry]) -> list[float]:
    """The part of it until the first single read that sees the end: the watcher's; the rest is the workers'."""
    ended = {answer["id"]: started - delay for answer, delay, started in _timed(answers)}
    found: dict[str, float] = {}
    for entry in reads:
        if entry.job_id in ended and entry.at + (entry.wait_s or 0) >= ended[entry.job_id]:
            found.setdefault(entry.job_id, max(0.0, entry.at - ended[entry.job_id]))
    return list(found.values())


def _timed(answers: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float, float]]:
    for answer, delay in zip(answers, delays(answers), strict=True):
        yield answer, delay, answer["started"]


def figures(answers: Sequence[dict[str, Any]], reads: Sequence[Entry]) -> dict[str, float]:
    """What one run comes to."""
    found, read = delays(answers), reading_delays(answers, reads) or [0.0]
    return {
        "p50_s": statistics.median(found),
        "p99_s": percentile(found, 99),
        "worst_s": max(found),
        "read_p50_s": statistics.median(read),
        "read_p99_s": percentile(read, 99),
        "reads_per_job": len(reads) / len(answers),
        "all_s": max(answer["started"] for answer in answers),
    }


@contextmanager
def _receiver(listening: socket.socket) -> Iterator[None]:
    """The web server that a user would have, with the one call in it."""
    command = [sys.executable, "-m", "benchmarks.receiver", str(listening.fileno())]
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listening.fileno()])
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def measure(broker: str, how: str, jobs: int, *, webhooks: bool) -> dict[str, Any]:
    """One run: all jobs are called at once."""
    chance = random.Random(7)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as listening,
        FramelaneServer(
            duration=lambda submission: chance.uniform(*SECONDS),
            renders_per_minute=None,
            tasks_per_minute=None,
            webhook_url=f"http://127.0.0.1:{listening.getsockname()[1]}/" if webhooks else None,
            webhook_secret=SECRET,
        ) as server,
        running(
            server.base_url,
            broker=broker,
            workers=WORKERS,
            concurrency=CONCURRENCY,
            renders_per_minute=RENDERS_PER_MINUTE,
            reads_per_minute=READS_PER_MINUTE,
            webhook_secrets=[SECRET],
        ) as run,
        _receiver(listening) if webhooks else nullcontext(),
    ):
        module = run.module
        first = module.render.s(module.COMPOSITION) if how == "ours" else module.recipe.s()
        called_at = datetime.now().timestamp()  # noqa: DTZ005 - an instant, not a date
        results = [chain(first, module.next_task.s()).apply_async() for _ in range(jobs)]
        answers = [result.get(timeout=900) for result in results]
        told = figures(answers, server.ledger.reads())
        told["all_s"] -= called_at
        return {**told, "delivered": len(server.delivered), "jobs": server.ledger.counts()["jobs"]}


def row(broker: str, how: str, told: dict[str, Any]) -> list[Any]:
    shown = (f"{told[name]:.3f}" for name in ("p50_s", "p99_s", "worst_s", "read_p50_s", "read_p99_s"))
    return [broker, HOW[how], *shown, f"{told['reads_per_job']:.1f}", f"{told['all_s']:.0f}"]


def main(brokers: Sequence[str], jobs: int, *, webhooks: bool) -> None:
    told = {}
    options = ["--jobs", str(jobs), *(["--webhooks"] if webhooks else [])]
    for broker in brokers:
        told[broker, "ours"] = alone("benchmarks.pickup", *options, "--one", broker, "ours")
        told[broker, "recipe"] = alone("benchmarks.pickup", "--jobs", str(jobs), "--one", broker, "recipe")
    rows = [row(broker, how, one) for (broker, how), one in told.items()]
    for broker in brokers:
        ratios = (told[broker, "recipe"][name] / told[broker, "ours"][name] for name in ("p50_s", "p99_s", "worst_s"))
        rows.append([broker, "ratio", *(f"{ratio:.0f}" for ratio in ratios), *[""] * 4])
    bounds = {"p50_s": 0.1} if webhooks else {"p50_s": 0.5, "p99_s": 2.0}
    report(
        "pickup-webhooks" if webhooks else "pickup",
        f"A job's end to the start of the next task: {jobs:,} jobs of {SECONDS[0]:.0f} to {SECONDS[1]:.0f} s at once, "
        + ("with webhooks" if webhooks else "no webhooks"),
        HEAD,
        rows,
        goals=[
            Goal(f"{broker}, {name.removesuffix('_s')}, s", told[broker, "ours"][name], bound)
            for broker in brokers
            for name, bound in bounds.items()
        ],
        facts={
            "workers": f"{WORKERS}, with {CONCURRENCY} process each",
            "settings": f"renders_per_minute={RENDERS_PER_MINUTE}, reads_per_minute={READS_PER_MINUTE}; room on Redis",
            "recipe": "without webhooks, of which it has no use" if webhooks else "same broker, server, workers",
            "clock": "server and workers share this host",
        },
        figures={f"{broker} {how}": one for (broker, how), one in told.items()},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pickup")
    parser.add_argument("--webhooks", action="store_true")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--brokers", default=",".join(BROKERS))
    parser.add_argument("--one", nargs=2, metavar=("BROKER", "HOW"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(*chosen.one, chosen.jobs, webhooks=chosen.webhooks)))
    else:
        main(chosen.brokers.split(","), chosen.jobs, webhooks=chosen.webhooks)
