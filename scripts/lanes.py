"""Run lanes of commands side by side, the commands of a lane one after the other: ``lanes.py "A ;; B" "C"``.

What a command prints is shown when it has ended. The exit code is 0 if all of them have passed; a lane goes on after a
failure, so that one run tells of all.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
import time


class Lane(threading.Thread):
    """One lane. ``passed`` is None until it has ended."""

    printing = threading.Lock()

    def __init__(self, commands: list[str]) -> None:
        super().__init__(daemon=True)
        self.commands = commands
        self.passed: bool | None = None
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        passed = True
        for command in self.commands:
            started = time.monotonic()
            self.process = subprocess.Popen(
                shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                text=True, errors="replace",
            )  # fmt: skip
            printed, _ = self.process.communicate()
            with self.printing:
                print(f"== {command}\n{printed}== it took {time.monotonic() - started:.0f} s", flush=True)
            passed = passed and self.process.returncode == 0
        self.passed = passed


def main(texts: list[str]) -> int:
    lanes = [Lane([command.strip() for command in text.split(";;")]) for text in texts]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for lane in lanes:
            lane.start()
        for lane in lanes:
            while lane.is_alive():
                lane.join(1.0)  # so that a signal is heard
    finally:
        for lane in lanes:
            if lane.process is not None and lane.process.poll() is None:
                lane.process.terminate()
                lane.process.wait(60)
    return 0 if all(lane.passed for lane in lanes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
