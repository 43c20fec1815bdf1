"""The processes that `run.py` starts: each under a leash, with its log in a file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent.absolute()
START_S = 60.0
STOP_S = 15.0


class Trouble(Exception):
    """Something does not start, or has ended by itself: what, and the end of its log."""


class Part:
    """One process, ended on exit with all that it has started."""

    def __init__(self, name: str, folder: Path, *command: str) -> None:
        self.name, self._command = name, command
        self._log_file = folder / f"{name.lower()}.log"
        self._logged, self._url = "", ""
        self._process: subprocess.Popen[bytes] | None = None

    def ready_when_logged(self, text: str) -> Part:
        self._logged = text
        return self

    def ready_at(self, url: str) -> Part:
        self._url = url
        return self

    def __enter__(self) -> Part:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "leash.py"), *self._command],
                cwd=HERE, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        return self

    def let_go(self) -> None:
        """Have it end: the leash is loose. A second call does nothing."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def __exit__(self, *_: object) -> None:
        self.let_go()
        assert self._process is not None
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait_until_ready(self, told: threading.Event) -> None:
        """Wait until it answers, or until we are told to stop. Raises: Trouble."""
        end = time.monotonic() + START_S
        while not self._is_ready() and not told.wait(0.1):
            self.check()
            if time.monotonic() > end:
                raise Trouble(f"the {self.name} did not start within {START_S:.0f} s:\n{self._last_lines()}")

    def check(self) -> None:
        """Raises: Trouble, if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise Trouble(f"the {self.name} has ended by itself:\n{self._last_lines()}")

    def _is_ready(self) -> bool:
        if self._logged:
            return self._logged in self._log_file.read_text(errors="replace")
        try:
            with urllib.request.urlopen(self._url, timeout=5) as answer:  # noqa: S310 - our own
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _last_lines(self) -> str:
        return "\n".join(f"    {line}" for line in self._log_file.read_text(errors="replace").splitlines()[-15:])


def free_port(wanted: int | None, first: int, option: str) -> int:
    """The port that was asked for, else the first free one. Raises: Trouble, if the wanted one is taken."""
    if wanted is not None:
        if not wanted or _is_free(wanted):
            return wanted or _any_port()
        raise Trouble(f"port {wanted} is taken by another program: choose another one with {option}")
    for port in range(first, first + 50):
        if _is_free(port):
            return port
        print(f"port {port} is taken by another program; trying the next one", flush=True)
    raise Trouble(f"the ports {first} to {first + 49} are all taken: choose one with {option}")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run(script: str, *words: str, **environ: str) -> None:
    """Run a script of this folder to its end. Raises: Trouble."""
    command = [sys.executable, script, *words]
    done = subprocess.run(command, cwd=HERE, env={**os.environ, **environ}, capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"{script} has failed:\n{done.stderr[-2000:]}")
