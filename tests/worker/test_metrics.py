"""Every metric, scraped from real workers of every pool; the numbers of all processes are there, and none twice."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from framelane_celery.metrics.names import COUNTERS, GAUGES, HISTOGRAMS
from framelane_celery.testing import FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.celery55]
MakeStack = Callable[..., Stack]
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]

ROUTES = [
    {"code": "internal", "action": "retry", "max_attempts": 2, "backoff_s": 0.1},
    {"code": "codec_*", "action": "hold"},
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> Samples:
    """Samples by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, {})
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "room_namespace"}
            found.setdefault(sample.name, {})[tuple(sorted(labels.items()))] = sample.value
    return found


def number(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    wanted = set(labels.items())
    return sum(value for found, value in samples.get(f"framelane_{name}", {}).items() if wanted <= set(found))


def render(stack: Stack, **metadata: str) -> Any:
    return stack.sig("framelane.render", composition("words of the customer", **metadata))


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
@pytest.mark.parametrize("kind", ["redis", "redis+sql"])
def test_every_metric_of_a_day(make_stack: MakeStack, server: FramelaneServer, kind: str, pool: str) -> None:
    port = free_port()
    stack = make_stack(kind, server, framelane={"metrics_port": port, "routes": ROUTES})
    with stack.worker("-P", pool, "-c", "2"):
        well = [render(stack).apply_async() for _ in range(3)]
        dead = render(stack, outcome="fail").apply_async()
        waits = render(stack, outcome="never").apply_async()
        for result in (*well, dead):
            result.get(timeout=60, propagate=False)
        held = render(stack, outcome="fail", code="codec_unsupported").apply_async()
        stack.until(waits.id, "job")
        stack.until(held.id, "release")
        wait_for(lambda: number(scrape(port), "tasks_ended_total") == 4)
        wait_for(lambda: number(scrape(port), "routes_total", action="hold") == 1)
        wait_for(lambda: number(scrape(port), "job_ends_total") == 6)
        wait_for(lambda: number(scrape(port), "tasks_waiting", until="release") == 1)
        seen = scrape(port)
    assert number(seen, "submissions_total", kind="render", account="default") == 7
    assert number(seen, "job_outcomes_total", outcome="completed", code="none") == 3
    assert number(seen, "job_outcomes_total", outcome="failed", code="internal") == 2
    assert number(seen, "routes_total", code="internal", action="retry") == 1
    assert number(seen, "routes_total", code="internal", action="dead_letter") == 1
    assert number(seen, "tasks_ended_total", task="framelane.render", outcome="completed") == 3
    assert number(seen, "tasks_ended_total", task="framelane.render", outcome="dead_letter") == 1
    assert number(seen, "tasks_waiting", until="job", queue=stack.queue, code="none", account="default") == 1
    assert number(seen, "tasks_waiting", until="release", code="codec_unsupported") == 1
    assert number(seen, "dead_letters", code="internal", account="default") == 1
    assert number(seen, "holds", code="codec_unsupported", account="default") == 1
    assert (number(seen, "up"), number(seen, "watcher_leads"), number(seen, "overdue")) == (1, 1, 0)
    assert number(seen, "http_requests_total", method="POST", endpoint="/v1/renders", status="202") == 7
    assert number(seen, "http_requests_total", method="GET", endpoint="/v1/renders/{id}", status="200") >= 6
    assert number(seen, "looks_total", way="long_poll") >= 6
    for name in ("resume_seconds", "job_seconds", "job_end_seen_seconds", "http_request_seconds"):
        assert number(seen, f"{name}_count") >= 4, name
        assert number(seen, f"{name}_sum") > 0, name
    assert number(seen, "resume_seconds_count", kind="render") == 4
    assert number(seen, "job_seconds_count", kind="render") == 6
    for name in (*GAUGES, *COUNTERS, *HISTOGRAMS):
        assert f"framelane_{name}" in seen
    _has_no_secret(seen, server)


def _has_no_secret(seen: Samples, server: FramelaneServer) -> None:
    text = str(seen)
    for secret in ("fl_test_key", "words of the customer", "signature=", "celery_task_id", *server.jobs):
        assert secret not in text


def test_two_workers_tell_the_same_and_the_second_on_a_host_only_warns(
    make_stack: MakeStack, server: FramelaneServer
) -> None:
    ports = free_port(), free_port()
    stack = make_stack("redis", server, framelane={"metrics_port": ports[0]})
    other = {**stack.framelane, "metrics_port": ports[1]}
    with stack.worker("-c", "1", name="w1"), stack.worker("-c", "1", name="w2") as second:
        wait_for(lambda: f"port {ports[0]} of 127.0.0.1 cannot be used" in second.log)
        stack.framelane = other
        with stack.worker("-c", "1", name="w3"):
            results = [render(stack).apply_async() for _ in range(6)]
            for result in results:
                result.get(timeout=60)
            for port in ports:
                wait_for(lambda port=port: number(scrape(port), "submissions_total") == 6)  # type: ignore[misc]
                wait_for(lambda port=port: number(scrape(port), "resume_seconds_count") == 6)  # type: ignore[misc]


def test_a_worker_that_ends_has_told_all(make_stack: MakeStack, server: FramelaneServer) -> None:
    """A pool process counts for itself, and tells what it counted last before it goes."""
    stack = make_stack("redis", server)
    with stack.worker("-c", "2") as worker:
        for result in [render(stack).apply_async() for _ in range(4)]:
            result.get(timeout=60)
        wait_for(stack.is_idle)
        worker.stop()
    counts = stack.room.counts()
    assert counts['["submissions","render","default"]'] == 4
    assert counts['["tasks_ended","framelane.render","completed"]'] == 4
