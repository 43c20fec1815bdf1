"""One trace from the call of a task, through its wait, to what comes after it: for OpenTelemetry and for Sentry.

Between the call and the second run there is no process that holds a context, and the wake-up comes from a watcher. So
the record keeps where it was called (`carrier`), and every message of it says so (`continued`). Neither library is
imported here unless the process has imported it: what nobody has set up, traces nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from framelane_celery.records import Record


_OTEL: Final = "opentelemetry"
_SENTRY: Final = "sentry"
_BAGGAGE: Final = "baggage"
"""Both libraries' header of that name; its items are a list, separated by commas."""


Trace = Mapping[str, Mapping[str, str]]
"""Headers by library."""


def _is_traced(name: str) -> Any:
    """A tracing library's module, if this process has imported it."""
    return sys.modules.get(name)


# --- where a task is called --------------------------------------------------------------------------------------


def carrier() -> dict[str, dict[str, str]] | None:
    """The present context, to be kept in a record; None: there is none."""
    found = {name: headers for name, headers in ((_OTEL, _otel_headers()), (_SENTRY, _sentry_headers())) if headers}
    return found or None


def _otel_headers() -> dict[str, str]:
    trace = _is_traced("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return {}
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def _sentry_headers() -> dict[str, str]:
    sentry = _is_traced("sentry_sdk")
    if sentry is None or not sentry.is_initialized():
        return {}
    headers = {"sentry-trace": sentry.get_traceparent(), _BAGGAGE: sentry.get_baggage()}
    return {name: value for name, value in headers.items() if value}


# --- where its messages are published ----------------------------------------------------------------------------


def with_trace(headers: Mapping[str, Any], trace: Trace | None) -> dict[str, Any]:
    """Message headers that continue a record's trace, for workers that read them, whoever publishes."""
    ours: dict[str, str] = {}
    for one in (trace or {}).values():
        for name, value in one.items():
            ours[name] = f"{ours[name]},{value}" if name == _BAGGAGE and name in ours else value
    if _SENTRY not in (trace or {}):
        return {**headers, **ours}
    # Sentry reads an inner dict, which Celery then takes for all custom headers (celery issue 4875).
    return {**headers, **ours, "headers": {**headers, **(headers.get("headers") or {}), **ours}}


@contextmanager
def continued(trace: Trace | None) -> Iterator[None]:
    """Go on with a record's trace, unless one goes on here: instrumentations write what is current into messages."""
    if not trace:
        yield
        return
    with ExitStack() as stack:
        if _OTEL in trace and _is_traced("opentelemetry.trace") is not None:
            stack.enter_context(_otel_continued(trace[_OTEL]))
        if _SENTRY in trace and _is_traced("sentry_sdk") is not None:
            stack.enter_context(_sentry_continued(trace[_SENTRY]))
        yield


@contextmanager
def _otel_continued(headers: Mapping[str, str]) -> Iterator[None]:
    from opentelemetry import context, propagate, trace

    if trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def _sentry_continued(headers: Mapping[str, str]) -> Iterator[None]:
    import sentry_sdk

    if not sentry_sdk.is_initialized() or sentry_sdk.get_current_span() is not None:
        yield
        return
    with sentry_sdk.isolation_scope():
        sentry_sdk.continue_trace(dict(headers))
        yield


# --- spans of our own --------------------------------------------------------------------------------------------


@contextmanager
def submitting(record: Record) -> Iterator[Any]:
    """A span around one POST of a task's attempt; None where nobody traces."""
    tracer = _tracer()
    if tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind

    with tracer.start_as_current_span(
        "framelane.submit", context=_context_of(record), kind=SpanKind.CLIENT, attributes=_attributes(record)
    ) as span:
        yield span


def accepted(span: Any, job_id: str) -> None:
    """Say in the span of a POST which job it made."""
    if span is not None:
        span.set_attribute("framelane.job_id", job_id)


def waited(record: Record) -> None:
    """Spans for the waits that are over, each from its job's acceptance to the instant at which its end was seen.

    Made by the run that the wait has led to, for nobody holds a span while a job runs.
    """
    tracer = _tracer()
    if tracer is None or record.trace is None:
        return
    for attempt in record.history:
        if attempt.get("accepted_at") is None:
            continue
        of_it = {f"framelane.{name}": attempt.get(name) for name in ("attempt", "job_id", "outcome", "code")}
        attributes = {**_attributes(record), **{name: value for name, value in of_it.items() if value is not None}}
        context, started = _saved_context(record), _nanoseconds(attempt["accepted_at"])
        span = tracer.start_span("framelane.wait", context=context, attributes=attributes, start_time=started)
        span.end(_nanoseconds(attempt["at"]))


def _tracer() -> Any:
    if _is_traced("opentelemetry.trace") is None:
        return None
    from opentelemetry import trace

    return trace.get_tracer("framelane_celery")


def _context_of(record: Record) -> Any:
    """The current context, or where there is none, the record's: None means the current one."""
    from opentelemetry import trace

    return None if trace.get_current_span().get_span_context().is_valid else _saved_context(record)


def _saved_context(record: Record) -> Any:
    from opentelemetry import propagate

    return propagate.extract((record.trace or {}).get(_OTEL, {}))


def _attributes(record: Record) -> dict[str, Any]:
    return {
        "framelane.task_id": record.id,
        "framelane.task": record.task,
        "framelane.job_kind": record.job_kind or "render",
        "framelane.attempt": record.attempt,
    }


def _nanoseconds(instant: float) -> int:
    return int(instant * 1e9)
