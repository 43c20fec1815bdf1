"""Run a command, and end it with all that it started when whoever started us is gone: `leash.py COMMAND …`.

The starter holds the other end of our standard input, so even its SIGKILL is noticed. It starts us in a session of our
own: the command's process group is ours, and nobody else's.
"""

import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE_S = 2.0  # nothing here is worth more: what a killed worker was doing is found in the room


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for the group: see below
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_the_starter, args=(child,), daemon=True).start()
    return child.wait()


def end_with_the_starter(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):
        pass
    child.terminate()
    end = time.monotonic() + PATIENCE_S
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
