"""A pool process is forked while the watcher's threads run: it must not inherit a lock that nobody will open.

Seen without `build_models`: about one in 40 rounds of test_kills_of_runs left a child waiting for ever for pydantic's
lock, which a look had held at the fork, with its lease renewed all the time. Seen without `mind_forks`: a child forked
while the post published its first message, in `AMQP.send_task_message` and in the import that each connection tries.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.worker.stacks import ROOT

pytestmark = pytest.mark.fault

HOLD_AND_FORK = """
import importlib, os, signal, threading
from contextlib import ExitStack
from types import SimpleNamespace
from unittest.mock import Mock
from celery import Celery, signals
from celery.app.amqp import AMQP
from kombu import Connection
from pydantic import main
from framelane_celery import Job, RenderRequest, TranscribeRequest
from framelane_celery.routing import Failure, decide
from framelane_celery.watching import step

app = Celery("forks", broker="memory://")
app.conf.task_send_sent_event = True
app.conf.framelane = {"api_key": "fl_test_key", "room_url": "redis://127.0.0.1/0"}
step.Watcher = Mock()
def listen(**_):
    pass

consumer = SimpleNamespace(on_unknown_task=None)
worker = SimpleNamespace(app=app, hostname="forks@here", consumer=consumer)
bootstep = step.WatcherStep(worker)
bootstep.start(worker)
bootstep._on_ready(worker)
signals.after_task_publish.connect(listen)
held, over = threading.Event(), threading.Event()

def hold():
    with ExitStack() as stack:
        {hold}
        held.set()
        over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
if os.fork() == 0:
    signal.alarm(20)
    {use}
    os._exit(0)
os._exit(os.wait()[1] != 0)  # at a plain exit, what is held would be waited for again
"""

BUILD = """
    Job.model_validate({"id": "render_1", "status": "queued"})
    RenderRequest.model_validate({"elements": [{"type": "text", "text": "x", "duration": 1}]})
    TranscribeRequest.model_validate({"source_url": "https://example.com/a.mp4"})
"""
ROUTE = 'decide((), Failure("internal", "render", "promo"), attempts=1, chance=0)'
PUBLISH = 'app.send_task("promo")'

HELD = {
    "pydantic's": ("stack.enter_context(main._rebuild_lock)", BUILD),
    "pydantic's, and a failure": ("stack.enter_context(main._rebuild_lock)", ROUTE),
    "of a cached property": ("stack.enter_context(Celery.amqp.lock)", PUBLISH),
    "of what publishes": ("stack.enter_context(AMQP.send_task_message.lock)", PUBLISH),
    "of a signal": ("stack.enter_context(signals.after_task_publish.lock)", PUBLISH),
    "of events": ("stack.enter_context(app.amqp._event_dispatcher.mutex)", PUBLISH),
    "of an import": (
        'stack.enter_context(importlib._bootstrap._ModuleLockManager("librabbitmq"))',
        'Connection("amqp://")',
    ),
}


@pytest.mark.parametrize("held", HELD)
def test_a_forked_child_does_not_wait_for_a_lock_that_a_thread_held(held: str) -> None:
    hold, use = HELD[held]
    code = HOLD_AND_FORK.replace("{hold}", hold).replace("{use}", use.strip())
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=90, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-800:]
