"""The runs of a FramelaneTask: the first submits, the second finishes.

The first run submits and raises Ignore: nobody waits. The second run, woken when the job is over, returns the job or
raises its error, and Celery does the rest: the tail, the result, the chord.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery.exceptions import Ignore, SoftTimeLimitExceeded
from pydantic import ValidationError

from framelane_celery import pacing, records, wakeups
from framelane_celery.errors import (
    ApiError,
    FramelaneError,
    InternalError,
    InvalidArguments,
    JobFailed,
    RateLimited,
    SettingsError,
    TransportError,
    Unauthorized,
)
from framelane_celery.models import Job, JobRequest, RenderRequest, invalid_arguments
from framelane_celery.monitoring import PROGRESS, progress_meta, say, tracing
from framelane_celery.records import JobKind, Outcome, Record
from framelane_celery.room import SpendClaim, stored
from framelane_celery.routing import Hold
from framelane_celery.tasks.begin import TriesAgain, Waits, drop
from framelane_celery.tasks.jobs import error_of, failure_of_refusal, job_metadata, owned, request_model
from framelane_celery.tasks.routes import decide
from framelane_celery.tasks.run import WorkerRun
from framelane_celery.tasks.tail import show_no_result

if TYPE_CHECKING:
    from celery.app.task import Context

    from framelane_celery.client import FramelaneClient
    from framelane_celery.tasks.task import FramelaneTask

logger = logging.getLogger(__name__)

PAUSES_MAX: Final = 200
"""How often one attempt's POST is put off before the task fails with what put it off: about 16 hours at the cap."""

JOBS_SEARCHED: Final = 5000
"""How many jobs are searched for one whose POST was never answered. The list's order is not documented."""

DAY_S: Final = 24 * 3600

KEY_MARGIN_S: Final = 3600
"""No POST is repeated within the last hour of its key's life: the server's clock is not ours."""


class JobRun(WorkerRun):
    """One run of a task whose work is a job."""

    task: FramelaneTask

    def __init__(self, task: FramelaneTask, request: Context) -> None:
        super().__init__(task, request)
        self._may_hold = True  # what no new day would let through is not held for one
        self._unanswered = False  # whether an earlier POST of this attempt may have made a job

    @property
    def client(self) -> FramelaneClient:
        """Its account's. Raises: Unauthorized, without a key: the routes decide, as about one that is wrong."""
        from framelane_celery.client import shared_client  # requests is imported only where HTTP is spoken

        try:
            return shared_client(self.settings.of(self.record.account))
        except SettingsError as error:
            raise Unauthorized(str(error), 401, "unauthorized") from None

    @property
    def _kind(self) -> JobKind:
        return self.record.job_kind or self.task.job_kind or "render"

    def work(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """By what the record says: submit, or finish."""
        return self._finish(args, kwargs) if self.record.outcome else self._submit(args, kwargs)

    # --- the first run: submit -----------------------------------------------------------------------------------

    def _submit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            self._unanswered = self.record.first_post_at is not None
            if self.record.request is None:
                self._prepare(args, kwargs)
            elif not self._unanswered:
                self._move(lambda old, now: records.open_post(old, run_id=self.run_id, now=now))
            self._wait_for(self._find() if self._is_key_old() else self._post())
        except (TransportError, InternalError, RateLimited) as error:
            return self._pause(error)
        except (ApiError, InvalidArguments, JobFailed) as error:
            return self._fail(error)
        except SoftTimeLimitExceeded:
            if self.record.request is None:  # the body's own affair
                raise
            return self._pause(TransportError("the soft time limit ended the POST"))

    def _prepare(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Build the request and store its bytes, before the first POST."""
        with self.user_code():
            try:
                model = request_model(self.task.name, self.task.run(*args, **kwargs))
            except ValidationError as error:  # pydantic's own does not survive a JSON result backend
                raise invalid_arguments(error) from None
        body = model.body(metadata=job_metadata(self.task.name, self.record.key_id or self.record.id))
        text = json.dumps({"kind": model.kind, "path": model.path, "body": body.decode()}, ensure_ascii=False)

        def prepare(old: Record, now: float) -> Record | None:
            return records.prepare(old, run_id=self.run_id, request=text, kind=model.kind, now=now)

        claim = self._spend_claim(model)
        if claim is None:
            self._move(prepare)
        else:
            self._spend(claim, prepare)

    def _spend_claim(self, model: JobRequest) -> SpendClaim | None:
        guard = self.settings.of(self.record.account).spend_guard
        if not guard.counts:
            return None
        seconds = model.estimated_output_s() if isinstance(model, RenderRequest) else None
        seconds = seconds or 0.0
        return SpendClaim(self.record.account, seconds / 60, guard.submissions_per_day, guard.minutes_per_day)

    def _spend(self, claim: SpendClaim, prepare: Callable[[Record, float], Record | None]) -> None:
        """Store the bytes only if the day's caps allow it, in one script.

        Raises: JobFailed with code ``spend_guard``.
        """
        for _ in range(10):
            new = prepare(self.record, self._now())
            saved = self.room.save(self.record, new, claim=claim) if new is not None else "conflict"
            if saved == "saved" and new is not None:
                self.record = stored(self.record, new)
                return
            if saved == "over_budget":
                self._may_hold = claim.minutes <= (claim.minutes_per_day or claim.minutes)
                raise self._over_budget(claim)
            self._move(lambda old, now: records.hold_lease(old, run_id=self.run_id, now=now, lease_s=self._lease_s))
        drop(self.task, self.request, "written by too many at once")

    def _over_budget(self, claim: SpendClaim) -> JobFailed:
        submissions, minutes = self.room.spent(claim.account)
        return JobFailed(
            f"the spend guard of account {claim.account} lets no more through today (UTC): {submissions} of "
            f"{claim.submissions_per_day or 'any number of'} submissions and {minutes:g} of "
            f"{claim.minutes_per_day or 'any number of'} minutes are spent, this one is about {claim.minutes:g}",
            None,
            "spend_guard",
        )

    def _post(self) -> Job:
        request = json.loads(self.record.request or "{}")
        key = self.record.idempotency_key(self.settings.namespace or "")
        with tracing.submitting(self.record) as span:
            submitted = self.client.submit(request["path"], request["body"].encode(), key)
            tracing.accepted(span, submitted.job.id)
        if not submitted.is_replay:
            return submitted.job
        try:  # a replay may show the state of long ago (framelane_api.md §9)
            return self.client.get_job(request["kind"], submitted.job.id)
        except ApiError as error:  # the submission was not refused: there is a job, and looks will tell
            say(logger.warning, self.record, "job %s: %s", submitted.job.id, error)
            return submitted.job

    def _wait_for(self, job: Job) -> NoReturn:
        kind = self._kind
        deadline_s = self.task.deadline_s or self.settings.deadline_s

        def accept(old: Record, now: float) -> Record | None:
            return records.accept(old, run_id=self.run_id, job=job.to_json(), kind=kind, now=now, deadline_s=deadline_s)

        self._show_and_move(accept)
        raise Waits(f"waiting for job {job.id}")

    def _show_and_move(self, transition: Callable[[Record, float], Record | None]) -> None:
        """PROGRESS first, then the record waits: the other way round it could overwrite the end.

        If this run was stopped in between, and another one has ended the task, it has done so all the same.
        """
        seen = transition(self.record, self._now())
        is_shown = seen is not None and seen.until != "running"
        if seen is not None and is_shown:
            self._show(seen)
        try:
            self._move(transition)
        except Ignore:
            if is_shown:
                wakeups.ask_mend(self.task.app, self.record.id, wakeups.Call.from_text(self.record.call))
            raise

    def _show(self, record: Record) -> None:
        try:
            self.task.update_state(state=PROGRESS, meta=progress_meta(record))
        except Exception:  # noqa: BLE001 - only for the eye: the job is paid for, and must be waited for
            say(logger.exception, record, "the result backend did not take PROGRESS")

    def _pause(self, error: TransportError | InternalError | RateLimited) -> Any:
        """The POST may be repeated: same bytes, same key, later. It costs no attempt."""
        if self.record.pauses >= PAUSES_MAX:
            self._unanswered = self._unanswered or not isinstance(error, RateLimited)
            return self._fail(error)
        wait_s = pacing.pause_s(getattr(error, "retry_after_s", None), self.record.pauses, chance=random.random())
        if isinstance(error, RateLimited):
            self.room.brake(self.settings.bucket(self.record.account, self._kind), wait_s)
        say(logger.info, self.record, "submitted again in %.1f s: %s", wait_s, error)
        is_answered = isinstance(error, RateLimited) and not self._unanswered
        self._move(lambda old, now: records.pause(old, run_id=self.run_id, at=now + wait_s, is_answered=is_answered))
        raise Waits(f"submitted again in {wait_s:.1f} s")

    def _fail(self, error: FramelaneError) -> Any:
        """The submission is refused, and the routes decide what becomes of it."""
        failure = failure_of_refusal(error)
        outcome: Outcome = "outcome_unknown" if failure["code"] == "outcome_unknown" else "failed"
        decision = decide(self.task.app, self.settings, self.record, failure["code"], may_hold=self._may_hold)
        if isinstance(decision, Hold):  # the hold first: who finds a held record without one releases it
            self.room.hold(
                self.record.account, failure["code"], failure["message"], self._hold_ends_at(failure["code"])
            )

        def fail(old: Record, now: float) -> Record | None:
            return records.fail(
                replace(old, job_kind=old.job_kind or self._kind),
                outcome=outcome,
                failure=failure,
                decision=decision,
                now=now,
                resend_after_s=self.settings.resend_after_s,
                run_id=self.run_id,
                is_refused=not self._unanswered,
            )

        self._show_and_move(fail)
        if self.record.until == "running":
            return self.end_in(error_of(self.record), error)
        waits = TriesAgain if self.record.until == "instant" else Waits
        raise waits(f"until {self.record.until}: {failure['code']}")

    def _hold_ends_at(self, code: str) -> float | None:
        """The spend guard counts by days (UTC); when a quota's period ends, the watcher asks."""
        return (self._now() // DAY_S + 1) * DAY_S if code == "spend_guard" else None

    def _is_key_old(self) -> bool:
        first = self.record.first_post_at
        return first is not None and self._now() - first > records.KEY_LIFE_S - KEY_MARGIN_S

    def _find(self) -> Job:
        """The key is forgotten by now, so the POST is never repeated: look whether it made a job.

        Raises: JobFailed with code ``outcome_unknown``, if none of the newest jobs is this attempt's.
        """
        wanted = job_metadata(self.task.name, self.record.key_id or self.record.id).items()
        first = self.record.first_post_at or 0.0
        jobs = self.client.iter_jobs(self._kind)
        for job in islice(jobs, JOBS_SEARCHED):
            if wanted <= (job.metadata or {}).items() and job.created_at and job.created_at.timestamp() > first - 3600:
                return job
        raise JobFailed(
            "the submission was not answered for as long as its idempotency key lives; whether a job was made is not "
            f"known: look for metadata celery_task_id={self.record.key_id or self.record.id} before you run the task "
            "again",
            None,
            "outcome_unknown",
        )

    # --- the second run: finish ----------------------------------------------------------------------------------

    def _finish(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        record, outcome = self.record, self.record.outcome
        tracing.waited(record)
        result = None
        if outcome == "completed":
            with self.user_code():
                job = owned(Job.model_validate(record.job), record.account)
                result = self.task.completed(job, *args, **kwargs)
        if record.lost_runs and self.has_stored_success():
            self.cut_tail()
        self.ask_lease()
        if outcome != "completed":
            return self.end_in(error_of(record))
        show_no_result(self.request, result)
        return result
