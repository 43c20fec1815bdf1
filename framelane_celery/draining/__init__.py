"""The way out: stop submitting, have what is in flight end, and take away what is ours (docs/removing.md).

Everything is read from the room at each step and nothing is kept beside it, so a drain may be interrupted anywhere: the
same call goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from framelane_celery import dead_letters, operations
from framelane_celery.draining.broker import RemovedQueue, own_queues, remove_queues
from framelane_celery.errors import FramelaneError, RoomError
from framelane_celery.operations import NoSuchTask, room_for
from framelane_celery.records import Record, has_open_post
from framelane_celery.room import Hold, Removed
from framelane_celery.room.inspect import Store, open_store, options_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import GuardedTask

if TYPE_CHECKING:
    from celery import Celery

HELD_FOR: Final = "draining (celery framelane drain)"
"""The reason of the holds that a drain makes: by it they are known again."""

POLL_S: Final = 1.0

_OWNER: Final = "celery framelane drain --remove"
_REMOVING_S: Final = 30.0
"""For how long no watcher may lead once the removal has begun, if it dies."""

_MOVES: Final = ("start", "running", "replacing", "job")


class NotDrained(FramelaneError):
    """Something is there that a removal would lose, or that would make anew what is removed."""


class Survey(NamedTuple):
    """What a room holds, counted by what it waits for."""

    in_flight: Mapping[str, int]
    """A job goes on, a run goes on, or a message is on its way."""
    not_submitted: Mapping[str, int]
    """What stays as it is while its account is on hold: no job was paid for."""
    unanswered: int
    """How many of those had a POST that was never answered: a job may be there."""
    letters: int
    accounts: frozenset[str]
    records: int
    """All that could be read."""
    leader: str | None
    """The worker whose watcher leads; None: nothing is moved on now."""

    @property
    def is_drained(self) -> bool:
        """Nothing is under way any more."""
        return not self.in_flight

    @property
    def left(self) -> int:
        """What nothing moves on, and `lines` keep: not submitted, or a dead letter."""
        return sum(self.not_submitted.values()) + self.letters


def is_in_flight(record: Record) -> bool:
    """Whether the record moves on by itself though its account is on hold; what is being cancelled does, too."""
    return not record.is_over and (record.until in _MOVES or record.ending is not None)


def is_not_submitted(record: Record) -> bool:
    """Whether the record stays as it is while its account is on hold, and is no letter."""
    return not (record.is_over or record.is_letter or is_in_flight(record))


def is_to_cancel(record: Record, *, is_guarded: bool) -> bool:
    """Whether a drain that cancels ends this one: not a letter, nor what is paid for and ready, nor a tail that runs.

    ``is_guarded``: it is a `GuardedTask`, which has no job.
    """
    if record.is_over or record.is_letter or record.ending or record.outcome or record.until == "replacing":
        return False
    return not (is_guarded and record.until in ("start", "running"))


def drain(app: Celery, *, cancels: bool = False) -> Iterator[Survey]:
    """Hold every account, then tell of the room again and again until nothing is under way.

    New accounts are held as they appear. ``cancels``: end what can be ended, instead of waiting for it. Who iterates
    decides how long; a watcher has to be up, or nothing moves.
    Raises: RoomError, SettingsError.
    """
    app.loader.import_default_modules()  # which tasks have no job
    hold(app)
    while True:
        if cancels:
            cancel(app)
        seen = survey(app)
        hold(app, seen.accounts)
        yield seen
        if seen.is_drained:
            return
        time.sleep(POLL_S)


def hold(app: Celery, accounts: Iterable[str] = ()) -> list[str]:
    """Put accounts on hold: those named, those of the settings, and those that are known to the room as held.

    One that an operator holds already stays as it is. Answers those that were not held by an operator.
    Raises: RoomError, SettingsError.
    """
    room = room_for(app)
    there = room.holds()[0]
    known = {"default", *settings_of(app).accounts, *(one.account for one in there), *accounts}
    new = sorted(known - {one.account for one in there if one.is_on and one.code == "operator"})
    for account in new:
        room.hold(account, "operator", HELD_FOR)  # one that the settings no longer name, too
    return new


def undo(app: Celery) -> list[str]:
    """Release the accounts that a drain has put on hold; which. Raises: RoomError, SettingsError."""
    room = room_for(app)
    return [one.account for one in room.holds()[0] if is_ours(one) and room.release(one.account, since=one.since)]


def is_ours(hold: Hold) -> bool:
    """Whether a drain made this hold."""
    return hold.is_on and hold.code == "operator" and hold.reason == HELD_FOR


def survey(app: Celery) -> Survey:
    """Count what the room holds. Raises: RoomError, SettingsError."""
    with closing(_store(app)) as store:
        if not store.exists():
            return Survey({}, {}, 0, 0, frozenset(), 0, None)
        in_flight, not_submitted = Counter[str](), Counter[str]()
        letters = unanswered = records = 0
        accounts = set()
        for record in store.room.scan(lean=True):
            records += 1
            accounts.add(record.account)
            letters += record.is_letter
            if is_in_flight(record):
                in_flight[record.until] += 1
            elif is_not_submitted(record):
                not_submitted[record.until] += 1
                unanswered += has_open_post(record)
        leader = store.state().leader
    return Survey(in_flight, not_submitted, unanswered, letters, frozenset(accounts), records, leader)


def cancel(app: Celery) -> int:
    """Cancel what a drain ends; how many. The record says so, and the watcher does it: the job, the result, the event.

    Raises: RoomError, SettingsError.
    """
    done = 0
    for record in room_for(app).scan(lean=True):
        is_guarded = isinstance(app.tasks.get(record.task), GuardedTask)
        if is_to_cancel(record, is_guarded=is_guarded):
            try:
                operations.cancel(app, record.id)
            except NoSuchTask:  # it has ended meanwhile
                continue
            done += 1
    return done


def lines(app: Celery) -> Iterator[str]:
    """All that a removal would lose, as `dead export` writes letters: what was not submitted, and the letters.

    Raises: RoomError, SettingsError.
    """
    room = room_for(app)
    for record in room.scan():
        if record.until == "dead" or record.is_letter or is_not_submitted(record):
            yield dead_letters.to_line(record, room.namespace)


# --- removal -----------------------------------------------------------------------------------------------------


class Removal(NamedTuple):
    """What was removed, and what of ours was left."""

    queues: tuple[RemovedQueue, ...]
    queues_kept: tuple[str, ...]
    """Those that are named in the app's own `task_queues`, that its tasks are sent to, or that a worker takes from."""
    room: Removed


def remove(app: Celery, *, queues: Iterable[str] = (), exported: int | None = None, discards: bool = False) -> Removal:
    """Remove our queues, then everything of the namespace in the room; and its tables, if they are nobody else's.

    The lead is taken first, so that no watcher moves anything meanwhile, or begins to. ``queues``: those that workers
    serve by ``-Q`` and no setting names. ``exported``: how many `lines` of what is there are kept elsewhere.
    ``discards``: lose whatever is there, jobs that go on included.
    Raises: NotDrained; RoomError, SettingsError; BrokerAway, with nothing of the room removed.
    """
    app.loader.import_default_modules()
    with closing(_store(app)) as store:
        if not store.exists():
            return Removal(*_remove_queues(app, queues), Removed(0))
        owner = f"{_OWNER}/{uuid4().hex[:8]}"  # of two at once, one is refused, and ends nothing of the other
        _take_lead(store, owner)
        try:
            if not discards:
                there = survey(app)
                refuse_loss(there, exported)
                _refuse_unread(store.room.open_count() - there.records)
            return Removal(*_remove_queues(app, queues), store.room.remove())
        except FramelaneError:
            with suppress(RoomError):  # then it ends by itself
                store.room.resign(owner)
            raise


def _remove_queues(app: Celery, served: Iterable[str]) -> tuple[tuple[RemovedQueue, ...], tuple[str, ...]]:
    ours, kept = own_queues(app, settings_of(app), served)
    removed, in_use = remove_queues(app, sorted(ours))
    return tuple(removed), tuple(sorted(kept | in_use))


def _take_lead(store: Store, owner: str) -> None:
    if store.room.lead(owner, _REMOVING_S) is None:
        leader = store.state().leader or "another worker"
        raise NotDrained(
            f"{leader.partition('/')[0]} still works here, and would make anew what is removed: stop the workers and "
            "whatever calls tasks, then try again (a worker that was killed counts as up for 10 s)"
        )


def refuse_loss(there: Survey, exported: int | None) -> None:
    """Refuse a removal that would lose something. ``exported`` as in `remove`. Raises: NotDrained."""
    if there.in_flight:
        raise NotDrained(
            f"{sum(there.in_flight.values())} tasks are under way ({told(there.in_flight)}): start a worker and let "
            "`drain` or `drain --cancel` end them first; --discard removes them all the same, and their jobs go on "
            "unwatched"
        )
    if exported is None and there.left:
        raise NotDrained(
            f"{sum(there.not_submitted.values())} tasks were not submitted, and {there.letters} dead letters are here: "
            "--export FILE keeps them in a file, --discard loses them"
        )
    if (late := there.left - (exported or 0)) > 0:
        raise NotDrained(f"{late} tasks were called after the export: stop what calls tasks, then try again")


def _refuse_unread(count: int) -> None:
    if count > 0:
        raise NotDrained(
            f"{count} records are of another version of framelane_celery, which this one cannot read: drain with that "
            "version; --discard loses them"
        )


def told(counts: Mapping[str, int]) -> str:
    """ "2 job, 1 running"."""
    return ", ".join(f"{number} {until}" for until, number in sorted(counts.items()))


def _store(app: Celery) -> Store:
    settings = settings_of(app)
    url = settings.room_url.get_secret_value() if settings.room_url else ""
    return open_store(url, settings.namespace or "", options=options_of(app), timeout_s=5)
