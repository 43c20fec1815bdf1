"""What the admin shows of the room, as plain values: a page of a list, and one thing in detail.

A list is read as the command line reads it: scanned, never asked for one by one, and no further than its page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framelane_celery import dead_letters, operations
from framelane_celery.errors import clean_text
from framelane_celery.monitoring import progress_meta
from framelane_celery.records import Record
from framelane_celery.settings import settings_of
from framelane_celery.shown import comes_after, without_secrets
from framelane_celery.waits import failure_text, places, relative, slot_lanes, wait_of
from framelane_celery.wakeups import Call

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.room import Hold, Room
    from framelane_celery.waits import Wait

PAGE_ROWS: Final = 50

Filters = Mapping[str, str]
"""By name; an empty one lets everything pass."""


class Row(NamedTuple):
    id: str
    cells: tuple[Any, ...]


class Page(NamedTuple):
    """A page of a list. How many there are in all is not counted: there may be 100,000."""

    columns: tuple[str, ...]
    rows: list[Row]
    number: int
    has_next: bool


class Detail(NamedTuple):
    """One thing: names and values; its ended attempts; its arguments, where they may be seen."""

    title: str
    fields: dict[str, Any]
    attempts: list[tuple[Any, ...]]
    arguments: str | None = None


# --- what waits --------------------------------------------------------------------------------------------------


def waiting_page(app: Celery, filters: Filters, number: int) -> Page:
    """Tasks that are not over, in the order of their making. Raises: RoomError, SettingsError."""
    room = operations.room_for(app)
    now = room.holds()[1]
    rows = (
        Row(wait.id, (wait.task, wait.until, _ago(wait.since, now), wait.wakes, wait.code, wait.account))
        for wait in _waits(room, settings_of(app).account_names)
        if _passes(filters, until=wait.until, task=wait.task, code=wait.code, account=wait.account)
    )
    return _page(("task", "until", "since", "wakes it", "code", "account"), rows, number)


def _waits(room: Room, accounts: Sequence[str]) -> Iterator[Wait]:
    holds, now = room.holds()
    by_account = {hold.account: hold for hold in holds}
    place = places(room.scan(lane, lean=True) for lane in slot_lanes(accounts))
    for record in room.scan(lean=True):
        wait = wait_of(record, now, holds=by_account, place=place.get(record.id), accounts=accounts)
        if wait is not None:
            yield wait


def waiting_detail(app: Celery, task_id: str) -> Detail:
    """One record, whatever it waits for, over or not. Raises: NoSuchTask, RoomError, SettingsError."""
    room, record = operations.room_for(app), operations.find(app, task_id)
    holds, now = room.holds()
    place = places([room.scan(record.lane, lean=True)]).get(record.id) if record.until == "slot" else None
    accounts = settings_of(app).account_names
    wait = wait_of(record, now, holds={hold.account: hold for hold in holds}, place=place, accounts=accounts)
    meta = progress_meta(record)
    fields = {
        "until": record.until + (f" ({record.ending})" if record.ending else ""),
        "since": _instant(wait.since, now) if wait else None,
        "wakes it": wait.wakes if wait else None,
        "at the latest": _instant(wait.ends_at, now) if wait else None,
        "why": failure_text(record.failure),
        "outcome": record.outcome,
        "job": record.job_id,
        "status": _line(meta["status"]),
        "percent": meta["percent"] if record.job_id else None,
        "stage": _line(meta["stage"]),
        "submitted": _instant(record.accepted_at, now) if record.job_id else None,
        "ended": _instant(record.finished_at, now),
        "replayed as": (record.letter or {}).get("replayed_as"),
    }
    return Detail(record.task, _of_every_record(record, now) | fields, _attempts(record, now))


# --- dead letters ------------------------------------------------------------------------------------------------


def letters_page(app: Celery, filters: Filters, number: int) -> Page:
    """Dead letters, oldest first. Raises: RoomError, SettingsError."""
    room = operations.room_for(app)
    now = room.holds()[1]
    letters = dead_letters.letters(room, code=filters.get("code") or None, task=filters.get("task") or None)
    rows = (Row(letter.id, _letter_cells(letter, now)) for letter in letters)
    return _page(("task", "code", "died", "attempts", "message"), rows, number)


def _letter_cells(letter: Record, now: float) -> tuple[Any, ...]:
    failure = letter.failure or {}
    waits = "kept waiting; " if letter.until == "release" else ""
    message = waits + (_line(failure.get("message")) or "")
    died = _ago((letter.letter or {}).get("at"), now)
    return (letter.task, failure.get("code"), died, letter.attempts_made, message)


def letter_detail(app: Celery, letter_id: str, *, with_arguments: bool) -> Detail:
    """One dead letter. ``with_arguments``: them too, without the keys in signed URLs.

    Raises: NoSuchLetter, RoomError, SettingsError.
    """
    room = operations.room_for(app)
    letter, now = dead_letters.find(room, letter_id), room.holds()[1]
    call, told = Call.from_text(letter.call), letter.letter or {}
    state = "has failed; a replay runs it, and what comes after it, under a new id"
    if letter.until == "release":
        state = "kept waiting; a replay goes on from this step, a discard fails it"
    fields = {
        "error": failure_text(letter.failure),
        "died": _instant(told.get("at"), now),
        "job": letter.job_id,
        "pipeline": state,
        **{name.replace("_", " "): _chain(names) for name, names in comes_after(call).items()},
        "sent by": json.dumps(told["route"]) if told.get("route") else None,
    }
    arguments = _arguments(letter, call) if with_arguments else None
    return Detail(letter.task, _of_every_record(letter, now) | fields, _attempts(letter, now), arguments)


def _arguments(letter: Record, call: Call) -> str:
    if not letter.has_arguments:
        return "They were lost with the room."
    known = {"args": without_secrets(call.args), "kwargs": without_secrets(call.kwargs)}
    return json.dumps(known, indent=2, ensure_ascii=False, default=str)


def _chain(names: Any) -> str:
    return " → ".join(names) if isinstance(names, list) else str(names)


# --- holds -------------------------------------------------------------------------------------------------------


def holds_page(app: Celery, filters: Filters, number: int) -> Page:
    """Accounts whose submissions are stopped. Raises: RoomError, SettingsError."""
    holds, now = operations.room_for(app).holds()
    rows = (Row(hold.account, _hold_cells(hold, now)) for hold in holds if hold.is_on)
    return _page(("code", "since", "until", "reason"), rows, number)


def _hold_cells(hold: Hold, now: float) -> tuple[Any, ...]:
    ends = "an operator releases it" if hold.ends_at is None else relative(hold.ends_at, now)
    return (hold.code, _ago(hold.since, now), ends, _line(hold.reason))


def hold_detail(app: Celery, account: str) -> Detail:
    """One hold. Raises: NoSuchTask, if the account is not on hold; RoomError, SettingsError."""
    room = operations.room_for(app)
    holds, now = room.holds()
    on = next((hold for hold in holds if hold.account == account and hold.is_on), None)
    if on is None:
        raise operations.NoSuchTask(f"account {account} is not on hold")
    cells = dict(zip(("code", "since", "until", "reason"), _hold_cells(on, now), strict=True))
    return Detail(account, {**cells, "tasks held": room.waiting(f"hold:{account}")}, [])


# --- what they share ---------------------------------------------------------------------------------------------


def _page(columns: tuple[str, ...], rows: Iterable[Row], number: int) -> Page:
    first = (number - 1) * PAGE_ROWS
    found = list(islice(rows, first, first + PAGE_ROWS + 1))
    return Page(columns, found[:PAGE_ROWS], number, len(found) > PAGE_ROWS)


def _passes(filters: Filters, **values: str | None) -> bool:
    return all(filters.get(name, "") in ("", value) for name, value in values.items())


def _of_every_record(record: Record, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "called": _instant(record.created_at, now),
        "attempt": record.attempt,
        "account": record.account,
    }


def _attempts(record: Record, now: float) -> list[tuple[Any, ...]]:
    """The attempts that have ended."""
    names = ("job_id", "attempt", "outcome", "code")
    return [(*(entry.get(name) for name in names), _instant(entry.get("at"), now)) for entry in record.history]


def _line(text: Any) -> str | None:
    """Text that came from the API: one line, without signed URLs."""
    return clean_text(str(text)) if text else None


def _ago(at: float | None, now: float) -> str | None:
    return relative(at, now) if at else None


def _instant(at: float | None, now: float) -> str | None:
    if not at:
        return None
    try:
        absolute = datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(at)
    return f"{absolute} ({relative(at, now)})"
