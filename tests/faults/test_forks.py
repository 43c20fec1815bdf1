"""A pool process is forked while the watcher's threads run: it must not inherit a lock that nobody will open.

Seen before `build_models`: about one in 40 rounds of test_kills_of_runs left a child waiting for ever for pydantic's
lock, which a look had held at the fork, with its lease renewed all the time.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.worker.stacks import ROOT

pytestmark = pytest.mark.fault

HOLD_THE_LOCK_AND_FORK = """
import os, signal, threading
from types import SimpleNamespace
from celery import Celery
from pydantic import main
from framelane_celery import Job, RenderRequest, TranscribeRequest
from framelane_celery.watching.step import WatcherStep

app = Celery("forks", broker="redis://127.0.0.1/0")
app.conf.framelane = {"api_key": "fl_test_key"}
WatcherStep(SimpleNamespace(app=app))
held, over = threading.Event(), threading.Event()

def hold():
    with main._rebuild_lock:
        held.set()
        over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
if os.fork() == 0:
    signal.alarm(30)
    Job.model_validate({"id": "render_1", "status": "queued"})
    RenderRequest.model_validate({"elements": [{"type": "text", "text": "x", "duration": 1}]})
    TranscribeRequest.model_validate({"source_url": "https://example.com/a.mp4"})
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_child_does_not_wait_for_a_lock_that_a_thread_held() -> None:
    done = subprocess.run([sys.executable, "-c", HOLD_THE_LOCK_AND_FORK], cwd=ROOT, timeout=90, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-800:]
