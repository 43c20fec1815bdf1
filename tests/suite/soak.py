"""(l) A soak: the worker's main process, in which the watcher lives, stays as it is while jobs come and go."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.suite.crew import Crew
from tests.suite.frame import Fault, Form, Round
from tests.suite.ground import Ground, lasts, make_ground
from tests.suite.ledger import Ledger


class Soak(NamedTuple):
    length_s: float
    jobs_per_s: float
    sample_every_s: float
    rss_growth_most: float
    """Of the last quarter's median over the second's. A worker that has just started still grows."""
    more_most: int
    """So many threads or sockets more are no leak: there is one of each for every job that is looked at now."""


SOAKS: dict[Form, Soak] = {"full": Soak(1200, 2, 2, 0.03, 2), "short": Soak(10, 3, 0.25, 0.15, 10)}


class Sample(NamedTuple):
    rss_mb: float
    threads: int
    sockets: int


def sample(pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    sockets = 0
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets += os.readlink(handle).startswith("socket:")
    return Sample(_number("VmRSS", status) / 1024, _number("Threads", status), sockets)


def _number(name: str, status: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1])


def _soaked(soak: Soak, transport: str, folder: Path) -> Ledger:
    with make_ground(transport, folder) as ground, Crew(ground.stack, 1, "-c", "2") as crew:
        (kept,) = crew.workers
        pid, samples, called = kept.pid, [], 0
        started = time.monotonic()
        while (gone_s := time.monotonic() - started) < soak.length_s:
            if called < gone_s * soak.jobs_per_s:
                ground.call(lasts(0.5 + called % 5), is_chain=called % 10 == 0)
                called += 1
            if len(samples) < gone_s / soak.sample_every_s:
                samples.append(sample(pid))
            time.sleep(0.05)
        _judge(ground, samples, soak)
        ground.until_over()
        ground.ledger.check(kept.pid == pid and crew.ended_by_themselves == 0, "the worker ended")
        return ground.count()


def _judge(ground: Ground, samples: list[Sample], soak: Soak) -> None:
    quarter = len(samples) // 4
    early, late = (
        Sample(*(median(values) for values in zip(*part, strict=True)))
        for part in (samples[quarter : 2 * quarter], samples[3 * quarter :])
    )
    for name, before, after in zip(Sample._fields, early, late, strict=True):
        ground.ledger.figures |= {f"{name}_q2": round(before, 1), f"{name}_q4": round(after, 1)}
        most = before * (1 + soak.rss_growth_most) if name == "rss_mb" else before + soak.more_most
        ground.ledger.check(after <= most, f"{name} grew from {before:.1f} to {after:.1f}")


def _rounds(form: Form) -> Mapping[str, Round]:
    return {"soak": partial(_soaked, SOAKS[form])}


SOAK = Fault("20 min of work: memory, threads and sockets stay flat", _rounds)
