"""Webhooks of the local server: signed events that are sent when a job ends, and what may go wrong on the way.

Of the real ones the signature is documented, and that a URL of the job's own replaces the workspace's. The body is not
(framelane_api.md §13.3), nor are the retries: what is chosen here is INFER.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import hmac
import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from framelane_celery.testing.clock import Clock, iso
from framelane_celery.testing.jobs import StoredJob
from framelane_celery.testing.receivers import Receivers

THREADS = 4
TIMEOUT_S = 10.0  # "answer 200 within 10 s": docs.framelane.io/introduction/production-checklist

Shape = Literal["data", "data.job", "data.object", "job", "flat", "ids"]


@dataclass(frozen=True)
class Deliveries:
    """How events are sent. Each field is INFER, or something that goes wrong on the way.

    `shape` is where the body has the job, as JSON:
        data         {"id": "evt_…", "type": "render.completed", "created_at": …, "data": Job}
        data.job     the same with "data": {"job": Job}
        data.object  the same with "data": {"object": Job}, as Stripe has it
        job          the Job itself, with "event" beside its fields
        flat         {"event": …, "job_id": …, "status": …, "output_url": …, "error": …, "metadata": …, "timestamp": …}
                     (the dropped v0 API had the like)
        ids          {"event": …, "render_id": …} or {"event": …, "task_id": …}
    """

    shape: Shape = "data"
    tells_cancelled: bool = True  # `render.completed`, `.failed` and the same of `task` are named; `.cancelled` is not
    retry_after_s: tuple[float, ...] = (1.0, 5.0, 30.0)  # pauses after each answer that is not 2xx; then it is given up
    delay_s: float = 0.0  # how late an event is sent
    spread_s: float = 0.0  # up to how much later, at random: events overtake each other
    lose: float = 0.0  # the share of events that are never sent
    copies: int = 1  # how often each event is sent
    forged: int = 0  # how many are sent beside each copy that are signed with another secret
    seed: int = 0  # of the chances above


class Delivered(NamedTuple):
    """One request that was sent; `status` is None where no answer came."""

    event: str
    job_id: str
    url: str
    status: int | None
    number: int
    """1 for the first try of a delivery."""
    is_forged: bool


class _Parcel(NamedTuple):
    url: str
    event: str
    job_id: str
    body: bytes
    secret: str
    is_forged: bool
    number: int = 1
    receiver_id: str | None = None


class Sender:
    """Watches jobs end and sends their events, from threads that are started with the first job that has a URL."""

    def __init__(
        self,
        clock: Clock,
        find: Callable[[str], StoredJob | None],
        view: Callable[[StoredJob], dict[str, Any]],
        *,
        url: str | None,
        receivers: Receivers,
        deliveries: Deliveries,
    ) -> None:
        self.delivered: list[Delivered] = []
        self._clock, self._find, self._view = clock, find, view
        self._url, self._receivers, self._how = url, receivers, deliveries
        self._chance = Random(deliveries.seed)
        self._changed = threading.Condition()
        self._ends: list[tuple[float, str]] = []  # heap; by the server's clock
        self._parcels: list[tuple[float, int, _Parcel]] = []  # heap; by the wall clock
        self._told: set[str] = set()
        self._posted = 0
        self._threads: list[threading.Thread] = []
        self._is_stopped = False
        clock.on_advance(self._wake)

    def watch(self, job: StoredJob) -> None:
        """Take note of a job that was made, or that was ended. Called with the workspace locked: takes no time."""
        if not self._urls_of(job) or job.life.ends_at is None:
            return
        with self._changed:
            heapq.heappush(self._ends, (job.life.ends_at, job.id))
            if not self._threads and not self._is_stopped:
                works = [self._see_ends, *[self._send_parcels] * THREADS]
                self._threads = [
                    threading.Thread(target=work, name="framelane-webhooks", daemon=True) for work in works
                ]
                for thread in self._threads:
                    thread.start()
            self._changed.notify_all()

    def stop(self, timeout_s: float) -> None:
        """Send nothing more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _urls_of(self, job: StoredJob, event: str | None = None) -> list[tuple[str | None, str]]:
        """Who is told, each with its endpoint's id if it has one.

        A job's own URL replaces the workspace's: docs.framelane.io/api-reference/renders/submit-a-render-job.
        """
        own: str | None = job.submission.body.get("webhook_url")
        if own:
            return [(None, own)]
        known = [(one.id, one.url) for one in self._receivers.all() if event is None or event in one.events]
        return [*([(None, self._url)] if self._url else []), *known]

    def _see_ends(self) -> None:
        while True:
            with self._changed:
                if self._is_stopped:
                    return
                if not self._ends or self._ends[0][0] > self._clock.now():
                    self._changed.wait(self._clock.real_seconds_until(self._ends[0][0]) if self._ends else None)
                    continue
                job_id = heapq.heappop(self._ends)[1]
            job = self._find(job_id)
            if job is not None and job_id not in self._told:
                self._tell(job)

    def _tell(self, job: StoredJob) -> None:
        shown = self._view(job)
        if shown["status"] == "cancelled" and not self._how.tells_cancelled:
            return
        self._told.add(job.id)
        event = f"{job.kind}.{shown['status']}"
        for receiver_id, url in self._urls_of(job, event):
            if self._chance.random() >= self._how.lose:
                body = event_body(self._how.shape, event, shown)
                self._hand_over(_Parcel(url, event, job.id, body, self._receivers.secret, False, 1, receiver_id))

    def _hand_over(self, parcel: _Parcel) -> None:
        for _ in range(self._how.copies):
            for forged in range(self._how.forged):
                self._post(parcel._replace(secret=f"whsec_forged_{forged}", is_forged=True), self._late_s())
            self._post(parcel, self._late_s())

    def _late_s(self) -> float:
        return self._how.delay_s + self._chance.uniform(0, self._how.spread_s)

    def _post(self, parcel: _Parcel, in_s: float) -> None:
        with self._changed:
            self._posted += 1
            heapq.heappush(self._parcels, (time.monotonic() + in_s, self._posted, parcel))
            self._changed.notify_all()

    def _send_parcels(self) -> None:
        while True:
            with self._changed:
                if self._is_stopped:
                    return
                left_s = self._parcels[0][0] - time.monotonic() if self._parcels else None
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                    continue
                parcel = heapq.heappop(self._parcels)[2]
            self._send(parcel)

    def _send(self, parcel: _Parcel) -> None:
        status = post(parcel.url, parcel.body, parcel.secret)
        fields = (parcel.event, parcel.job_id, parcel.url, status, parcel.number, parcel.is_forged)
        self.delivered.append(Delivered(*fields))
        if parcel.receiver_id is not None and not parcel.is_forged:
            about = {"delivery_id": f"dlv_{parcel.job_id}", "event_type": parcel.event, "job_id": parcel.job_id}
            self._receivers.note(parcel.receiver_id, {**about, "attempt_number": parcel.number}, status)
        is_taken = status is not None and 200 <= status < 300  # that any 2xx counts is INFER
        if not is_taken and not parcel.is_forged and parcel.number <= len(self._how.retry_after_s):
            pause_s = self._how.retry_after_s[parcel.number - 1]
            self._post(parcel._replace(number=parcel.number + 1), pause_s)


def signature(body: bytes, secret: str, at: float) -> str:
    """What `Framelane-Signature` holds: docs.framelane.io/webhooks/signature-verification."""
    signed_at = str(int(at))
    made = hmac.new(secret.encode(), signed_at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={signed_at},v1={made}"


def post(url: str, body: bytes, secret: str) -> int | None:
    """Send one event, signed now (each try anew: INFER), and return the status; None: no answer came."""
    parts = urlsplit(url)
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json", "Framelane-Signature": signature(body, secret, time.time())}
    try:
        with contextlib.closing(make(parts.hostname or "", parts.port, timeout=TIMEOUT_S)) as connection:
            connection.request("POST", parts._replace(scheme="", netloc="").geturl() or "/", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
    except (OSError, ValueError, http.client.HTTPException):
        return None


def event_body(shape: Shape, event: str, job: dict[str, Any]) -> bytes:
    """Write one event; what each shape looks like is in `Deliveries`."""
    kind, at = job["kind"], iso(time.time())
    envelope = {"id": f"evt_{secrets.token_hex(13)}", "type": event, "created_at": at}
    output, error = job.get("output") or {}, job.get("error")
    written: dict[Shape, dict[str, Any]] = {
        "data": {**envelope, "data": job},
        "data.job": {**envelope, "data": {"job": job}},
        "data.object": {**envelope, "data": {"object": job}},
        "job": {**job, "event": event},
        "flat": {
            "event": event,
            "job_id": job["id"],
            "status": job["status"],
            "output_url": output.get("url"),
            "error": error,
            "metadata": job["metadata"],
            "timestamp": at,
        },
        "ids": {"event": event, f"{kind}_id": job["id"]},
    }
    return json.dumps(written[shape]).encode()
