"""What ``import framelane_celery`` adds to ``import celery``.

python -m benchmarks.imports
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.bench import report

PROBE = """
import time
from celery import Celery, Task, shared_task
started = time.perf_counter()
import framelane_celery
print(time.perf_counter() - started)
"""


def added_s(times: int = 7) -> float:
    """Median seconds, each in a new process."""
    spans = [
        float(subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout)
        for _ in range(times)
    ]
    return statistics.median(spans)


def main() -> None:
    report("imports", "import framelane_celery, after Celery", ["added, ms"], [[f"{added_s() * 1000:.0f}"]])


if __name__ == "__main__":
    main()
