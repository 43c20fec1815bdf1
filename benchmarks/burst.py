"""A burst of submissions from one process: 5,000 ``delay()`` of renders, beside as many of a plain task.

    python -m benchmarks.burst [--calls N] [--brokers redis,rabbitmq] [--profile]

No worker runs, so that nothing else is measured. Both take turns, short ones: what slows the machine for a while slows
both. The room is on Redis. ``--profile`` says where the time of our calls goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.bench import BROKERS, Goal, alone, report, running

TURNS = 100
HEAD = ("broker", "what", "calls", "calls per s", "median ms", "ratio of rates", "ratio of medians")


def spans(call: Callable[[], Any], count: int) -> list[float]:
    """Seconds of each call."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def measure(broker: str, calls: int, profile: bool) -> dict[str, list[float]]:
    """Seconds of each call, by kind of task."""
    with running("http://127.0.0.1:9", broker=broker, workers=0) as run:
        module = run.module
        kinds: dict[str, Callable[[], Any]] = {
            "plain": lambda: module.plain.delay(module.COMPOSITION),
            "ours": lambda: module.render.delay(module.COMPOSITION),
        }
        for call in kinds.values():
            spans(call, 50)  # connections, scripts, models
        told: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(TURNS):
            for kind, call in kinds.items():
                told[kind] += spans(call, calls // TURNS)
        if profile:
            profiler = cProfile.Profile()
            profiler.runcall(spans, kinds["ours"], 1000)
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats("(?!.*<built-in)", 60)
        return told


def row(broker: str, what: str, plain: Sequence[float], spans: Sequence[float]) -> list[Any]:
    return [
        broker,
        what,
        f"{len(spans):,}",
        f"{len(spans) / sum(spans):,.0f}",
        f"{statistics.median(spans) * 1e3:.2f}",
        f"{sum(plain) / sum(spans):.3f}",
        f"{statistics.median(plain) / statistics.median(spans):.3f}",
    ]


def main(brokers: Sequence[str], calls: int, profile: bool) -> None:
    rows, goals, figures = [], [], {}
    for broker in brokers:
        options = ("--calls", str(calls), *(["--profile"] if profile else []))
        told = alone("benchmarks.burst", *options, "--one", broker)
        rows += [
            row(broker, "plain.delay(composition)", told["plain"], told["plain"]),
            row(broker, "framelane.render.delay(composition)", told["plain"], told["ours"]),
        ]
        goals.append(Goal(f"{broker}, rate by plain rate", sum(told["plain"]) / sum(told["ours"]), 0.5, is_most=False))
        figures |= {f"{broker} {kind}_s": sum(spans) for kind, spans in told.items()}
    report(
        "burst",
        "A burst of delay() from one process, beside a plain task's with the same argument",
        HEAD,
        rows,
        goals=goals,
        facts={"room": "on Redis", "turns": f"{TURNS}, plain and ours one after the other"},
        figures=figures,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.burst")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--brokers", default=",".join(BROKERS))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--one", metavar="BROKER", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.calls, chosen.profile)))
    else:
        main(chosen.brokers.split(","), chosen.calls, chosen.profile)
