"""One trace from the view, through the submission, the wait and the second run, to the callback; over chain and chord.

The view is this process, whose spans are in memory; the workers write theirs down line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer, format_trace_id

from framelane_celery.testing import FramelaneServer
from tests.worker.lines import lines_in
from tests.worker.project import composition
from tests.worker.stacks import Stack, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.celery55]
MakeStack = Callable[..., Stack]
Span = dict[str, Any]


@pytest.fixture
def view() -> Iterator[tuple[Tracer, InMemorySpanExporter]]:
    """A web process that is traced."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    CeleryInstrumentor().instrument(tracer_provider=provider)
    yield provider.get_tracer("views"), exporter
    CeleryInstrumentor().uninstrument()


View = tuple[Tracer, InMemorySpanExporter]


def spans(stack: Stack) -> list[Span]:
    return lines_in(stack.folder / "spans")


def names(found: list[Span]) -> list[str]:
    return [span["name"].replace("tests.worker.project.", "") for span in found]


def worker_options(stack: Stack, where: str) -> dict[str, str]:
    return {"TEST_TRACED": where, "TEST_SPANS": str(stack.folder / "spans")}


def of_trace(found: list[Span], trace_id: str) -> list[Span]:
    return [span for span in found if span["context"]["trace_id"] == f"0x{trace_id}"]


def render(stack: Stack, text: str = "hello", **metadata: str) -> Any:
    return stack.sig("framelane.render", composition(text, **metadata))


@pytest.mark.parametrize("where", ["everywhere", "pool"])
def test_one_trace_over_a_chain(make_stack: MakeStack, server: FramelaneServer, view: View, where: str) -> None:
    tracer, exporter = view
    stack = make_stack("redis", server)
    with stack.worker("-c", "2", "-I", "tests.worker.traced", **worker_options(stack, where)):
        with tracer.start_as_current_span("POST /products/7"):
            steps = chain(render(stack), stack.sig("montage"), stack.sig("note", tag="tail"))
            result = steps.apply_async(link=stack.sig("note", tag="callback"))
        result.get(timeout=60)
        wait_for(lambda: names(spans(stack)).count("run/note") == 2)
    seen = [span for span in exporter.get_finished_spans() if span.name == "POST /products/7"]
    trace_id = format_trace_id(seen[0].context.trace_id)
    found = spans(stack)
    assert {span["context"]["trace_id"] for span in found} == {f"0x{trace_id}"}
    counted = names(found)
    assert counted.count("run/framelane.render") == 2  # the first run, and the resumed one
    assert counted.count("run/montage") == 2
    assert counted.count("run/note") == 2
    assert counted.count("framelane.submit") == 2
    assert counted.count("framelane.wait") == 2


def test_one_trace_over_a_chord_and_an_attempt_that_failed(
    make_stack: MakeStack, server: FramelaneServer, view: View
) -> None:
    """Every attempt's wait is a span, with what became of it."""
    tracer, exporter = view
    routes = [{"code": "internal", "action": "retry", "backoff_s": 0.1}]
    stack = make_stack("redis", server, framelane={"routes": routes})
    with stack.worker("-c", "2", "-I", "tests.worker.traced", **worker_options(stack, "everywhere")):
        with tracer.start_as_current_span("POST /films"):
            members = group(render(stack, "a"), render(stack, "b", fails="1"))
            result = chord(members, stack.sig("montage")).apply_async()
        job = result.get(timeout=60)
        wait_for(lambda: names(spans(stack)).count("run/montage") == 2)
    [seen] = [span for span in exporter.get_finished_spans() if span.name == "POST /films"]
    found = spans(stack)
    trace_id = format_trace_id(seen.context.trace_id)
    assert of_trace(found, trace_id) == found
    waits = [span for span in found if span["name"] == "framelane.wait"]
    told = [(span["attributes"]["framelane.outcome"], span["attributes"].get("framelane.code")) for span in waits]
    assert sorted(told, key=str) == [("completed", None)] * 3 + [("failed", "internal")]
    assert {span["parent_id"] for span in waits if span["attributes"]["framelane.task_id"] != result.id} == {
        f"0x{seen.context.span_id:016x}"
    }
    [last] = [span for span in waits if span["attributes"]["framelane.task_id"] == result.id]
    assert last["attributes"]["framelane.job_id"] == job["id"]
    assert last["start_time"] < last["end_time"]
    submits = [span for span in found if span["name"] == "framelane.submit"]
    assert {span["attributes"]["framelane.job_id"] for span in submits} == {
        span["attributes"]["framelane.job_id"] for span in waits
    }


def test_two_calls_are_two_traces(make_stack: MakeStack, server: FramelaneServer, view: View) -> None:
    """Both wake-ups come from one thread of the watcher: nothing of one call may stay there for the next."""
    tracer, exporter = view
    stack = make_stack("redis", server)
    with stack.worker("-c", "1", "-I", "tests.worker.traced", **worker_options(stack, "everywhere")):
        results = []
        for n in range(2):
            with tracer.start_as_current_span(f"POST {n}"):
                results.append((render(stack, str(n)) | stack.sig("note")).apply_async())
        results.append((render(stack, "untraced") | stack.sig("note")).apply_async())
        for result in results:
            result.get(timeout=60)
        wait_for(lambda: names(spans(stack)).count("run/note") == 3)
    traces = {span.name: format_trace_id(span.context.trace_id) for span in exporter.get_finished_spans()}
    for n in range(2):
        counted = names(of_trace(spans(stack), traces[f"POST {n}"]))
        assert (counted.count("run/framelane.render"), counted.count("run/note")) == (2, 1)


def test_no_span_holds_a_secret(make_stack: MakeStack, server: FramelaneServer, view: View) -> None:
    """No key, no query of a URL, no request; of a task that fails neither."""
    tracer, _ = view
    stack = make_stack("redis", server)
    signed = "https://files.example.com/shoe.mp4?signature=sesame"
    source = {"elements": [{"type": "video", "source_url": signed}]}
    with stack.worker("-c", "1", "-I", "tests.worker.traced", **worker_options(stack, "everywhere")):
        with tracer.start_as_current_span("POST /films"):
            calls = [
                stack.sig("framelane.render", source).apply_async(),
                render(stack, "words of the customer", outcome="fail").apply_async(),
                (render(stack, "words of the customer") | stack.sig("downloads")).apply_async(),
            ]
        for result in calls:
            result.get(timeout=60, propagate=False)
        wait_for(lambda: "run/downloads" in names(spans(stack)))
    text = (stack.folder / "spans").read_text()
    for secret in ("fl_test_key", "sesame", "signature=", "words of the customer"):
        assert secret not in text
