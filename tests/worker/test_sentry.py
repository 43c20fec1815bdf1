"""Sentry: a job that fails, or a task that waits, is no alarm; the second run goes on with the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from celery import chain
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from framelane_celery import JobFailed
from framelane_celery.testing import FramelaneServer
from tests.worker.lines import lines_in
from tests.worker.project import composition
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.celery55]
MakeStack = Callable[..., Stack]
KEY = "fl_test_key"


class Nowhere(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        pass


@pytest.fixture
def view() -> Iterator[None]:
    """A web process with Sentry."""
    integrations = [CeleryIntegration()]
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", transport=Nowhere, traces_sample_rate=1.0, default_integrations=False,
        integrations=integrations,
    )  # fmt: skip
    yield
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def items(stack: Stack, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines_in(stack.folder / "sentry") if line["item"] == kind]


def transactions(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [item for item in items(stack, "transaction") if item["transaction"].endswith(name)]


def sentried(stack: Stack, **env: str) -> Any:
    path = str(stack.folder / "sentry")
    return stack.worker("-c", "2", "-I", "tests.worker.sentried", TEST_SENTRY=path, **env)


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


def test_one_trace(make_stack: MakeStack, server: FramelaneServer, view: None) -> None:
    stack = make_stack("redis", server)
    with sentried(stack):
        traces = []
        for n in range(2):
            with sentry_sdk.start_transaction(name=f"POST {n}") as transaction:
                traces.append(transaction.trace_id)
                result = chain(render(stack, str(n)), stack.sig("montage"), stack.sig("note")).apply_async()
            result.get(timeout=60)
        wait_for(lambda: len(transactions(stack, ".note")) == 2)
    for trace_id in traces:
        in_trace = [item for item in items(stack, "transaction") if item["contexts"]["trace"]["trace_id"] == trace_id]
        counted = [item["transaction"].rpartition(".")[2] for item in in_trace]
        assert sorted(counted) == ["montage", "montage", "note", "render", "render"]


def test_one_trace_where_only_errors_are_told(make_stack: MakeStack, server: FramelaneServer, view: None) -> None:
    """Without `traces_sample_rate`, Sentry writes whatever is current into each message, the watcher's too."""
    stack = make_stack("redis", server)
    with sentried(stack, TEST_RATE=""), sentry_sdk.isolation_scope():
        sentry_sdk.continue_trace({})  # as for each request of a site
        trace_id = str(sentry_sdk.get_traceparent()).partition("-")[0]
        chain(render(stack), stack.sig("fail")).apply_async().get(timeout=60, propagate=False)
        wait_for(lambda: items(stack, "event"))
    assert [event["contexts"]["trace"]["trace_id"] for event in items(stack, "event")] == [trace_id]


def test_expected_failures_are_no_alarm(make_stack: MakeStack, server: FramelaneServer) -> None:
    """A job that failed, was retried, timed out or became a dead letter; the unexpected one is told once."""
    routes = [{"code": "internal", "action": "retry", "max_attempts": 2, "backoff_s": 0.1}]
    stack = make_stack("redis", server, framelane={"routes": routes})
    with sentried(stack):
        failed = render(stack, outcome="fail", code="codec_unsupported").apply_async()
        retried = render(stack, outcome="fail").apply_async()
        timed_out = stack.sig("impatient", outcome="never").apply_async()
        cancelled = render(stack, outcome="cancel").apply_async()
        for result in (failed, retried, timed_out, cancelled):
            result.get(timeout=60, propagate=False)
            assert result.failed()
        with pytest.raises(JobFailed):
            retried.get(timeout=60)
        unexpected = stack.sig("raising", "error").apply_async()
        unexpected.get(timeout=60, propagate=False)
        wait_for(lambda: len(items(stack, "transaction")) >= 10)  # each run is one, and tells of its error before
    [event] = items(stack, "event")
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["tags"]["celery_task_id"] == unexpected.id


SIGNED = "https://files.example.com/shoe.mp4?signature=sesame"


def test_what_sentry_gets_holds_no_secret(make_stack: MakeStack, server: FramelaneServer) -> None:
    """Transactions, spans and breadcrumbs: no key, no query of a URL, no request body."""
    stack = make_stack("redis", server)
    with sentried(stack):
        source = {"elements": [{"type": "video", "source_url": SIGNED}]}
        stack.sig("framelane.render", source).apply_async().get(timeout=60, propagate=False)
        render(stack, "words of the customer", outcome="fail").apply_async().get(timeout=60, propagate=False)
        (render(stack) | stack.sig("downloads")).apply_async().get(timeout=60)
        wrong = [{"text": "words of the customer", "source_url": SIGNED}]  # no job: its body stumbles over that
        stack.sig("montage", wrong).apply_async().get(timeout=60, propagate=False)
        wait_for(lambda: len(items(stack, "transaction")) >= 7 and items(stack, "event"))
    text = (stack.folder / "sentry").read_text()
    for secret in (KEY, "sesame", "words of the customer", "signature="):
        assert secret not in text, text[max(0, text.index(secret) - 1500) : text.index(secret) + 200]
