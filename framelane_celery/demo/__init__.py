"""`framelane-celery demo`: a whole pipeline on this machine, with nothing but Python installed.

`project` is a user's project. The rest is the demo around it: a local stand-in for Framelane's API (`testing`), a
real worker (`worker`, `leash`), what is shown (`screen`) and what is counted (`story`).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console

if TYPE_CHECKING:
    from framelane_celery.testing import FramelaneServer, Submission

_NEEDED = ("sqlalchemy", "werkzeug")


def main() -> None:
    """Run the demo in the foreground; files are written to ./demo-output.

    Raises: click.ClickException, in one line, for what is missing or does not work.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"{' and '.join(missing)} missing: pip install 'framelane-celery[demo]'")
    console = Console(highlight=False)
    try:
        with _signals_end_us(), _folder() as folder:
            _run(console, folder)
    except KeyboardInterrupt:
        console.print("\nStopped; the worker and the server are gone.")
        sys.exit(130)


def _run(console: Console, folder: Path) -> None:
    from framelane_celery.testing import FramelaneServer

    def seconds_of(submission: Submission) -> float:
        """How long a job takes: the first render 4 s, its transcript 3 s, the other renders 3 to 10 s."""
        is_first = submission.number == 1
        return 3.0 if submission.kind == "task" else 4.0 if is_first else 1.0 + submission.number

    with FramelaneServer(duration=seconds_of) as server:
        console.print(f"Local server   {server.base_url}, in place of Framelane's API")
        _prepare(folder, server)
        from framelane_celery.demo import project, story  # reads the environment, which is ready only now
        from framelane_celery.demo.worker import DemoWorker, WorkerTrouble

        try:
            with DemoWorker(project.app, folder / "worker.log") as worker:
                with console.status("starting a Celery worker"):
                    worker.start()
                console.print(f"Celery worker  process {worker.pid}, with one process in its pool\n")
                story.run(console, server, worker)
        except WorkerTrouble as error:
            raise click.ClickException(str(error)) from error


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder for messages, results and records."""
    with tempfile.TemporaryDirectory(prefix="framelane-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _prepare(folder: Path, server: FramelaneServer) -> None:
    """Make the folders, and the environment in which `project` is imported, here and in the worker."""
    for name in ("messages", "control", "results"):
        (folder / name).mkdir()
    for name in [name for name in os.environ if name.startswith(("CELERY_", "FRAMELANE_"))]:
        del os.environ[
            name
        ]  # CELERY_BROKER_URL would win over the project's own: the demo must not reach a real broker
    os.environ.update(FRAMELANE_API_KEY=server.api_key, FRAMELANE_BASE_URL=server.base_url, DEMO_FOLDER=str(folder))


@contextmanager
def _signals_end_us() -> Iterator[None]:
    """SIGTERM, and a terminal that is closed, end the demo as Ctrl-C does: through every clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
