"""What a task waits for, since when, until when, and what would wake it. Pure; for people who look at a queue.

Used by the command line and by Django's admin.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from shlex import quote
from typing import Any, Final, NamedTuple

from framelane_celery.errors import clean_text
from framelane_celery.records import Record
from framelane_celery.room import Hold

LATE_S: Final = 120.0
"""A watcher that is up moves things on within seconds, or a long-poll's half minute. Later than this, none is up."""


class Wait(NamedTuple):
    """One task that is not over. Instants are epoch seconds of the room's clock."""

    id: str
    task: str
    account: str
    until: str
    attempt: int
    code: str | None
    """Why it waits, where a failure made it wait: "internal", "quota_exceeded", …"""
    job_id: str | None
    since: float | None
    """The last time, as far as it is remembered, that it moved on."""
    next_at: float | None
    """When somebody turns to it next."""
    ends_at: float | None
    """When the wait ends at the latest. None: nothing but what wakes it ends it."""
    wakes: str
    """What would wake it."""

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "task": self.task, "task_id": self.id, **self._asdict()}


def wait_of(
    record: Record,
    now: float,
    *,
    holds: Mapping[str, Hold] | None = None,
    place: int | None = None,
    accounts: Container[str] | None = None,
) -> Wait | None:
    """What a record waits for; None: nothing, it is over.

    ``holds`` by account, as the room has them; ``place``: how many are before it in its queue of slots; ``accounts``:
    those that the settings name, if they are known here.
    """
    if record.is_over:
        return None
    hold = (holds or {}).get(record.account)
    return Wait(
        id=record.id,
        task=record.task,
        account=record.account,
        until=record.until,
        attempt=record.attempt,
        code=(record.failure or {}).get("code"),
        job_id=record.job_id,
        since=_since(record),
        next_at=None if record.until in ("slot", "release") and not record.ending else record.due_at,
        ends_at=_ends_at(record, hold),
        wakes=_nameless(record, accounts) or _wakes(record, now, hold, place),
    )


def slot_lanes(accounts: Iterable[str]) -> list[str]:
    """The lanes in which records queue for slots: those of all accounts together, and each account's own."""
    kinds = ("render", "task")
    return [*(f"slot:{kind}" for kind in kinds), *(f"slot:{kind}:{name}" for name in accounts for kind in kinds)]


def places(slot_lanes: Iterable[Iterable[Record]]) -> dict[str, int]:
    """How many are before each record, of lanes in their order."""
    return {record.id: place for lane in slot_lanes for place, record in enumerate(lane)}


# --- since when, until when --------------------------------------------------------------------------------------


def _since(record: Record) -> float | None:
    if record.until == "job":
        return record.accepted_at
    if record.until == "release":
        return (record.letter or {}).get("at") or record.held_at
    known = [record.created_at, record.queued_at, record.accepted_at, record.held_at, *_ends_of(record)]
    if record.until == "instant" and record.pauses:
        known.append(record.first_post_at)
    return max((at for at in known if at), default=None)


def _ends_of(record: Record) -> Iterable[float | None]:
    return (entry.get("at") for entry in record.history[-1:])


def _ends_at(record: Record, hold: Hold | None) -> float | None:
    if record.ending:
        return None
    if record.until == "job":
        return record.deadline_at
    if record.until == "release":
        known = [record.due_at, hold.ends_at if hold else None]
        return None if record.letter else min((at for at in known if at is not None), default=None)
    if record.until in ("start", "slot"):
        return None if record.begun else record.expires_at
    return record.due_at


# --- what would wake it ------------------------------------------------------------------------------------------


def _nameless(record: Record, accounts: Container[str] | None) -> str:
    """Of a record whose account is named no more: nobody submits or looks, unless its end is written already."""
    if accounts is None or record.account in accounts or record.outcome or record.ending or record.until == "running":
        return ""
    return f"settings that name account {record.account} (again): nobody has its key meanwhile"


def _wakes(record: Record, now: float, hold: Hold | None, place: int | None) -> str:
    if record.ending:
        what = "expired" if record.ending == "expired" else "cancelled"
        by = "the run's end" if record.until == "running" else "a watcher, which ends it"
        return f"{by}: it is {what}{_late(record, now)}"
    told = {"start": _start, "instant": _instant, "job": _job, "running": _running, "replacing": _replacing}
    if record.until == "slot":
        return _slot(hold, place)
    if record.until == "release":
        return _release(record, now, hold)
    return told[record.until](record, now) + _late(record, now)


def _slot(hold: Hold | None, place: int | None) -> str:
    before = "" if place is None else f": {place} before it" if place else ": it is the next one"
    if hold is not None and hold.is_on:
        return f"a submit slot{before}; but account {hold.account} is on hold for {hold.code}"
    return f"a submit slot{before}"


def _release(record: Record, now: float, hold: Hold | None) -> str:
    if record.letter is not None:
        return f"an operator: celery framelane dead replay {quote(record.id)}"
    gives_up = "" if record.due_at is None else f"; or by the next route {relative(record.due_at, now)}"
    if hold is None or not hold.is_on:
        return f"a watcher: account {record.account} is on hold no more{gives_up}"
    if hold.ends_at is None:
        ends = f": celery framelane release {quote(record.account)}"
    else:
        ends = f", at the latest {relative(hold.ends_at, now)}"
    return f"account {record.account} is released from its hold for {hold.code}{ends}{gives_up}"


def _start(record: Record, now: float) -> str:
    ends = {"completed": ", to return the result", None: ""}.get(record.outcome, ", to raise its error")
    again = "" if record.due_at is None or record.due_at <= now else f"; sent again {relative(record.due_at, now)}"
    tries = "" if not record.resends else f" ({record.resends + 1} sent so far)"
    return f"a worker that takes its message{ends}{again}{tries}"


def _instant(record: Record, now: float) -> str:
    code = (record.failure or {}).get("code")
    if record.pauses:
        why = "its submission was not answered, or refused for now; the same one again"
    elif record.attempt > 1:
        why = f"attempt {record.attempt}" + (f" after {code}" if code else "")
    else:
        why = "as its caller asked (eta, countdown)" if not record.begun else "as the task itself asked (retry)"
    when = "" if record.due_at is None or record.due_at <= now else f" ({relative(record.due_at, now)})"
    return f"its time{when}: {why}"


def _job(record: Record, now: float) -> str:
    hint = "" if record.hinted_at is None else f"; a webhook told of it {relative(record.hinted_at, now)}"
    return f"the job's end, which a watcher looks for{hint}"


def _running(record: Record, now: float) -> str:
    lease = "" if record.due_at is None else f"; its lease ends {relative(record.due_at, now)}"
    return f"its worker {record.run_node or ''}".rstrip() + lease


def _replacing(record: Record, now: float) -> str:
    return "the signature that replaces it"


def _late(record: Record, now: float) -> str:
    """A hint that nobody moves things on."""
    if record.due_at is None or now - record.due_at < LATE_S:
        return ""
    since = f" for {span(now - record.due_at)}" if record.due_at > 0 else ""
    return f"; overdue{since}: is a worker with a watcher up?"


# --- times for people --------------------------------------------------------------------------------------------

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """A span in one or two units: "12 s", "3 min", "2 h 5 min", "3 d 4 h"."""
    left = round(abs(seconds))
    if left < 120:
        return f"{left} s"
    at = next(at for at, (size, _) in enumerate(_UNITS) if left >= size)
    (size, name), (small, small_name) = _UNITS[at], _UNITS[at + 1]
    rest = (left % size) // small if size > 60 else 0
    return f"{left // size} {name}" + (f" {rest} {small_name}" if rest else "")


def relative(at: float, now: float) -> str:
    """An instant as seen from now: "3 min ago", "in 12 s"."""
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def failure_text(failure: Mapping[str, Any] | None) -> str:
    """A failure's code and message, without signed URLs."""
    if not failure:
        return ""
    code, message = str(failure.get("code") or ""), clean_text(str(failure.get("message") or ""))
    return f"{code}: {message}" if code and message else code or message
