"""Large files in constant memory: a child process sends and fetches one, and tells its peak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from framelane_celery.testing import Completed, Fault, FramelaneServer

MB = 1_000_000
ALLOWED_KB = 6_000
"""What a transfer may add to the process' peak; the file is larger by far."""

CHILD = """
import json, sys
from framelane_celery.client import FramelaneClient
from framelane_celery.models import RenderRequest
key, url, folder = sys.argv[1:]
def peak():  # not getrusage's, which begins with the parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
request = RenderRequest.model_validate({"elements": [{"type": "text", "text": "hello", "duration": 2}]})
with FramelaneClient(key, url) as client:
    job = client.create_render(request, "k").job
    client.get_render(job.id), client.download_url("render", job.id)  # what any call costs is spent
    before, told = peak(), []
    sent = client.upload_file(f"{folder}/large.mp4", progress=lambda *_: None)
    uploaded = peak()
    size = client.download("render", job.id, f"{folder}/got.mp4", progress=lambda *_: None)
    print(json.dumps({"before": before, "up": uploaded - before, "down": peak() - before, "sent": sent, "size": size}))
"""


@pytest.mark.parametrize("size", [20 * MB, pytest.param(500 * MB, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_large_file_goes_both_ways_in_constant_memory(size: int, tmp_path: Path) -> None:
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(size)
    with FramelaneServer(job_seconds=0, outcome=lambda _: Completed(file_bytes=size)) as server:
        server.faults.add(Fault("cut", "GET", "/storage/*", times=1, at_bytes=size // 2))
        server.faults.add(Fault("cut", "PUT", "/storage/*", times=1, at_bytes=size // 2))
        child = [sys.executable, "-c", CHILD, server.api_key, server.base_url, str(tmp_path)]
        done = subprocess.run(child, capture_output=True, text=True, timeout=540, check=True)
        storage = [(entry.method, entry.status) for entry in server.ledger if entry.path.startswith("/storage/")]
    told = json.loads(done.stdout)
    print(told)
    assert (told["sent"][1], told["size"]) == (size, size)
    assert storage == [("PUT", None), ("PUT", 200), ("GET", 200), ("GET", 206)]
    assert (tmp_path / "got.mp4").stat().st_size == size
    assert max(told["up"], told["down"]) < ALLOWED_KB
