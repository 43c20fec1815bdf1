"""The demo as its user runs it: a process of its own, which ends with all that it started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from framelane_celery import demo
from framelane_celery.cli import main
from framelane_celery.demo import project

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from framelane_celery.cli import main; main()", "demo"]


@contextmanager
def running_demo(folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    temporary = folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        COMMAND,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs us with "&"
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read lines until one matches."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"no {pattern!r} in:\n{''.join(seen)}")


def wait_until_gone(process_group: int, timeout_s: float) -> None:
    """Wait until no process of a group is left."""
    end = time.monotonic() + timeout_s
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process_group, 0)
            time.sleep(0.05)
        raise AssertionError(f"process group {process_group} is still there after {timeout_s} s")


@pytest.mark.celery55
def test_the_demo_runs_both_pipelines_and_says_what_happened(tmp_path: Path) -> None:
    with running_demo(tmp_path, CELERY_BROKER_URL="amqp://nobody.invalid//") as process:
        worker = int(read_until(process, r"process (\d+), with one process")[1])
        said, _ = process.communicate(timeout=110)
    assert process.returncode == 0, said
    assert re.search(r"Jobs +10 on the server, by 10 POSTs; paid twice: 0", said), said
    assert re.search(r"Slots held +0 of 1, while up to [2-9] jobs were waited for", said), said
    median_ms = re.search(r"Meanwhile .* began after (\d+) ms \(worst \d+\)", said)
    assert median_ms is not None, said
    assert int(median_ms[1]) < 2000  # a slot that is held would cost the seconds of a job
    assert all(len(line) <= 80 for line in said.splitlines()), said
    output = tmp_path / "demo-output"
    names = {f"sneaker-{size}.mp4" for size in project.SIZES}
    assert {path.name for path in output.iterdir()} == names | {
        "sneaker.mp4",
        "sneaker.json",
        "sneaker.catalogue.json",
    }
    assert set(json.loads((output / "sneaker.catalogue.json").read_text())) == names
    assert json.loads((output / "sneaker.json").read_text())["text"]
    assert list((tmp_path / "tmp").iterdir()) == []
    wait_until_gone(worker, 60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_with_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    with running_demo(tmp_path) as process:
        worker = int(read_until(process, r"process (\d+), with one process")[1])
        read_until(process, "queued")
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.endswith("Stopped; the worker and the server are gone.\n")
    assert "Traceback" not in said
    assert list((tmp_path / "tmp").iterdir()) == []
    wait_until_gone(worker, 60)


def test_even_a_killed_demo_leaves_no_worker_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path) as process:
        worker = int(read_until(process, r"process (\d+), with one process")[1])
        read_until(process, "queued")
        process.kill()
        wait_until_gone(worker, 60)


def test_a_worker_that_dies_ends_the_demo_with_its_log(tmp_path: Path) -> None:
    with running_demo(tmp_path) as process:
        worker = int(read_until(process, r"process (\d+), with one process")[1])
        # At once: a second later the demo may be waiting for a plain task's answer, and would say that it did not come.
        os.killpg(worker, signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the worker has ended by itself; its log:" in said
    assert re.search(r"MainProcess\] worker@demo ready\.", said), said


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_NEEDED", ("no_such_module",))
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert result.output == "Error: no_such_module missing: pip install 'framelane-celery[demo]'\n"
