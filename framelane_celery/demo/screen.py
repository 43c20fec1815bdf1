"""What the demo shows while tasks wait: a bar for each on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from celery import states
from celery.result import AsyncResult
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from framelane_celery.monitoring import PROGRESS


@dataclass
class Row:
    """One Celery task. All that is shown of it comes from its result: the state, and the meta of PROGRESS."""

    label: str
    result: AsyncResult
    before: str
    """What is said while the task has not begun."""
    state: str = states.PENDING
    percent: int = 0
    says: str = ""

    def read(self) -> bool:
        """Read the result; True if there is news."""
        seen = (self.state, self.percent, self.says)
        if self.state not in states.READY_STATES:
            meta = self.result.backend.get_task_meta(self.result.id)
            if meta["status"] != states.PENDING or not self.says:  # a file that is just being written reads as PENDING
                self.state = meta["status"]
                self.percent, self.says = self._shown(meta["result"])
        return seen != (self.state, self.percent, self.says)

    @property
    def is_over(self) -> bool:
        return self.state in states.READY_STATES

    @property
    def waits_for_its_job(self) -> bool:
        return self.state == PROGRESS

    def _shown(self, info: Any) -> tuple[int, str]:
        if self.state == states.SUCCESS:
            return 100, "done"
        if self.state == PROGRESS and isinstance(info, dict):
            return info["percent"], info["description"]
        return (0, self.before) if self.state == states.PENDING else (self.percent, f"{self.state}: {info}")


Pipelines = Sequence[tuple[str, Sequence[Row]]]


class Bars:
    """For a terminal, 80 columns wide or more."""

    def __init__(self, console: Console, pipelines: Pipelines) -> None:
        self._bars: list[tuple[Row, Progress, TaskID]] = []
        parts: list[RenderableType] = []
        for title, rows in pipelines:
            progress = Progress(
                TextColumn("  {task.description}", table_column=Column(width=20, no_wrap=True)),
                BarColumn(bar_width=22),
                TextColumn("{task.fields[percent]}", table_column=Column(width=4, justify="right")),
                TextColumn("{task.fields[says]}", table_column=Column(no_wrap=True), markup=False),
                console=console,
            )
            parts += [Text(title, style="bold"), progress, Text()]
            for row in rows:
                self._bars.append((row, progress, progress.add_task(row.label, total=100, percent="", says="")))
        self._live = Live(Group(*parts), console=console, refresh_per_second=10)

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self) -> None:
        """Show the rows as they were last read."""
        for row, progress, task_id in self._bars:
            percent = "" if row.state == states.PENDING else f"{row.percent}%"
            progress.update(task_id, completed=row.percent, percent=percent, says=row.says)


class Lines:
    """For a file, a pipe, a log of a build: a line whenever a task's state changes."""

    def __init__(self, console: Console, pipelines: Pipelines) -> None:
        self._console = console
        self._rows = [(row.label, row) for _, rows in pipelines for row in rows]
        self._said: dict[str, str] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self) -> None:
        """Print what is new."""
        for name, row in self._rows:
            said = row.says.partition(":")[0]
            if said != self._said.get(name) and row.state != states.PENDING:
                self._said[name] = said
                self._console.print(
                    f"{time.monotonic() - self._started:6.1f} s  {name:<24} {row.says}", highlight=False
                )
