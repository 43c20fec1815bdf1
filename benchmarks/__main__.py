"""Run every measurement: ``python -m benchmarks``, or ``make bench``; ``python -m benchmarks imports burst`` some.

Each in a process of its own: Celery keeps what it has read of its configuration.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.bench import ROOT

ALL = {
    "imports": "imports",
    "throughput": "throughput",
    "burst": "burst",
    "latency": "latency",
    "pickup": "pickup",
    "pickup-webhooks": "pickup --webhooks",
    "reads": "reads",
    "pacing": "pacing",
    "room": "room",
    "memory": "memory",
}


def main(names: list[str]) -> int:
    """One that fails does not stop the others. How many failed."""
    failed = 0
    for name in names or ALL:
        module, *options = ALL[name].split()
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *options], cwd=ROOT).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
