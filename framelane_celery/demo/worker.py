"""The demo's worker: a real `celery worker` with one pool process, as a child of the demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from celery import Celery

NODE: Final = "worker@demo"
START_S: Final = 30.0

COMMAND: Final = (
    sys.executable, "-m", "celery", "-A", "framelane_celery.demo.project", "worker",
    "--concurrency", "1", "--hostname", NODE, "--loglevel", "INFO",
    "--without-mingle", "--without-gossip",  # they greet other workers, and there are none
    "--include", "framelane_celery.demo.leash",
)  # fmt: skip


class WorkerTrouble(Exception):
    """The worker does not start, or has ended by itself."""


class DemoWorker:
    """Ended on exit, with its pool, whatever happened."""

    def __init__(self, app: Celery, log_file: Path) -> None:
        self._app, self._log_file = app, log_file
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DemoWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it in a process group of its own, and wait until it is ready.

        Raises: WorkerTrouble.
        """
        env = {**os.environ, "TMPDIR": str(self._log_file.parent)}  # what its pool leaves there goes with the folder
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                COMMAND, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env
            )
        end = time.monotonic() + START_S
        while f"{NODE} ready." not in self._log_file.read_text(errors="replace"):
            self.check()
            if time.monotonic() > end:
                raise WorkerTrouble(f"the worker was not ready within {START_S:.0f} s; its log:\n{self.last_lines()}")
            time.sleep(0.05)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def check(self) -> None:
        """Raises: WorkerTrouble, if the worker has ended."""
        if self._process is None or self._process.poll() is not None:
            raise WorkerTrouble(f"the worker has ended by itself; its log:\n{self.last_lines()}")

    def active_task_ids(self) -> list[str] | None:
        """What its pool is running now, by `inspect().active()`; None: no answer."""
        answer = self._app.control.inspect(destination=[NODE], timeout=1.0).active()
        return None if not answer else [task["id"] for task in answer.get(NODE, [])]

    def last_lines(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines() if self._log_file.exists() else []
        return "\n".join(f"    {line}" for line in lines[-12:])

    def stop(self) -> None:
        """End its whole process group at once: nothing in it is worth the seconds of a warm shutdown."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
