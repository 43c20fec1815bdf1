"""Sentry in a worker, as a user would set it up; what it would send is lines of a file."""

from __future__ import annotations

import json
import os

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport


class LineTransport(Transport):
    """Each item of an envelope is a line, in one write that no other process can tear."""

    def capture_envelope(self, envelope: Envelope) -> None:
        handle = os.open(os.environ["TEST_SENTRY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for item in envelope.items:
            if item.type in ("event", "transaction"):
                os.write(handle, (json.dumps({"item": item.type, **(item.payload.json or {})}) + "\n").encode())
        os.close(handle)


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    transport=LineTransport,
    traces_sample_rate=float(rate) if (rate := os.environ.get("TEST_RATE", "1")) else None,
    integrations=[CeleryIntegration()],
    include_local_variables=False,
)
