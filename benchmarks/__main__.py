"""Run every measurement: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

from benchmarks import imports, latency, pacing, room, throughput

for module in (imports, throughput, latency, pacing, room):
    module.main()
