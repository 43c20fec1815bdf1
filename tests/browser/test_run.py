"""The one command of the example site: it says what is in its way, and ends with all that it has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.browser.site import ROOT, RUN, Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = ["--port", str(port), "--folder", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, str(RUN), *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"port {port} is taken by another program: choose another one with --port\n"


def processes_of(site: Site) -> dict[int, str]:
    """The processes whose environment has this site's folder: all but the one command itself."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"SITE_FOLDER={site.folder}".encode() in (path / "environ").read_bytes():
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return found


@pytest.mark.slow
def test_even_when_it_is_killed_nothing_is_left(own_site: Site) -> None:
    found = " ".join(processes_of(own_site).values())
    assert all(what in found for what in ("runserver", "worker@site", "flower"))
    own_site.process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while left := processes_of(own_site):
        assert time.monotonic() < end, left
        time.sleep(0.1)


@pytest.mark.slow
def test_a_part_that_ends_by_itself_ends_all_and_is_named(own_site: Site) -> None:
    (web,) = [
        pid for pid, command in processes_of(own_site).items() if "runserver" in command and "leash" not in command
    ]
    os.kill(web, signal.SIGKILL)
    said, _ = own_site.process.communicate(timeout=40)
    assert own_site.process.returncode == 1
    assert "the site has ended by itself:" in said
    assert not processes_of(own_site)
