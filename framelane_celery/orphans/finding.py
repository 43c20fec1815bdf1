"""Who is an orphan (pure), and the round over the API's lists that finds them."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from celery import states

from framelane_celery.accounts import DEFAULT
from framelane_celery.errors import FramelaneError, NotFound
from framelane_celery.models import Job
from framelane_celery.monitoring import PROGRESS
from framelane_celery.records import ForeignRecord, JobKind, Record, look_lane
from framelane_celery.room import TOMBSTONE_S, Room, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import FramelaneTask

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.client import FramelaneClient

GONE_AFTER_S: Final = 60.0
"""A job that cannot be found is given up only so long after it was accepted: reads may lag behind writes."""

PAGE: Final = 100
PAGES_MAX: Final = 2000
"""How many pages are read of one kind: a list without end must not keep anybody for ever."""

Why = Literal["no_record", "ended", "other_attempt", "outcome_unknown"]


class NoSuchOrphan(FramelaneError):
    """The job, or the record, is no orphan (any more)."""


class Orphan(NamedTuple):
    """A job of ours that no record awaits."""

    id: str
    kind: JobKind
    task: str
    task_id: str
    why: Why
    """no_record: the room knows nothing of its task. ended: its task is over, and it goes on. other_attempt: its task
    waits for another job. outcome_unknown: its task was told that nobody knows whether it was made."""
    job: Job
    is_known: bool = False
    """Our result backend has the task at PROGRESS: it is surely this app's."""
    needs_arguments: bool = False
    """The task's ``completed`` cannot be called with the job alone."""
    account: str = DEFAULT
    """In whose workspace it was found."""

    @property
    def is_adoptable(self) -> bool:
        return self.why == "no_record"

    @property
    def adopts_itself(self) -> bool:
        """Whether its wait can be brought back without anybody's word: it goes on, and needs nothing that is lost."""
        return self.is_adoptable and not self.job.is_terminal and not self.needs_arguments


class Orphans(NamedTuple):
    """What a round has found."""

    jobs: list[Orphan]
    gone: list[Record]
    """Records that wait for a job which the API does not know."""
    listed: int
    """Jobs that were looked through, whoever's."""


WHY: Final[Mapping[str, str]] = {
    "no_record": "no record of its task is there",
    "ended": "its task is over, and it goes on",
    "other_attempt": "its task waits for another job by now",
    "outcome_unknown": "its task ended without knowing of it",
    "not_found": "the API does not know its job",
}
"""Each code, for people."""


# --- who is one: pure --------------------------------------------------------------------------------------------


def why_orphan(job: Job, record: Record | None, *, now: float, lease_s: float) -> Why | None:
    """Why no record awaits a job of ours; None: one does, or did, or it is too early to say.

    ``record`` is its task's. One that has no job yet finds the one that it posted by its key, so only a job that it has
    done with is an orphan.
    """
    made_at = made_at_of(job)
    if made_at is not None and now - made_at < lease_s:
        return None
    if record is None:
        return "no_record"
    if record.is_over or record.is_letter:
        if _was_never_seen(job, record):
            return "outcome_unknown"
        return None if job.is_terminal else "ended"
    done_with = {entry.get("job_id") for entry in record.history}
    is_another = job.id in done_with if record.job_id is None else job.id != record.job_id
    return "other_attempt" if is_another and not job.is_terminal else None


def _was_never_seen(job: Job, record: Record) -> bool:
    """Whether this may be the job of a POST that nobody saw answered. What was paid for counts, ended or not."""
    posted_at, made_at = record.first_post_at, made_at_of(job)
    if record.outcome != "outcome_unknown" or record.job_id is not None or None in (posted_at, made_at):
        return False
    is_worth_it = job.is_completed or not job.is_terminal
    return is_worth_it and made_at > posted_at - 3600  # type: ignore[operator]


def made_at_of(job: Job) -> float | None:
    return job.created_at.timestamp() if job.created_at else None


def _ended_at(job: Job) -> float:
    known = job.completed_at or job.updated_at or job.created_at
    return known.timestamp() if known else 0.0


def can_finish(task: FramelaneTask, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> bool:
    """Whether the task's ``completed`` can be called with the job and these arguments: by its signature alone."""
    try:
        inspect.signature(task.completed).bind(None, *args, **(kwargs or {}))
    except (TypeError, ValueError):
        return False
    return True


# --- finding -----------------------------------------------------------------------------------------------------


class Search:
    """One slow round over the lists of an account's jobs, and over what waits there. Each `step` makes one read.

    Who has a budget of reads pays for it at leisure. A list may be old when its page comes, so what looks like an
    orphan of a task that has a record is read once more before it counts. Not safe for threads.

    ``is_old_too``: jobs too that ended longer ago than results, or finished records, are remembered.
    """

    def __init__(self, app: Celery, account: str = DEFAULT, *, is_old_too: bool = False) -> None:
        self._app, self._account, self._is_old_too = app, account, is_old_too
        self._settings = settings_of(app)
        self.room = room_of(app, self._settings)
        self._lists: deque[JobKind] = deque(("render", "task"))
        self._cursor: str | None = None
        self._cursors: set[str] = set()
        self._listed: set[str] = set()
        self._doubts: deque[Orphan] = deque()
        self._unlisted: deque[Record] = deque()
        self._is_listed = False
        self._jobs: list[Orphan] = []
        self._gone: list[Record] = []

    @property
    def is_over(self) -> bool:
        return self._is_listed and not self._doubts and not self._unlisted

    @property
    def found(self) -> Orphans:
        """What was found so far."""
        return Orphans(self._jobs, self._gone, len(self._listed))

    def step(self, client: FramelaneClient) -> bool:
        """Make one read of the API, at most. False: the round is over. What fails may be tried again: nothing is lost.

        Raises: ApiError (NotFound: this API has no list), TransportError, RoomError; FramelaneError, if the result
        backend is away.
        """
        if self._doubts:
            self._look_again(client)
        elif self._lists:
            self._read_page(client)
        elif not self._is_listed:
            self._unlisted, self._is_listed = deque(self._waits_unlisted()), True
        elif self._unlisted:
            self._look_at_wait(client)
        return not self.is_over

    def _read_page(self, client: FramelaneClient) -> None:
        kind = self._lists[0]
        page = client.list_jobs(kind, cursor=self._cursor, limit=PAGE)
        now = self.room.holds()[1]
        new = {job.id: job for job in page.data if job.id not in self._listed}
        suspects = [found for job in new.values() if (found := self.judged(job, kind, now)) is not None]
        self._jobs += [one for one in suspects if one.why == "no_record"]
        self._doubts += [one for one in suspects if one.why != "no_record"]
        self._listed.update(new)
        self._cursor = page.next_cursor
        is_endless = self._cursor in self._cursors or len(self._cursors) >= PAGES_MAX
        if page.is_last or not page.data or is_endless:
            self._lists.popleft()
            self._cursor, self._cursors = None, set()
        else:
            self._cursors.add(str(self._cursor))

    def _look_again(self, client: FramelaneClient) -> None:
        doubt = self._doubts[0]
        try:
            found = self.judged(client.get_job(doubt.kind, doubt.id), doubt.kind, self.room.holds()[1])
        except NotFound:
            found = None
        self._doubts.popleft()
        if found is not None:
            self._jobs.append(found)

    def _waits_unlisted(self) -> list[Record]:
        now = self.room.holds()[1]
        waits = self.room.scan(look_lane(self._account))
        return [one for one in waits if one.job_id not in self._listed and is_old_wait(one, now)]

    def _look_at_wait(self, client: FramelaneClient) -> None:
        record = self._unlisted[0]
        if is_gone(client, record):
            self._gone.append(record)
        self._unlisted.popleft()

    def judged(self, job: Job, kind: JobKind, now: float) -> Orphan | None:
        task, task_id = owner_of(self._app, job)
        if task is None:
            return None
        try:
            record = _record_of(self.room, task_id)
        except ForeignRecord:  # of a newer version: its own affair
            return None
        why = why_orphan(job, record, now=now, lease_s=self._settings.lease_s)
        if why is None:
            return None
        needs_arguments = (job.is_completed or not job.is_terminal) and not can_finish(task)
        found = Orphan(
            job.id, kind, task.name, task_id, why, job, needs_arguments=needs_arguments, account=self._account
        )
        return self._without_record(found, task, now) if record is None else found

    def _without_record(self, found: Orphan, task: FramelaneTask, now: float) -> Orphan | None:
        """A record that is done is forgotten in the end: the result may tell that the task is over."""
        is_old = now - _ended_at(found.job) > min(TOMBSTONE_S, _result_life_s(self._app))
        if found.job.is_terminal and is_old and not self._is_old_too:
            return None
        state = _state_of(task, found.task_id)
        if state in states.READY_STATES:
            return None if found.job.is_terminal else found._replace(why="ended")
        return found._replace(is_known=state == PROGRESS)


def owner_of(app: Celery, job: Job) -> tuple[FramelaneTask | None, str]:
    """The task of this app that a job's metadata names, and the task id. None: it is none of ours."""
    named, task_id = job.metadata.get("celery_task"), job.metadata.get("celery_task_id")
    task = app.tasks.get(named) if named and task_id else None
    return (task if isinstance(task, FramelaneTask) else None, task_id or "")


def _record_of(room: Room, task_id: str) -> Record | None:
    """The record under whose id a job was submitted; or the one of its replay, where that has taken over its key."""
    record, _ = room.read(task_id)
    for _ in range(10):
        replayed_as = (
            (record.letter or {}).get("replayed_as") if record is not None and record.until == "done" else None
        )
        after = room.read(replayed_as)[0] if replayed_as else None
        if after is None or after.key_id != task_id:
            break
        record = after
    return record


def _state_of(task: FramelaneTask, task_id: str) -> str:
    try:
        state: str = task.backend.get_state(task_id)
    except NotImplementedError:  # results are disabled
        return str(states.PENDING)
    except Exception as error:
        raise FramelaneError(f"the result backend is away: {type(error).__name__}") from error
    return state


def _result_life_s(app: Celery) -> float:
    expires = app.conf.result_expires
    return float(getattr(expires, "total_seconds", lambda: expires)() or "inf")


def is_old_wait(record: Record, now: float) -> bool:
    return record.job_id is not None and now - (record.accepted_at or now) > GONE_AFTER_S


def is_gone(client: FramelaneClient, record: Record) -> bool:
    try:
        client.get_job(record.job_kind or "render", record.job_id or "")
    except NotFound:
        return True
    return False


def find(app: Celery, *, is_old_too: bool = False) -> Orphans:
    """Go through all jobs of each account and all that waits: a read for each hundred jobs, and one for each doubt.

    Raises: SettingsError; what `Search.step` raises.
    """
    jobs: dict[str, Orphan] = {}
    gone: list[Record] = []
    listed = 0
    for account in accounts_of(app):
        search, client = Search(app, account, is_old_too=is_old_too), client_of(app, account)
        while search.step(client):
            pass
        for job in search.found.jobs:
            jobs.setdefault(job.id, job)  # two keys may be of one workspace
        gone += search.found.gone
        listed += search.found.listed
    return Orphans(list(jobs.values()), gone, listed)


def read(app: Celery, job_id: str) -> Orphan:
    """Read one orphan anew, from the API and the room.

    Raises: NoSuchOrphan, which says why it is none; ApiError, TransportError, RoomError.
    """
    account, job, kind = _read_job(app, job_id)
    search = Search(app, account, is_old_too=True)
    now = search.room.holds()[1]
    found = search.judged(job, kind, now)
    if found is None:
        raise NoSuchOrphan(f"{job_id} is no orphan: {_why_not(app, search.room, job, now)}")
    return found


def _read_job(app: Celery, job_id: str) -> tuple[str, Job, JobKind]:
    """Read a job of which only the id is known, whoever's it is: most ids tell the kind."""
    kinds: tuple[JobKind, ...] = ("task", "render") if job_id.startswith("task_") else ("render", "task")
    for account in accounts_of(app):
        for kind in kinds:
            try:
                return account, client_of(app, account).get_job(kind, job_id), kind
            except (NotFound, ValueError):  # ValueError: no id at all
                continue
    raise NoSuchOrphan(f"{job_id!r}: the API knows no such job")


def _why_not(app: Celery, room: Room, job: Job, now: float) -> str:
    task, task_id = owner_of(app, job)
    if task is None:
        return f"it names no task of {app.main}"
    if now - (made_at_of(job) or 0) < settings_of(app).lease_s:
        return "it is younger than a lease, so its record may come yet"
    record = room.read(task_id)[0]
    return f"its task {task_id} " + (f"is {record.until}" if record is not None else "is over")


def accounts_of(app: Celery) -> list[str]:
    """Those that can be asked: the top level may have no key, where each task names an account."""
    settings = settings_of(app)
    return [name for name in settings.account_names if not settings.accounts or settings.of(name).api_key is not None]


def client_of(app: Celery, account: str) -> FramelaneClient:
    """Raises: SettingsError, if there is no such account, or it has no key."""
    from framelane_celery.client import shared_client  # requests is imported only where HTTP is spoken

    return shared_client(settings_of(app).of(account))
