"""The workspace: its jobs, the idempotency keys that made them, and the requests that wait for them."""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from framelane_celery.testing.clock import Clock
from framelane_celery.testing.jobs import Cancelled, Completed, Life, Outcome, StoredJob, Submission
from framelane_celery.testing.quota import Quota, Used, used_since
from framelane_celery.testing.refusals import Refusal
from framelane_celery.testing.switches import Switches

KEY_LIVES_S = 86_400.0
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Accepted:
    """What a submission led to."""

    job: StoredJob
    is_replay: bool


@dataclass
class _Key:
    path: str
    fingerprint: bytes
    made: StoredJob | Refusal
    used_at: float


class Workspace:
    """All state of the server that a request can change, behind one lock."""

    def __init__(
        self,
        clock: Clock,
        switches: Switches,
        *,
        duration: Callable[[Submission], float],
        outcome: Callable[[Submission], Outcome],
        quota: Quota,
    ) -> None:
        self.id = make_id("ws", clock.now())
        self.duration, self.outcome, self.quota = duration, outcome, quota
        self._clock, self._switches = clock, switches
        self._lock = threading.RLock()  # `outcome` and `duration` may look at the server's jobs
        self._jobs: dict[str, StoredJob] = {}
        self._ids: list[str] = []  # by number: the first job's is 1
        self._changed: dict[str, threading.Condition] = {}
        self._keys: dict[str, _Key] = {}
        self._is_closed = False
        self.tell: Callable[[StoredJob], None] = lambda job: None  # hears of each job that is made, or ended by hand
        clock.on_advance(self.wake)

    def open(self) -> None:
        """Begin the first period of a quota that is not counted by months."""
        with self._lock:
            self.quota.periods.begins_at = self._clock.now()

    def submit(self, submission: Submission, path: str, fingerprint: bytes, refusal: Refusal | None = None) -> Accepted:
        """Accept one job, or find what its key has led to; `refusal` is what speaks against the body.

        Resend: safe with a key for 24 hours (docs.framelane.io/renders/overview). INFER: keys belong to the workspace,
                a key used on another endpoint is a conflict, a failed or cancelled job is replayed like any other, and
                refused requests leave no trace under their key unless the switch `stores_refusals` says so.
        Raises: Refusal 409 conflict, 429 or 402 quota_exceeded, or the one given.
        """
        with self._lock:
            now = self._clock.now()
            known = self._live_key(submission.idempotency_key, now)
            if known is not None and (refusal is None or isinstance(known.made, Refusal)):
                return self._replay(known, path, fingerprint)
            try:
                if refusal is not None:
                    raise refusal
                self.quota.check(submission.kind, self._jobs.values(), now)
            except Refusal as said:
                if self._switches.stores_refusals and known is None and submission.idempotency_key is not None:
                    self._keys[submission.idempotency_key] = _Key(path, fingerprint, copy.copy(said), now)
                raise
            job = self._make_job(replace(submission, number=len(self._jobs) + 1), now)
            self._jobs[job.id] = job
            self._ids.append(job.id)
            self._changed[job.id] = threading.Condition(self._lock)
            if submission.idempotency_key is not None:
                self._keys[submission.idempotency_key] = _Key(path, fingerprint, job, now)
            self.tell(job)
            return Accepted(job, False)

    def is_known_key(self, key: str | None) -> bool:
        """Say whether a key has led to an answer that is kept, in the last 24 hours."""
        with self._lock:
            return self._live_key(key, self._clock.now()) is not None

    def get(self, job_id: str) -> StoredJob | None:
        """Find one job."""
        with self._lock:
            return self._jobs.get(job_id)

    def jobs(self) -> list[StoredJob]:
        """All jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def newest(self, below: float) -> Iterator[StoredJob]:
        """The jobs with a number below this one, newest first: a page of a list begins where the last one ended.

        Without the lock: jobs are only added, and one that changes is replaced whole.
        """
        last = int(min(max(below - 1, 0), len(self._ids)))
        for index in range(last - 1, -1, -1):
            yield self._jobs[self._ids[index]]

    def wait(self, job_id: str, seconds: float) -> StoredJob:
        """Sleep until the job ends, `seconds` pass on the server's clock or on the wall, or the server stops."""
        real_deadline, deadline_at = time.monotonic() + seconds, self._clock.now() + seconds
        with self._lock:
            while True:
                job, now = self._jobs[job_id], self._clock.now()
                real_left = real_deadline - time.monotonic()
                if self._is_closed or job.life.phase(now).is_terminal or now >= deadline_at or real_left <= 0:
                    return job
                ends_at = job.life.ends_at
                until_end = None if ends_at is None else self._clock.real_seconds_until(ends_at)
                self._changed[job_id].wait(real_left if until_end is None else min(real_left, until_end))

    def cancel(self, job: StoredJob) -> StoredJob:
        """Cancel one job.

        Source: "cancel a queued render", docs.framelane.io/renders/overview; the rest is INFER.
        Raises: Refusal 409 conflict when it has ended, or is processing and the switch says so.
        """
        with self._lock:
            job, now = self._jobs[job.id], self._clock.now()
            status = job.life.phase(now).status
            if job.life.phase(now).is_terminal or (status == "processing" and not self._switches.cancel_processing):
                raise Refusal(409, "conflict", f"A {job.kind} that is {status} cannot be cancelled.")
            return self._settle(job, Cancelled(), now)

    def end(self, job_id: str, outcome: Outcome | None = None) -> StoredJob:
        """End one job now, as a test says.

        Raises: KeyError when there is no such job, ValueError when it has ended already.
        """
        with self._lock:
            job, now = self._jobs[job_id], self._clock.now()
            phase = job.life.phase(now)
            if phase.is_terminal:
                raise ValueError(f"{job_id} has ended already: {phase.status}")
            return self._settle(job, outcome or Completed(), now)

    def usage(self) -> tuple[float, float, Used]:
        """Count this period's work; what `reset_quota` forgave is work all the same.

        Units:  the period's start and end are epoch seconds, the end is no part of it.
        """
        with self._lock:
            start, end = self.quota.periods.around(self._clock.now())
            return start, end, used_since(start, self._jobs.values())

    def reset_quota(self) -> None:
        """Start counting the quota anew, as an upgrade of the plan would."""
        with self._lock:
            self.quota.reset_at = self._clock.now()

    def wake(self) -> None:
        """Make every held request look again."""
        with self._lock:
            for condition in self._changed.values():
                condition.notify_all()

    def close(self) -> None:
        """Let every held request go with what it has."""
        with self._lock:
            self._is_closed = True
        self.wake()

    def _live_key(self, key: str | None, now: float) -> _Key | None:
        known = self._keys.get(key) if key is not None else None
        return known if known is not None and now < known.used_at + KEY_LIVES_S else None

    def _replay(self, known: _Key, path: str, fingerprint: bytes) -> Accepted:
        if (known.path, known.fingerprint) != (path, fingerprint):
            raise Refusal(409, "conflict", "Idempotency-Key was already used with a different request body.")
        if isinstance(known.made, StoredJob):
            return Accepted(self._jobs[known.made.id], True)
        again = copy.copy(known.made)
        again.is_replay = True
        raise again

    def _make_job(self, submission: Submission, now: float) -> StoredJob:
        life = Life(
            accepted_at=now,
            duration_s=self.duration(submission),
            outcome=self.outcome(submission),
            ingests=submission.body.get("ingest_external") is True,
            unknown_status=self._switches.unknown_status,
        )
        return StoredJob(submission.number, make_id(submission.kind, now), self.id, submission, life)

    def _settle(self, job: StoredJob, outcome: Outcome, now: float) -> StoredJob:
        ended = replace(job, life=job.life.settle(outcome, now))
        self._jobs[job.id] = ended
        self._changed[job.id].notify_all()
        self.tell(ended)
        return ended


def make_id(prefix: str, now: float) -> str:
    """Make a ULID with a prefix: `render_01J8QR2K5VKDGN2T4FBM3CZYX7`."""
    value = int(now * 1000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))
