"""Dead letters: list them, replay them, throw them away, carry them elsewhere.

The record is the letter, so nothing here reads a queue. A replay is a new attempt: under the task's own id where its
pipeline was kept waiting, else under a new one, which is made of the letter's id; so a letter that is replayed twice,
by two people or by a message that comes twice, makes one job.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from celery import shared_task
from celery.exceptions import Reject
from pydantic import TypeAdapter

from framelane_celery import records, wakeups
from framelane_celery.errors import DuplicateTask, FramelaneError, InvalidArguments, RoomError
from framelane_celery.monitoring import say, told
from framelane_celery.queues import dead_letter_queue_of
from framelane_celery.records import NEWEST, ForeignRecord, Record, dump_state, load_record
from framelane_celery.room import TOMBSTONE_S, Room, move, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks.gathered import GATHERED, unmarked
from framelane_celery.wakeups import Call

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

LANES = ("dead:new", "dead")

_OF_THE_OLD_CHORD = ("chord", "group_id", "group_index", GATHERED)


class NoSuchLetter(FramelaneError):
    """There is no dead letter of that id (any more)."""


class Replay(NamedTuple):
    """What a replay came to: the id to follow, and whether this call is what made it."""

    letter_id: str
    task_id: str
    is_new: bool


def letters(room: Room, *, code: str | None = None, task: str | None = None) -> Iterator[Record]:
    """The letters of a room, oldest first; of one code or one task only. Listing changes nothing."""
    seen: set[str] = set()  # whose message goes out meanwhile changes the lane
    for lane in LANES:
        for record in room.scan(lane):
            if record.id in seen:
                continue
            if lane == LANES[0]:
                seen.add(record.id)
            if code in (None, (record.failure or {}).get("code")) and task in (None, record.task):
                yield record


def find(room: Room, letter_id: str) -> Record:
    """Read one letter. Raises: NoSuchLetter, RoomError."""
    record = _read(room, letter_id)
    if record is None or not record.is_letter:
        state = "no such task" if record is None else f"the task is {record.until}"
        raise NoSuchLetter(f"{letter_id} is no dead letter: {state}")
    return record


def _read(room: Room, letter_id: str) -> Record | None:
    try:
        return room.read(letter_id)[0]
    except ForeignRecord as error:
        raise NoSuchLetter(str(error)) from error


def replay(
    app: Celery,
    letter_id: str,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    step: int | None = None,
) -> Replay:
    """Run a letter's task again, with its own arguments or with others.

    A pipeline that was kept waiting goes on from that very step, chord included. Else the task and its tail run under
    a new id, outside their old chord. ``step``: only if the letter is still at it.

    Raises: NoSuchLetter; InvalidArguments; DuplicateTask, if it was replayed with other arguments; RoomError.
    """
    room = room_of(app, settings_of(app))
    record = _read(room, letter_id)
    replayed_as = (record.letter or {}).get("replayed_as") if record is not None and record.until == "done" else None
    if record is not None and replayed_as:
        _refuse_others(room, record, replayed_as, args, kwargs)
        return Replay(letter_id, replayed_as, is_new=False)
    if record is not None and step is None and _goes_on(record):
        _refuse_others(room, record, letter_id, args, kwargs)
        return Replay(letter_id, letter_id, is_new=False)
    record = find(room, letter_id)
    if step is not None and step != record.step:
        raise NoSuchLetter(f"{letter_id} has moved on since step {step}")
    if (args is not None or kwargs is not None) and records.has_open_post(record):
        raise InvalidArguments(
            f"{letter_id}: its POST was never answered, so there may be a job of the old arguments: replay it as it is "
            "(the same key finds that job), or discard it and call the task anew",
            None,
        )
    if not record.has_arguments and args is None and kwargs is None:
        raise InvalidArguments(
            f"{letter_id}: its arguments were lost with the room: replay it with them (--args, --kwargs), or discard "
            "it",
            None,
        )
    call = _edited(app, Call.from_text(record.call), args, kwargs)
    if record.until == "release":
        return _go_on(room, record, call)
    return _start_anew(room, record, call)


def _goes_on(record: Record) -> bool:
    """Whether it was a letter that was kept waiting, and then replayed."""
    return bool(record.replays) and not record.is_letter and (record.until != "done" or record.outcome == "completed")


def _edited(app: Celery, call: Call, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> Call:
    if args is None and kwargs is None:
        return call
    call = call._replace(
        args=call.args if args is None else list(args), kwargs=call.kwargs if kwargs is None else dict(kwargs)
    )
    shown = {name: value for name, value in call.options.items() if name not in ("argsrepr", "kwargsrepr")}
    task = app.tasks.get(call.task)
    try:
        if task is not None:
            task.check_call(call.args, call.kwargs)
        call.to_text()
    except (TypeError, ValueError) as error:  # their number or names, or no JSON
        raise InvalidArguments(f"{call.task}: {error}") from error
    return call._replace(options=shown | wakeups.shown(call.args, call.kwargs))


def _refuse_others(
    room: Room, letter: Record, new_id: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> None:
    """Raise DuplicateTask if what a letter was replayed as had other arguments than these."""
    there = _read(room, new_id)
    if there is None or (args is None and kwargs is None):
        return
    known = Call.from_text(there.call) if there.call else Call(letter.task, [], {}, {})
    call = known._replace(
        args=known.args if args is None else list(args), kwargs=known.kwargs if kwargs is None else dict(kwargs)
    )
    if wakeups.digest_of(call) != there.digest:
        raise DuplicateTask(f"{letter.id} was replayed with other arguments already, as {new_id}", new_id)


def _go_on(room: Room, record: Record, call: Call) -> Replay:
    digest = wakeups.digest_of(call)
    moved = move(
        room,
        record.id,
        lambda old, now: (
            records.replay(old, call=call.to_text(), digest=digest, now=now) if old.step == record.step else None
        ),
    )
    return Replay(record.id, record.id, is_new=moved is not None)


def _start_anew(room: Room, letter: Record, call: Call) -> Replay:
    """The letter says as what it is replayed, then the new record is written, then the letter is put away.

    Who comes in between finds the same new id. A letter that was left between the last two for longer than finished
    records are remembered was replayed: what it was replayed as is over, and forgotten.
    """
    call = call._replace(options=_outside_its_chord(call.options))
    new_id = str(uuid5(NAMESPACE_URL, json.dumps(["framelane replay", room.namespace, letter.id])))
    there, now = room.read(new_id)
    told_at = (letter.letter or {}).get("replaying_at")
    if there is None and told_at is not None and now - told_at > TOMBSTONE_S / 2:
        move(room, letter.id, lambda old, now: records.put_away(old, now=now, replayed_as=new_id))
        return Replay(letter.id, new_id, is_new=False)
    move(room, letter.id, lambda old, now: records.start_replay(old, now=now))
    again = records.replay_as(letter, id=new_id, call=call.to_text(), digest=wakeups.digest_of(call), now=now)
    there = room.create(again) if again is not None else None
    if again is not None and there is None:
        told(room.namespace, None, again, now)
    if again is not None and there is not None and there.digest != again.digest:
        raise DuplicateTask(f"{letter.id} was replayed with other arguments already, as {new_id}", new_id)
    move(room, letter.id, lambda old, now: records.put_away(old, now=now, replayed_as=new_id))
    return Replay(letter.id, new_id, is_new=again is not None and there is None)


def _outside_its_chord(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without what would count the task, or a later step of its chain, as a member of a chord that has failed."""
    kept = {name: value for name, value in options.items() if name not in _OF_THE_OLD_CHORD}
    headers = kept.get("headers") or {}
    if GATHERED in headers and kept.get("task_id"):  # a later step, whose own id has passed the failure on: it is over
        kept["task_id"] = str(uuid5(NAMESPACE_URL, json.dumps(["framelane replay", kept["task_id"]])))
    if headers:
        kept["headers"] = unmarked(headers)  # nobody gathers its failure any more
    if kept.get("chain"):
        kept["chain"] = [_step_outside(step) for step in kept["chain"]]
    return kept


def _step_outside(step: Mapping[str, Any]) -> dict[str, Any]:
    """Of a chain or a chord within the chain, Celery marks the last task, or the body, as the member."""
    kwargs, kind = dict(step.get("kwargs") or {}), step.get("subtask_type")
    if kind == "chord" and kwargs.get("body"):
        kwargs["body"] = _step_outside(kwargs["body"])
    elif kind == "chain" and kwargs.get("tasks"):
        kwargs["tasks"] = [*kwargs["tasks"][:-1], _step_outside(kwargs["tasks"][-1])]
    return {**step, "kwargs": kwargs, "options": _outside_its_chord(step.get("options") or {})}


def discard(app: Celery, letter_id: str) -> None:
    """Throw a letter away. A pipeline that was kept waiting fails then, errbacks and chord included.

    Raises: NoSuchLetter, RoomError.
    """
    room = room_of(app, settings_of(app))
    find(room, letter_id)
    if move(room, letter_id, lambda old, now: records.discard(old, now=now)) is None:
        raise NoSuchLetter(f"{letter_id} is no dead letter any more")


# --- as JSON lines -----------------------------------------------------------------------------------------------


def to_line(letter: Record, namespace: str | None = None) -> str:
    """A letter as one line of JSON, with its arguments: whoever has the line can run it again.

    ``namespace``: where it is from. An unanswered POST of another one cannot be asked for again.
    """
    columns = {"id": letter.id, "until": letter.until, "step": letter.step, "namespace": namespace}
    texts = {"call": json.loads(letter.call), "request": letter.request}
    return json.dumps({**columns, **texts, "state": json.loads(dump_state(letter))}, ensure_ascii=False)


def from_line(app: Celery, line: str) -> bool:
    """Take a letter in from its line. It is dead here, whatever it was there: its pipeline is elsewhere.

    Returns: False, if the letter is here already, or has been replayed from here.
    Raises: FramelaneError, if the line is no letter; RoomError.
    """
    settings = settings_of(app)
    room = room_of(app, settings)
    try:
        fields = json.loads(line)
        letter = load_record(
            id=fields["id"],
            until="dead",
            step=int(fields["step"]),
            version=0,
            due_at=None,
            call=json.dumps(fields["call"]),
            request=fields.get("request"),
            state=json.dumps(fields["state"]),
        )
        letter = _checked(letter)
    except ForeignRecord as error:
        raise FramelaneError(f"not a dead letter of format {NEWEST} or older") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FramelaneError(f"not a dead letter of format {NEWEST} or older: {type(error).__name__}") from error
    if records.has_open_post(letter) and fields.get("namespace") != room.namespace:  # its key would be another
        letter = replace(letter, outcome="outcome_unknown")
    _, now = room.read(letter.id)
    queue = dead_letter_queue_of(settings, (letter.letter or {}).get("queue"))
    known = {"at": now, "route": {}, **(letter.letter or {})}
    here = {**known, "queue": queue, "keep_waiting": False, "announced": False}
    letter = replace(letter, letter=here, due_at=now, ending=None, run_id=None, resends=0)
    if room.create(letter) is None:
        told(room.namespace, None, letter, now)
        return True
    return move(room, letter.id, lambda old, now: records.restore(old, letter=letter)) is not None


def _checked(letter: Record) -> Record:
    """Refuse what would stop every later listing of the room. Raises: ValueError, TypeError."""
    letter = TypeAdapter(Record).validate_python(asdict(letter))
    call, died_at = Call.from_text(letter.call), (letter.letter or {}).get("at", 0.0)
    are_shapes = isinstance(call.args, list) and isinstance(call.kwargs, dict) and isinstance(call.options, dict)
    if not (letter.id and are_shapes and isinstance(died_at, (int, float))):
        raise ValueError("no id, no call, or no time")
    return letter


# --- the queue ---------------------------------------------------------------------------------------------------


@shared_task(name=wakeups.REPLAY, bind=True, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def replay_letter(self: Any, letter_id: str, step: int, **headline: Any) -> None:
    """What a letter's message runs: a worker that was started on the dead-letter queue replays what it takes.

    Not where a job may exist that nobody has seen (``outcome_unknown``). And once: what dies again after a replay waits
    for an operator, or a worker that is left there would pay for a task that always fails, for ever.
    """
    try:
        letter = find(room_of(self.app, settings_of(self.app)), letter_id)
        if letter.outcome == "outcome_unknown":
            say(logger.warning, letter, "a job may exist: it waits for an operator")
            return
        if not letter.has_arguments:
            say(logger.warning, letter, "its arguments are lost: it waits for an operator")
            return
        if letter.replays:
            say(logger.warning, letter, "it was replayed and is dead again: it waits for an operator")
            return
        done = replay(self.app, letter_id, step=step)
    except NoSuchLetter as error:
        logger.info("nothing to replay: %s", error)
    except RoomError as error:
        raise Reject(str(error), requeue=True) from error
    else:
        say(logger.info, letter, "replayed as %s", done.task_id)
