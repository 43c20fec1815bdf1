"""A terminal as a reader has it: commands one after the other, one that stays, Ctrl-C, and what is to be seen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROMPT, CTRL_C, REST = "$ ", "^C", "…"

_STAYS = re.compile(r"^(framelane-celery serve|python manage\.py runserver|celery -A \w+ worker|redis-server)\b")
"""Programs that run until they are stopped."""

SEEN_S = 90.0
ENDED_S = 180.0


class Command(NamedTuple):
    """A line after the prompt, and the lines that follow it on the screen."""

    text: str
    shown: tuple[str, ...]


def commands_in(block: str) -> Iterator[Command]:
    """Each command of a console block. A line that only says `^C` is Ctrl-C."""
    said: list[str] = []
    text = None
    for line in block.splitlines():
        if line.startswith(PROMPT) or line == CTRL_C:
            if text is not None:
                yield Command(text, tuple(said))
            text, said = line.removeprefix(PROMPT), []
        else:
            assert text is not None, f"output before any command: {line!r}"
            said.append(line)
    if text is not None:
        yield Command(text, tuple(said))


def is_shown(shown: tuple[str, ...], log: str) -> bool:
    """Whether the lines are there, in their order; `…` stands for anything, on a line of its own for any lines."""
    at = 0
    lines = [line.rstrip() for line in log.splitlines()]
    for wanted in shown:
        if wanted.strip() == REST or not wanted.strip():
            continue
        pattern = re.compile(".*".join(map(re.escape, wanted.strip().split(REST))))
        while at < len(lines) and not pattern.fullmatch(lines[at].strip()):
            at += 1
        if at == len(lines):
            return False
        at += 1
    return True


class Terminal:
    """One terminal. What it exports and where it is, it keeps from command to command."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str], log: Path) -> None:
        self.name, self.folder, self.environ = name, folder, dict(environ)
        self._log, self._state = log, log.with_suffix(".state")
        self._running: subprocess.Popen[bytes] | None = None
        self._from = 0

    def type(self, command: Command) -> None:
        """Type a command, and see what the page shows. Fails with all that was seen instead."""
        if command.text == CTRL_C:
            assert self._running is not None, f"nothing runs in the {self.name} terminal"
            self.stop()
            return
        assert self._running is None, f"{self._running and self._running.args} still runs in the {self.name} terminal"
        self._from = self._log.stat().st_size if self._log.exists() else 0
        if _STAYS.match(command.text):
            self._start(command)
        else:
            self._run(command)

    def seen(self) -> str:
        """What the last command has printed until now."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            return re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode(errors="replace"))

    def see(self, *shown: str, timeout_s: float = SEEN_S) -> None:
        """Wait until lines are there."""
        end = time.monotonic() + timeout_s
        while not is_shown(shown, self.seen()):
            has_ended = self._running is not None and self._running.poll() is not None
            if has_ended or time.monotonic() > end:
                wanted = os.linesep.join(shown)
                raise AssertionError(f"the page shows\n{wanted}\nand the {self.name} terminal\n{self.seen()[-5000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ctrl-C, and the program's end. Nothing, if nothing runs."""
        if self._running is None:
            return
        with suppress(ProcessLookupError):
            self._running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._running.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        self._running.wait()
        self._running = None

    def _start(self, command: Command) -> None:
        self._running = self._popen(f"exec {command.text}")
        self.see(*command.shown)

    def _run(self, command: Command) -> None:
        """To its end; its exports and its folder are kept."""
        keep = f"env -0 > {self._state}.env; pwd > {self._state}.pwd"
        process = self._popen(f"{command.text}\ncode=$?; {keep}; exit $code")
        try:
            code = process.wait(ENDED_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{command.text} did not end:\n{self.seen()[-5000:]}") from None
        assert code == 0, f"{command.text} ended with {code}:\n{self.seen()[-5000:]}"
        pairs = Path(f"{self._state}.env").read_text().split("\0")
        self.environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        self.folder = Path(Path(f"{self._state}.pwd").read_text().strip())
        assert is_shown(command.shown, self.seen()), (
            f"{command.text} shows on the page\n{os.linesep.join(command.shown)}\nand here\n{self.seen()[-5000:]}"
        )

    def _popen(self, script: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", script], cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
