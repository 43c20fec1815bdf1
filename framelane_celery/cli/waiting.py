"""`waiting`: what every task that is not over waits for. `progress`: one task in detail. `cancel`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any, Final, get_args

import click

from framelane_celery import operations
from framelane_celery.cli import output
from framelane_celery.cli.output import NotDone, app_of, as_json, count_of, instant, print_rows, room_of_app, short
from framelane_celery.errors import RoomError
from framelane_celery.monitoring import progress_meta
from framelane_celery.operations import NoSuchTask
from framelane_celery.records import Record, Until
from framelane_celery.room import Room
from framelane_celery.settings import settings_of
from framelane_celery.waits import Wait, failure_text, places, relative, slot_lanes, wait_of

SHOWN: Final = 100
"""Rows of a table where no limit is given. JSON has them all."""

_WAITS: Final = tuple(until for until in get_args(Until) if until not in ("dead", "done"))
_ORDER: Final = ("running", "replacing", "job", "start", "slot", "instant", "release")


@click.command()
@click.option("--until", type=click.Choice(_WAITS), help="Only what waits for this.")
@click.option("--task", help="Only this task, by its name.")
@click.option("--account", help="Only this account.")
@click.option("--limit", type=click.IntRange(0), help=f"At most so many. Tables stop at {SHOWN}; 0 shows all.")
@as_json
@click.pass_context
def waiting(
    ctx: click.Context, until: str | None, task: str | None, account: str | None, limit: int | None, is_json: bool
) -> None:
    """List the tasks that are not over: what they wait for, and what would wake them.

    In the order of their making. Dead letters are listed by `dead list`.
    """
    room = room_of_app(ctx)
    counts: Counter[str] = Counter()
    shown: list[Wait] = []
    most = (limit or None) if is_json or limit is not None else SHOWN
    now = room.holds()[1]
    accounts = settings_of(app_of(ctx)).account_names
    for wait in _waits(room, accounts):
        if until in (None, wait.until) and task in (None, wait.task) and account in (None, wait.account):
            counts[wait.until] += 1
            if most is None or len(shown) < most:
                shown.append(wait)
    if is_json:
        output.print_json([wait.to_json() for wait in shown])
        return
    if shown:
        print_rows(("id", "task", "until", "since", "wakes it"), [_row(wait, now) for wait in shown])
    output.say(_total(counts, len(shown)))


def _waits(room: Room, accounts: Sequence[str]) -> Iterator[Wait]:
    """Every wait, as of now; the queues' order is read first."""
    holds, now = room.holds()
    by_account = {hold.account: hold for hold in holds}
    place = places(room.scan(lane) for lane in slot_lanes(accounts))
    for record in room.scan():
        wait = wait_of(record, now, holds=by_account, place=place.get(record.id), accounts=accounts)
        if wait is not None:
            yield wait


def _row(wait: Wait, now: float) -> tuple[str, ...]:
    since = "" if wait.since is None else relative(wait.since, now)
    ends = wait.until == "job" and wait.ends_at is not None
    limit = f"; given up {relative(wait.ends_at, now)}" if ends and wait.ends_at is not None else ""
    if wait.until in ("start", "slot") and wait.ends_at is not None:
        limit = f"; expires {relative(wait.ends_at, now)}"
    return (wait.id, wait.task, wait.until, since, wait.wakes + limit)


def _total(counts: Counter[str], shown: int) -> str:
    total = sum(counts.values())
    if not total:
        return "Nothing waits."
    parts = ", ".join(f"{counts[until]} {until}" for until in _ORDER if counts[until])
    more = "" if shown == total else f" The first {shown} are shown: --limit 0 shows all."
    return f"{count_of(total, 'task')}: {parts}.{more}"


# --- one task ----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("task_id", metavar="ID")
@as_json
@click.pass_context
def progress(ctx: click.Context, task_id: str, is_json: bool) -> None:
    """Show one task in detail: what it waits for, its job, its attempts. Dead and finished ones too."""
    room = room_of_app(ctx)
    record = operations.find(app_of(ctx), task_id)
    holds, now = room.holds()
    place = None
    if record.until == "slot":
        place = places([room.scan(record.lane)]).get(record.id)
    accounts = settings_of(app_of(ctx)).account_names
    wait = wait_of(record, now, holds={hold.account: hold for hold in holds}, place=place, accounts=accounts)
    if is_json:
        output.print_json(_detail(record, wait))
        return
    output.print_fields(_fields(record, wait, now))
    print_attempts(record, now)


def _detail(record: Record, wait: Wait | None) -> dict[str, Any]:
    """What `waiting --json` has, and more."""
    known = wait.to_json() if wait is not None else {}
    meta = progress_meta(record)
    return {
        "id": record.id,
        "task": record.task,
        "task_id": record.id,
        "until": record.until,
        "account": record.account,
        "attempt": record.attempt,
        "code": (record.failure or {}).get("code"),
        "message": short((record.failure or {}).get("message")) or None,
        **known,
        "outcome": record.outcome,
        "ending": record.ending,
        "created_at": record.created_at,
        "finished_at": record.finished_at,
        "replayed_as": (record.letter or {}).get("replayed_as"),
        "job": {
            "id": record.job_id,
            "kind": record.job_kind,
            "status": meta["status"],
            "percent": meta["percent"],
            "stage": short(meta["stage"]) or None,
            "submitted_at": record.accepted_at,
            "deadline_at": record.deadline_at,
        },
        "history": list(record.history),
    }


def _fields(record: Record, wait: Wait | None, now: float) -> dict[str, str | None]:
    meta = progress_meta(record)
    job = None
    if record.job_id is not None:
        stage = f", {short(meta['stage'])}" if meta["stage"] else ""
        state = f" ({short(meta['status'])}, {meta['percent']} %{stage})" if meta["status"] else ""
        job = f"{record.job_id}{state}"
    fields = {
        "task": record.task,
        "id": record.id,
        "until": _until_text(record),
        "since": instant(wait.since, now) if wait else None,
        "wakes it": wait.wakes if wait else None,
        "next look": instant(wait.next_at, now) if wait and wait.until == "job" and (wait.next_at or 0) > now else None,
        "at the latest": instant(wait.ends_at, now) if wait else None,
        "why": failure_text(record.failure),
        "job": job,
        "submitted": instant(record.accepted_at, now) if record.job_id else None,
        "attempt": str(record.attempt),
        "account": record.account if record.account != "default" else None,
        "called": instant(record.created_at, now),
        "ended": instant(record.finished_at, now),
    }
    replayed_as = (record.letter or {}).get("replayed_as")
    return {**fields, "replayed as": replayed_as}


def _until_text(record: Record) -> str:
    if record.until == "dead":
        return f"dead (celery framelane dead show {quote(record.id)})"
    if record.until == "done":
        ended = record.ending or record.outcome or (record.history[-1].get("outcome") if record.history else None)
        replayed = " and was replayed" if (record.letter or {}).get("replayed_as") else ""
        return "done" + (f": it {_ENDED.get(str(ended), str(ended))}{replayed}" if ended else "")
    return record.until + (f" ({record.ending})" if record.ending else "")


_ENDED: Final = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "was cancelled",
    "timed_out": "timed out",
    "not_found": "lost its job (not found)",
    "outcome_unknown": "failed, its outcome unknown",
    "worker_lost": "lost its workers",
    "revoked": "was revoked",
    "expired": "expired",
}


def print_attempts(record: Record, now: float) -> None:
    """The attempts that have ended, as a table."""
    if not record.history:
        return
    rows = [
        (
            entry.get("job_id") or "(no job)",
            entry.get("attempt"),
            entry.get("outcome"),
            entry.get("code"),
            instant(entry.get("accepted_at"), now),
            instant(entry.get("at"), now),
        )
        for entry in record.history
    ]
    output.say("")
    print_rows(("job", "attempt", "outcome", "code", "submitted", "ended"), rows)


# --- cancel ------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def cancel(ctx: click.Context, task_ids: tuple[str, ...], yes: bool, is_json: bool) -> None:
    """Cancel tasks, and the jobs they wait for. It is remembered, so it holds with no worker up, too."""
    found, failed = _found(ctx, task_ids)
    if found:
        output.ask(_question(found), yes=yes)
    rows: list[dict[str, str]] = []
    for record in found:
        try:
            revoked = operations.cancel(app_of(ctx), record.id)
        except NoSuchTask as error:
            output.warn(str(error))
            failed += 1
            continue
        except RoomError as error:
            raise NotDone(f"{error} ({count_of(len(rows), 'task')} cancelled before)") from error
        rows.append({"id": revoked.id, "task": revoked.task, "task_id": revoked.id, "until": revoked.until})
        if not is_json:
            output.say(f"{revoked.task} {revoked.id} is cancelled{_and_its_job(revoked)}.")
    if is_json:
        output.print_json(rows)
    if failed:
        output.exit_with(1)


def _found(ctx: click.Context, task_ids: tuple[str, ...]) -> tuple[list[Record], int]:
    found, failed = [], 0
    for task_id in dict.fromkeys(task_ids):
        try:
            record = operations.find(app_of(ctx), task_id)
            if record.is_over:
                raise NoSuchTask(f"{task_id} is {record.until}: there is nothing left to cancel")
            found.append(record)
        except NoSuchTask as error:
            output.warn(f"Error: {error}")
            failed += 1
    return found, failed


def _question(found: list[Record]) -> str:
    if len(found) == 1:
        return f"Cancel {found[0].task} {found[0].id}, which waits for: {found[0].until}?"
    return f"Cancel {len(found)} tasks?"


def _and_its_job(record: Record) -> str:
    if record.until == "running":
        return " (it is running: its job is cancelled when the run ends)"
    return f", and its job {record.job_id} will be" if record.until == "job" else ""
