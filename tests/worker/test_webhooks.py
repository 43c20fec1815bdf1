"""Webhooks and a real worker: a hint is acted on at once, whatever is in flight; what is forged changes nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
import requests
from werkzeug.serving import make_server

from framelane_celery import webhooks
from framelane_celery.testing import Deliveries, FramelaneServer, Switches
from framelane_celery.testing.webhooks import event_body, signature
from tests.worker.project import composition
from tests.worker.stacks import Stack, wait_for
from tests.worker.stacks import make_server as make_api

pytestmark = [pytest.mark.worker]
MakeStack = Callable[..., Stack]

SECRET = "whsec_worker"
JOBS = 60


class Endpoint:
    """What a user's web process has: `receive` behind a URL. It runs no worker."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.received: list[webhooks.Received] = []
        self.app: Any = None
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}/hooks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            self.received.append(webhooks.receive(environ, body, app=self.app))
            status = 200
        except webhooks.WebhookRefused:
            status = 400
        self.answers[status] += 1
        start_response(f"{status} Any", [("Content-Length", "0")])
        return [b""]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def read_lately(server: FramelaneServer, within_s: float) -> list[str]:
    """The jobs that were read singly in the last seconds, the last one first."""
    since = time.time() - within_s
    reads = [entry.job_id for entry in reversed(server.ledger.reads()) if entry.at > since and entry.job_id]
    return list(dict.fromkeys(reads))


def pick_up_s(server: FramelaneServer, result: Any, job_id: str) -> float:
    """Seconds from a job's end to its task's."""
    server.finish(job_id)
    ended_at = time.monotonic()
    assert result.get(timeout=60, interval=0.01)["status"] == "completed"
    return time.monotonic() - ended_at


def forge(endpoint: Endpoint, job_id: str) -> None:
    """What somebody without the secret may try."""
    body = event_body(
        "data", "render.completed", {"id": job_id, "kind": "render", "status": "completed", "metadata": {}}
    )
    good = signature(body, SECRET, time.time())
    old = signature(body, SECRET, time.time() - 400)
    for value in (old, signature(body, "whsec_forged", time.time()), good + ",", f"{good},{good}", "", "t=1,v1=é"):
        answer = requests.post(endpoint.url, body, headers={"Framelane-Signature": value.encode("latin-1")}, timeout=30)
        assert answer.status_code == 400
    changed = body.replace(b"completed", b"cancelled")
    assert requests.post(endpoint.url, changed, headers={"Framelane-Signature": good}, timeout=30).status_code == 400


@pytest.mark.celery55
def test_a_hint_is_acted_on_within_a_second_and_a_forged_one_never(make_stack: MakeStack, endpoint: Endpoint) -> None:
    """60 jobs in flight, more than are long-polled, no list to sweep, and the budget of reads is always spent."""
    deliveries = Deliveries(copies=2, spread_s=0.1, forged=2)
    switches = Switches(has_list=False)
    with make_api(webhook_secret=SECRET, deliveries=deliveries, switches=switches) as server:
        rates = {"renders_per_minute": 10000, "reads_per_minute": 240, "long_polls": 10}
        stack = make_stack("redis", server, framelane={**rates, "webhook_secrets": ["whsec_next", SECRET]})
        endpoint.app = stack.app
        render = stack.app.tasks["framelane.render"]
        with stack.worker("-c", "2"):
            told = {"webhook_url": endpoint.url}  # every second one is told of
            results = [
                render.delay({**composition(str(n), outcome="never"), **(told if n % 2 else {})}) for n in range(JOBS)
            ]
            by_id = {result.id: (result, n % 2 == 1) for n, result in enumerate(results)}
            wait_for(lambda: stack.room.waiting("look") == JOBS, what="all wait for their jobs")

            task_of = {record.job_id: record.id for record in stack.room.scan("look")}

            def read(is_told: bool) -> list[tuple[str, str]]:
                """Task and job of those that were read just now, and so are not again for a while."""
                lately = [(task_of[job_id], job_id) for job_id in read_lately(server, 5.0)]
                return [one for one in lately if by_id[one[0]][1] is is_told]

            wait_for(lambda: len(read(True)) >= 6 and len(read(False)) >= 1, what="some were looked at just now")
            (silent_id, silent_job), told_of = read(False)[0], read(True)[:6]
            silent = by_id[silent_id][0]
            server.finish(silent_job)
            silent_since = time.monotonic()
            forge(endpoint, silent_job)
            assert endpoint.received == []
            took_s = [pick_up_s(server, by_id[task][0], job_id) for task, job_id in told_of]
            assert not silent.ready()
            assert silent.get(timeout=60, interval=0.01)["status"] == "completed"
            silent_s = time.monotonic() - silent_since

            assert median(took_s) < 1, took_s  # a busy machine may hold up one of them
            assert silent_s > 3, silent_s
            hinted = {task for _, task, _, is_new in endpoint.received if is_new}
            assert hinted <= {task for task, _ in told_of}
            assert len(hinted) > len(told_of) / 2  # a look of its own may have been first
            assert endpoint.answers[200] == len(endpoint.received)
            assert sum(result.ready() for result in results) == len(told_of) + 1  # what was forged ended nothing
    assert len(server.ledger.jobs_per_task()) == JOBS
