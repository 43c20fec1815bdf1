"""The call of a task: its record is written, and only then its message goes out.

The two overlap as far as they may. The record is sent to the room, Celery builds the message meanwhile, and the room's
answer is read before Celery tells or sends anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from framelane_celery import records, wakeups
from framelane_celery.accounts import DEFAULT
from framelane_celery.errors import DuplicateTask, FramelaneError
from framelane_celery.monitoring import say, told, tracing
from framelane_celery.queues import head_start_s
from framelane_celery.records import Record
from framelane_celery.room import Room, move, room_of
from framelane_celery.tasks.run import WorkerRun, run_of

if TYPE_CHECKING:
    from celery import Task
    from celery.result import AsyncResult

    from framelane_celery.tasks.recorded import RecordedTask

logger = logging.getLogger(__name__)

_PLUMBING = ("router", "retry", "retry_policy", "mandatory", "immediate")
"""Options of one publication, beside its producer: the caller's own count, a wake-up's do not."""


def write_and_publish(
    task: RecordedTask,
    task_id: str,
    text: str,
    options: Mapping[str, Any],
    parent: Task | None,
    account: str | None,
) -> AsyncResult | None:
    """Write the record of a call, once per task id, and publish the call. None: nothing goes out now.

    ``text``: the call as it is saved; ``options``: as it was given, for what is not saved.
    ``parent``: the running task that calls; in it no error of ours is raised, since it would be that task's.
    Raises: DuplicateTask, RoomError; and whatever Celery says of a call that cannot be published: nothing of it stays.
    """
    settings, call = task.settings, wakeups.Call.from_text(text)
    record, at_once = _record_of(task.app, task_id, text, call, options, account, settings.resend_after_s)
    publish = partial(_publish, task, call=call, options=options, in_task=parent is not None)
    to_publish: Record | None
    try:
        room = room_of(task.app, settings)
        with room.creating(record) as ask:
            entry = _Entry(room, record, ask)
            # Asked first where the record is there already, or where a call that comes to nothing would be seen.
            asks_first = calling_run(parent, task_id) is not None or _is_seen(task.app)
            goes_out = at_once and (entry.is_new if asks_first else True)
            result = publish(record, entry=entry) if goes_out else None
            there = entry.there()
        if there is None:
            return result
        to_publish = _settle(room, there, record, parent, account, at_once=at_once)
    except FramelaneError as error:
        if parent is None:
            raise
        say(logger.error, record, "no record was written, the message alone goes out: %s", error)
        to_publish = record
    return publish(to_publish) if to_publish is not None else None


def _record_of(
    app: Celery,
    task_id: str,
    text: str,
    call: wakeups.Call,
    options: Mapping[str, Any],
    account: str | None,
    resend_after_s: float,
) -> tuple[Record, bool]:
    """The record of a new call, and whether its message goes out at once."""
    now = time.time()
    due_at = wakeups.instant_of(app, options.get("eta") or options.get("countdown"))
    at_once = due_at is None or due_at <= now
    record = Record(
        id=task_id,
        task=call.task,
        call=text,
        digest=wakeups.digest_of(call),
        account=account or DEFAULT,
        queue=call.options.get("queue"),
        trace=tracing.carrier(),
        until="start" if at_once else "instant",
        due_at=now + resend_after_s if at_once else due_at,
        created_at=now,
        head_start_s=head_start_s(app, call.options),
        expires_at=wakeups.instant_of(app, options.get("expires")),
    )
    return record, at_once


class _Entry:
    """A record on its way into the room: sent, and perhaps not answered yet."""

    def __init__(self, room: Room, record: Record, ask: Callable[[], Record | None]) -> None:
        self._room, self._record, self._ask = room, record, ask

    @property
    def is_new(self) -> bool:
        """Whether the record is written now."""
        return self._answer is None

    def there(self) -> Record | None:
        """The record that the room had already; None: this one is new. Raises: RoomError, ForeignRecord."""
        if isinstance(self._answer, FramelaneError):
            raise self._answer
        return self._answer

    @cached_property
    def _answer(self) -> Record | FramelaneError | None:
        try:
            there = self._ask()
        except FramelaneError as error:
            return error
        if there is None:
            told(self._room.namespace, None, self._record, self._record.created_at)
        return there


def _settle(
    room: Room, there: Record, record: Record, parent: Task | None, account: str | None, *, at_once: bool
) -> Record | None:
    """What becomes of a call whose task id has a record. What is returned has to be published; None: nothing new."""
    run = calling_run(parent, record.id)
    if there.until == "replacing" or run is not None:
        redone = move(
            room,
            record.id,
            lambda old, now: records.redo(
                old,
                run_id=run.run_id if run else None,
                task=record.task,
                call=record.call,
                digest=record.digest,
                due_at=cast(float, record.due_at),
                at_once=at_once,
                account=account,
            ),
        )
        return redone if at_once else None
    other = _difference(there, record)
    if other is None and parent is None and _is_of_another_chord(there, record):
        other = "already, so this chord would never hear of it"
    if other is not None:
        message = (
            f"task id {record.id!r} is taken by {there.task} {other}: use another task_id for another piece of work"
        )
        if parent is None:
            raise DuplicateTask(message, record.id)
        say(logger.error, record, "%s; the first one stands", message)
    return None


def _difference(there: Record, record: Record) -> str | None:
    """What makes a call with a task id that is taken another piece of work; None: it is the same."""
    if there.digest != record.digest:
        return "with other arguments"
    if there.account != record.account:
        return f"on account {there.account}"
    return None


def _is_of_another_chord(there: Record, record: Record) -> bool:
    """Whether a call is counted by a chord that did not make the record which is there. Inside a task it may be the
    same chord, sent twice."""
    chord = wakeups.chord_of(wakeups.Call.from_text(record.call).options)
    if chord is None or not there.call:
        return chord is not None
    return chord != wakeups.chord_of(wakeups.Call.from_text(there.call).options)


def calling_run(parent: Task | None, task_id: str) -> WorkerRun | None:
    """The run that publishes its own task again, if that is what happens."""
    return run_of(parent.request) if parent is not None and parent.request.id == task_id else None


# --- the message -------------------------------------------------------------------------------------------------


class _NotNew(Exception):
    """The record is not new, or not written: Celery is stopped before it tells or sends anything."""


def _publish(
    task: RecordedTask,
    record: Record,
    *,
    call: wakeups.Call,
    options: Mapping[str, Any],
    in_task: bool,
    entry: _Entry | None = None,
) -> AsyncResult | None:
    """Publish a call. With the ``entry`` of its record: only if that is new."""
    plumbing = {name: options[name] for name in _PLUMBING if options.get(name) is not None}
    with ExitStack() as stack:

        def once_written() -> Any:
            if entry is not None and not entry.is_new:
                raise _NotNew
            # Only now: a room that is slow must not hold producers that other calls wait for.
            return stack.enter_context(_producer(task.app, options))

        producer = _Promise(once_written)
        try:
            return wakeups.publish(task.app, record, call, result_cls=task.AsyncResult, producer=producer, **plumbing)
        except SoftTimeLimitExceeded:  # the calling task's own: what is in the room is kept there
            raise
        except Exception as error:
            if entry is not None and not entry.is_new:
                return None
            if isinstance(error, OperationalError):  # the broker is away: the watcher sends it again
                say(logger.warning, record, "not published, the watcher will: %s", error)
            elif in_task:
                say(logger.exception, record, "could not be published")
            else:
                task.room.forget(record)  # the call fails in the caller, so nothing of it may stay
                raise
    return None


def _is_seen(app: Celery) -> bool:
    """Whether somebody stands between us and Celery: an own `send_task` may take a producer of its own, and who wraps
    Celery's, as Sentry does, sees calls that come to nothing as errors."""
    for name in ("send_task", "producer_or_acquire"):
        its_own = getattr(Celery, name)
        if getattr(getattr(app, name), "__func__", None) is not its_own or hasattr(its_own, "__wrapped__"):
            return True
    return False


def _producer(app: Celery, options: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """One on the caller's connection, or the caller's own producer, or one out of the app's pool, as Celery has it."""
    if connection := options.get("connection"):
        return nullcontext(app.amqp.Producer(connection, auto_declare=False))
    own = options.get("producer") or options.get("publisher")
    return cast("AbstractContextManager[Any]", app.producer_or_acquire(own))


class _Promise:
    """A producer that comes about when it is first used.

    Celery uses it first when the message is built, and before a signal, the result backend or the broker hears of it.
    Source: ``Celery.send_task``.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = self._make()
        return getattr(self._made, name)
