"""The record: the truth about one Celery task of ours.

``step`` is what messages carry. It is raised whenever the record starts to wait for something else, so a wake-up that
is late, doubled or replayed does not fit any more and is dropped. ``version`` is raised by every write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import NAMESPACE_URL, uuid5

from framelane_celery.accounts import DEFAULT

Until = Literal["start", "slot", "job", "instant", "release", "running", "replacing", "dead", "done"]
JobKind = Literal["render", "task", "import"]
Ending = Literal["revoked", "expired"]
Outcome = Literal["completed", "failed", "cancelled", "timed_out", "not_found", "outcome_unknown", "worker_lost"]

WAITING: Final[frozenset[str]] = frozenset({"start", "slot", "job", "instant", "release"})
"""States in which nothing runs: the record waits for a message, a slot, a job, the clock or an operator."""

KEY_LIFE_S: Final = 24 * 3600
"""How long Framelane keeps an idempotency key (framelane_api.md §9)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One Celery task of ours. Instants are epoch seconds of the room's clock.

    ``call`` is the saved signature and ``request`` the saved bytes, both as JSON text: they are parsed only where they
    are needed, so that a sweep over 100,000 records does not pay for them. They are not in the repr, nor is the job.
    """

    id: str
    task: str
    call: str = field(repr=False)
    digest: str
    until: Until = "start"
    step: int = 0
    version: int = 0
    due_at: float | None = None
    account: str = DEFAULT
    queue: str | None = None  # that it was called with; None: its task's own
    trace: dict[str, Any] | None = None  # where it was called, for `monitoring.tracing`
    created_at: float = 0.0
    expires_at: float | None = None
    # The run that holds the lease; `due_at` is the end of the lease then.
    run_id: str | None = None
    run_node: str | None = None
    begun: bool = False
    resends: int = 0
    lost_runs: int = 0
    # The attempt: one job submitted on behalf of the task. `key` numbers its idempotency key: a new one only where no
    # job can be under the old one, or that job has ended. `key_id` is the task id that the key is made of, if another.
    attempt: int = 1
    key: int = 1
    key_id: str | None = None
    budget_from: int = 1  # the attempt from which the routes count: a replay has a budget of its own
    request: str | None = field(default=None, repr=False)
    first_post_at: float | None = None
    pauses: int = 0
    queued_at: float | None = None
    bucket: str | None = None  # whose slots it queues for, if its account has a limit of its own
    head_start_s: float = 0.0  # in the queue of slots, for its Celery priority
    job_id: str | None = None
    job_kind: JobKind | None = None
    job: dict[str, Any] | None = field(default=None, repr=False)
    accepted_at: float | None = None
    deadline_at: float | None = None
    reported_at: float | None = None
    hinted_at: float | None = None  # the last news that the job may have ended
    # The last failure, {"code", "message", "status" of an HTTP refusal}, and what the route table made of it.
    failure: dict[str, Any] | None = None
    retry_queue: str | None = None  # where the wake-ups of a new attempt go
    held_at: float | None = None  # when it was first held for this attempt
    letter: dict[str, Any] | None = None  # {"at", "queue", "route", "keep_waiting", "announced"}
    replays: int = 0  # how often this work was replayed, under this id and those before it
    # How it ends.
    outcome: Outcome | None = None
    ending: Ending | None = None
    finished_at: float | None = None
    history: tuple[dict[str, Any], ...] = ()
    unread: dict[str, Any] | None = None  # fields that a newer version has added: carried along

    @property
    def lane(self) -> str | None:
        """The sorted set, by ``due_at``, in which the watcher finds the record; None: nobody has to look."""
        if self.due_at is None:
            return None
        if self.is_letter:
            return "dead" if (self.letter or {}).get("announced") else "dead:new"
        if self.ending or self.until not in ("job", "slot", "release"):
            return "clock"
        if self.until == "job":
            return look_lane(self.account)
        paced_as = "task" if self.job_kind == "import" else self.job_kind or "render"  # no page limits imports
        return f"slot:{self.bucket or paced_as}" if self.until == "slot" else f"hold:{self.account}"

    @property
    def is_over(self) -> bool:
        return self.until in ("done", "dead")

    @property
    def is_letter(self) -> bool:
        """A dead letter: its task has failed (``dead``), or its pipeline is kept waiting (``release``). What was
        revoked is none: the watcher ends it."""
        return self.letter is not None and self.until in ("dead", "release") and not self.ending

    @property
    def has_arguments(self) -> bool:
        """False: it was adopted (`framelane_celery.orphans`) without them, so nobody can build its request again."""
        return bool(self.digest)

    @property
    def attempts_made(self) -> int:
        """How many the routes have to count."""
        return self.attempt - self.budget_from + 1

    def idempotency_key(self, namespace: str) -> str:
        """The key of this attempt: the same for every POST of it, in whatever process."""
        return str(uuid5(NAMESPACE_URL, json.dumps(["framelane", namespace, self.key_id or self.id, self.key])))


def look_lane(account: str) -> str:
    """The lane of an account's looks: a list shows the jobs of its key's workspace only."""
    return "look" if account == DEFAULT else f"look:{account}"
