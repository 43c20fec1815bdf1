"""The demo's run: submit, watch, keep the worker busy with something else meanwhile, and count."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from celery import states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult
from rich.console import Console

from framelane_celery.demo import project
from framelane_celery.demo.screen import Bars, Lines, Pipelines, Row
from framelane_celery.demo.worker import DemoWorker, WorkerTrouble
from framelane_celery.testing import FramelaneServer

LIMIT_S: Final = 90.0
PROBE_EVERY_S: Final = 1.0


@dataclass
class Probes:
    """What the worker was doing while jobs were waited for."""

    delays_s: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def take(self, worker: DemoWorker, rows: list[Row]) -> None:
        """Call a plain task, and ask the worker what it is running."""
        called_at = time.time()
        self.delays_s.append(project.tick.delay().get(timeout=10, interval=0.02) - called_at)
        before = {row.result.id for row in rows if row.waits_for_its_job}
        active = worker.active_task_ids()
        for row in rows:
            row.read()
        still = {row.result.id for row in rows if row.waits_for_its_job}
        if active is not None and before & still:
            self.waiting.append(len(before & still))
            self.held.append(len(before & still & set(active)))


def run(console: Console, server: FramelaneServer, worker: DemoWorker) -> None:
    """Submit both pipelines, show them until they are over, and say what happened.

    Raises: WorkerTrouble.
    """
    started = time.monotonic()
    started_at = time.time()
    pipelines = pipelines_of(
        project.render_and_transcribe("sneaker").apply_async(), project.render_all_sizes("sneaker").apply_async()
    )
    probes = watch(console, worker, pipelines)
    took_s = time.monotonic() - started
    tell(console, server, probes, took_s, files_since(started_at))


def pipelines_of(chain: AsyncResult, chord: AsyncResult) -> Pipelines:
    """The rows of the screen: each task of both pipelines."""
    transcribe, render = chain.parent, chain.parent.parent
    sizes = chord.parent.results
    return [
        (
            "A chain: render, then transcribe, then publish",
            [
                Row("render", render, "submitting"),
                Row("transcribe", transcribe, "waits for the render"),
                Row("publish", chain, "waits for the transcript"),
            ],
        ),
        (
            f"A chord: {len(sizes)} renders, then a catalogue of them",
            [
                *(Row(f"render {size}", one, "submitting") for size, one in zip(project.SIZES, sizes, strict=True)),
                Row("catalogue", chord, "waits for all of them"),
            ],
        ),
    ]


def watch(console: Console, worker: DemoWorker, pipelines: Pipelines) -> Probes:
    """Show the tasks until all are over.

    Raises: WorkerTrouble.
    """
    probes, rows = Probes(), [row for _, members in pipelines for row in members]
    end = time.monotonic() + LIMIT_S
    probe_at = time.monotonic() + PROBE_EVERY_S
    with Bars(console, pipelines) if console.is_terminal else Lines(console, pipelines) as screen:
        while True:
            for row in rows:
                row.read()
            screen.show()
            if all(row.state == states.SUCCESS for row in rows):
                return probes
            worker.check()
            _refuse_failures(rows, worker)
            if time.monotonic() > end:
                raise WorkerTrouble(f"not finished within {LIMIT_S:.0f} s; the worker's log:\n{worker.last_lines()}")
            if time.monotonic() > probe_at and any(row.waits_for_its_job for row in rows):
                probe_at = time.monotonic() + PROBE_EVERY_S
                try:
                    probes.take(worker, rows)
                except ResultTimeout:
                    worker.check()
                    raise WorkerTrouble(
                        f"the worker does nothing else meanwhile; its log:\n{worker.last_lines()}"
                    ) from None
            time.sleep(0.1)


def _refuse_failures(rows: list[Row], worker: DemoWorker) -> None:
    for row in rows:
        if row.is_over and row.state != states.SUCCESS:
            raise WorkerTrouble(f"{row.label}: {row.says}; the worker's log:\n{worker.last_lines()}")


def tell(console: Console, server: FramelaneServer, probes: Probes, took_s: float, files: list[Path]) -> None:
    """What happened, in a few lines."""
    counts, paid_twice = server.ledger.counts(), sum(len(jobs) > 1 for jobs in server.ledger.jobs_per_task().values())
    delays_ms = [delay_s * 1000 for delay_s in probes.delays_s] or [0.0]
    lines = {
        "Jobs": f"{counts['jobs']} on the server, by {counts['posts']} POSTs; paid twice: {paid_twice}",
        "Reads": f"{counts['reads']}, all by the watcher, a thread of the worker",
        "Slots held": f"{max(probes.held, default=0)} of 1, while up to {max(probes.waiting, default=0)} jobs"
        f" were waited for (asked {len(probes.held)} times)",
        "Meanwhile": f"{len(probes.delays_s)} plain tasks on the same worker began after"
        f" {median(delays_ms):.0f} ms (worst {max(delays_ms):.0f})",
        "Files": f"{len(files)} in {_shown(project.OUTPUT)}/: {_names(files)}",
    }
    console.print(f"[bold]What happened[/bold], in {took_s:.1f} s")
    for name, said in lines.items():
        console.print(f"  {name:<12}{said}", soft_wrap=True)
    console.print("\nThe project that ran: framelane_celery/demo/project.py. Read on in README.md.")


def files_since(instant: float) -> list[Path]:
    """What was written to the output folder."""
    found = [path for path in project.OUTPUT.glob("*") if path.stat().st_mtime >= instant - 1]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _names(files: list[Path]) -> str:
    first = ", ".join(path.name for path in files[:2])
    return f"{first}, …" if len(files) > 2 else first


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
