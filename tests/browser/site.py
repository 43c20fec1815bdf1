"""`run.py` of the example site as a process of its own, and what it prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RUN = ROOT / "examples" / "django_site" / "run.py"


@dataclass
class Site:
    process: subprocess.Popen[str]
    folder: Path
    url: str
    password: str
    api: str
    flower: str | None

    def ledger(self) -> dict[str, Any]:
        """What has crossed the local server."""
        with urllib.request.urlopen(f"{self.api}/_ledger", timeout=10) as answer:
            return dict(json.load(answer))

    def jobs_of_video(self, video: str) -> list[str]:
        """The jobs that were made, and paid for, for one row of the site."""
        posts = [entry for entry in self.ledger()["entries"] if entry["is_new_job"]]
        return [one["job_id"] for one in posts if json.loads(one["body"])["metadata"].get("video") == video]

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))


@contextmanager
def started_site(folder: Path, *options: str) -> Iterator[Site]:
    """Killed at the end, if it is still there."""
    words = ["--port", "0", "--flower-port", "0", "--folder", str(folder), "--pace", "1", *options]
    process = subprocess.Popen(
        [sys.executable, str(RUN), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield read(process, folder)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Ended as its user ends it, with Ctrl-C."""
    with started_site(folder) as site:
        yield site
        site.process.send_signal(signal.SIGINT)
        said, _ = site.process.communicate(timeout=40)
        assert "Stopped:" in said, said
        assert site.process.returncode == 0


def read(process: subprocess.Popen[str], folder: Path) -> Site:
    """The addresses, once all is there."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Stop all"):
            break
    else:
        raise AssertionError(f"it did not start:\n{said}")

    def found(pattern: str) -> str:
        match = re.search(pattern, said)
        assert match, said
        return match[1]

    flower = re.search(r"Flower +(\S+)/tasks", said)
    return Site(
        process,
        folder,
        url=found(r"The site +(http\S+)/\n"),
        password=found(r"password: (\S+)"),
        api=found(r"Framelane's API +(http\S+?),"),
        flower=flower[1] if flower else None,
    )
