"""OpenTelemetry in a worker, as a user would set it up; its spans are lines of a file.

``TEST_TRACED`` "everywhere": in the worker's main process, from which pool processes inherit it. "pool": in the pool's
processes alone, as OpenTelemetry's documentation says, since most exporters do not bear a fork.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult


class LineExporter(SpanExporter):
    """Each span is a line, in one write that no other process can tear."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        handle = os.open(os.environ["TEST_SPANS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for span in spans:
            os.write(handle, (json.dumps(json.loads(span.to_json())) + "\n").encode())
        os.close(handle)
        return SpanExportResult.SUCCESS


def set_up(**kwargs: object) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(LineExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


if os.environ["TEST_TRACED"] == "everywhere":
    set_up()
else:
    worker_process_init.connect(set_up, weak=False)
