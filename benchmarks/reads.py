"""What the looks cost: reads of the API per job, beyond the one that reads its end.

    python -m benchmarks.reads [--only simulated|real] [--jobs N]

*Simulated*: the planner alone (`framelane_celery.watching.plan`), in virtual time, against a list API without a socket
(`virtual.py`): 1,000 and 10,000 jobs in flight, always. *Real*: 1,000 jobs at once, in real time, counted by the local
server. Beside them what ``self.retry(countdown=2)`` costs: as many reads as the job has times two seconds, or in the
real run as many as its workers come to.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.bench import Goal, alone, percentile, report, running
from benchmarks.virtual import Simulation, Told
from framelane_celery.testing import FramelaneServer

SECONDS = (120.0, 240.0)
"""Of simulated jobs."""
REAL_SECONDS = (120.0, 180.0)
IN_FLIGHT = {1_000: 0.5, 10_000: 0.15}
"""What is to be reached, by jobs in flight."""
WARM_S, MEASURED_S = 600.0, 600.0
READS_PER_MINUTE, LONG_POLLS = 6000, 40
WORKERS = 2
HEAD = ("how measured", "in flight", "how", "reads per job beyond the end's", "end to its read, p50 s", "p99 s")


def simulate(in_flight: int, reads_per_minute: int = READS_PER_MINUTE) -> Told:
    """The planner alone, once its steady state is there."""
    plan = importlib.import_module("framelane_celery.watching.plan").Plan(reads_per_minute, LONG_POLLS)
    chance = random.Random(7)
    simulation = Simulation(plan, in_flight, lambda: chance.uniform(*SECONDS), chance=random.Random(8))
    return simulation.run(WARM_S, MEASURED_S)


def simulated_rows(told: Told) -> list[list[str]]:
    way = ["virtual time", f"{told.in_flight:,}"]
    delays = (f"{percentile(told.delays_s, percent):.1f}" for percent in (50, 99))
    return [
        [*way, "framelane_celery", f"{told.beyond:.3f}", *delays],
        [*way, "every 2 s", f"{told.recipe_beyond:.1f}", "1.0", "2.0"],
        [*way, "ratio", f"{told.recipe_beyond / told.beyond:.0f}", "", ""],
    ]


def measure(how: str, jobs: int) -> dict[str, float]:
    """Reads of the API per job beyond one, pages of lists too, of jobs that are called at once."""
    chance = random.Random(7)
    with (
        FramelaneServer(
            duration=lambda submission: chance.uniform(*REAL_SECONDS), renders_per_minute=None, tasks_per_minute=None
        ) as server,
        running(server.base_url, workers=WORKERS, reads_per_minute=READS_PER_MINUTE) as run,
    ):
        task = run.module.render if how == "ours" else run.module.recipe
        arguments = (run.module.COMPOSITION,) if how == "ours" else ()
        results = [task.delay(*arguments) for _ in range(jobs)]
        for result in results:
            result.get(timeout=1800)
        reads = server.ledger.reads()
        pages = sum(entry.path == "/v1/renders" for entry in reads)
        return {"beyond": (len(reads) - jobs) / jobs, "pages": pages, "reads": len(reads)}


def main(only: str | None, jobs: int) -> None:
    rows: list[Sequence[Any]] = []
    goals, figures, took = [], {}, {}
    for in_flight, bound in IN_FLIGHT.items() if only != "real" else ():
        started = time.monotonic()
        told = simulate(in_flight)
        took[in_flight] = f"{time.monotonic() - started:.0f} s"
        rows += simulated_rows(told)
        goals.append(Goal(f"virtual time, {in_flight:,} in flight", told.beyond, bound))
        figures[f"virtual {in_flight}"] = {
            name: getattr(told, name) for name in ("reads", "pages", "ends", "beyond", "recipe_beyond")
        }
    if only != "simulated":
        options = ("--jobs", str(jobs), "--one")
        ours, theirs = (alone("benchmarks.reads", *options, how) for how in ("ours", "recipe"))
        way = ["real time", f"{jobs:,} at once"]
        rows += [
            [*way, "framelane_celery", f"{ours['beyond']:.3f}", "", ""],
            [*way, "self.retry(countdown=2)", f"{theirs['beyond']:.1f}", "", ""],
            [*way, "ratio", f"{theirs['beyond'] / ours['beyond']:.0f}" if ours["beyond"] else "", "", ""],
        ]
        goals.append(Goal(f"real time, {jobs:,} at once", ours["beyond"], 0.5))
        figures |= {"real ours": ours, "real recipe": theirs}
    low, high = SECONDS
    real_low, real_high = REAL_SECONDS
    report(
        "reads",
        f"Reads per job beyond the one that reads its end (jobs of {low:.0f} to {high:.0f} s; "
        f"in real time {real_low:.0f} to {real_high:.0f} s)",
        HEAD,
        rows,
        goals=goals,
        facts={
            "settings": f"reads_per_minute={READS_PER_MINUTE}, long_polls={LONG_POLLS}; pages of 100 jobs",
            "virtual time": f"{MEASURED_S:.0f} s after {WARM_S:.0f} s; the planner alone, no socket; took {took}",
        },
        figures=figures,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads")
    parser.add_argument("--only", choices=("simulated", "real"))
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--one", choices=("ours", "recipe"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.jobs)))
    else:
        main(chosen.only, chosen.jobs)
