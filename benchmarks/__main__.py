"""Run every measurement: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

from benchmarks import imports, latency, room, throughput

for module in (imports, throughput, latency, room):
    module.main()
