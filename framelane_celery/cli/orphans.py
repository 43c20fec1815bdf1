"""`orphans`: jobs that no record awaits, and records whose job is gone. Unlike the other commands it asks the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import click

from framelane_celery import orphans as found_by
from framelane_celery.cli import output
from framelane_celery.cli.output import NotDone, app_of, as_json, count_of, print_rows, room_of_app, short
from framelane_celery.cli.replaying import json_array, json_object
from framelane_celery.cli.waiting import SHOWN
from framelane_celery.errors import FramelaneError, RateLimited, RoomError, TransportError
from framelane_celery.orphans import WHY, Orphan, Orphans
from framelane_celery.records import Record
from framelane_celery.waits import relative

_ids = click.argument("ids", metavar="[ID...]", nargs=-1)


@click.group()
def orphans() -> None:
    """Jobs that no record awaits, and records whose job is gone: after a room was lost. This asks the API."""


@orphans.command(name="list")
@click.option("--task", help="Only of this task, by its name.")
@click.option("--old", is_flag=True, help="Jobs too that ended longer ago than results are kept.")
@click.option("--limit", type=click.IntRange(0), help=f"At most so many. Tables stop at {SHOWN}; 0 shows all.")
@as_json
@click.pass_context
def list_(ctx: click.Context, task: str | None, old: bool, limit: int | None, is_json: bool) -> None:
    """List them: why each is one, and what can be done. Listing changes nothing.

    A job is looked at only once it is older than a lease. A workspace that other apps share has jobs of theirs.
    """
    found = _found(ctx, is_old_too=old)
    rows = [
        row for row in (*map(_row_of_job, found.jobs), *map(_row_of_wait, found.gone)) if task in (None, row["task"])
    ]
    most = (limit or None) if is_json or limit is not None else SHOWN
    shown = list(islice(rows, most))
    if is_json:
        output.print_json(shown)
        return
    if shown:
        now = room_of_app(ctx).holds()[1]
        print_rows(("id", "task", "code", "job", "made", "task id", "why"), [_cells(row, now) for row in shown])
    more = f" The first {len(shown)} are shown: --limit 0 shows all." if len(rows) > len(shown) else ""
    output.say((f"{count_of(len(rows), 'orphan')}." if rows else "No orphans.") + more)


def _row_of_job(orphan: Orphan) -> dict[str, Any]:
    made_at = orphan.job.created_at
    can = ["adopt"] if orphan.is_adoptable else []
    return {
        "id": orphan.id,
        "task": orphan.task,
        "task_id": orphan.task_id,
        "account": orphan.account,
        "code": orphan.why,
        "job_id": orphan.id,
        "status": short(orphan.job.status),
        "at": made_at.timestamp() if made_at else None,
        "needs_arguments": orphan.is_adoptable and orphan.needs_arguments,
        "is_known": orphan.is_known,
        "can": can if orphan.job.is_terminal else [*can, "cancel"],
    }


def _row_of_wait(record: Record) -> dict[str, Any]:
    known = {"account": record.account, "job_id": record.job_id, "status": None, "at": record.accepted_at}
    more = {"needs_arguments": False, "is_known": True, "can": ["route"]}
    return {"id": record.id, "task": record.task, "task_id": record.id, "code": "not_found", **known, **more}


def _cells(row: dict[str, Any], now: float) -> tuple[Any, ...]:
    can = [f"{name} --args" if name == "adopt" and row["needs_arguments"] else name for name in row["can"]]
    why = WHY[row["code"]] + (f": {', '.join(can)}" if can else "")
    made = relative(row["at"], now) if row["at"] else ""
    return (row["id"], row["task"], row["code"], row["status"] or "gone", made, row["task_id"], why)


# --- what is done about them -------------------------------------------------------------------------------------


@orphans.command()
@_ids
@click.option("--all", "is_all", is_flag=True, help="Every job without a record that needs no arguments.")
@click.option("--args", type=json_array, metavar="JSON", help="Its task's arguments, if needed (one job only).")
@click.option("--kwargs", type=json_object, metavar="JSON", help="Its keyword arguments (one job only).")
@as_json
@click.pass_context
def adopt(
    ctx: click.Context,
    ids: tuple[str, ...],
    is_all: bool,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    is_json: bool,
) -> None:
    """Have records wait for jobs again, under their old task ids. Arguments and canvas stay lost."""
    _check_selection(ids, is_all)
    if (args, kwargs) != (None, None) and len(ids) != 1:
        raise click.UsageError("--args and --kwargs are of one task: name its job.")
    app_of(ctx).loader.import_default_modules()
    if is_all:
        jobs = [one for one in _found(ctx).jobs if one.is_adoptable]
        ids = tuple(one.id for one in jobs if not one.needs_arguments)
        if len(ids) < len(jobs):
            output.warn(f"{count_of(len(jobs) - len(ids), 'job')} left out, whose tasks need their arguments: --args.")

    def act(job_id: str) -> tuple[dict[str, Any], str]:
        record = found_by.adopt(app_of(ctx), job_id, args=args, kwargs=kwargs)
        return {"task": record.task, "task_id": record.id, "until": record.until}, f"awaited by {record.id}"

    _each(ids, act, "adopted; follow one with: celery framelane progress TASK_ID", is_json=is_json)


@orphans.command()
@_ids
@click.option("--all", "is_all", is_flag=True, help="Every job that goes on and that no record awaits.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def cancel(ctx: click.Context, ids: tuple[str, ...], is_all: bool, yes: bool, is_json: bool) -> None:
    """Cancel jobs that no record awaits. In a workspace that other apps share, theirs may be among them."""
    _check_selection(ids, is_all)
    app_of(ctx).loader.import_default_modules()
    if is_all:
        ids = tuple(one.id for one in _found(ctx).jobs if not one.job.is_terminal)
    if ids:
        output.ask(f"Cancel {ids[0] if len(ids) == 1 else count_of(len(ids), 'job')}?", yes=yes)

    def act(job_id: str) -> tuple[dict[str, Any], str]:
        orphan = found_by.cancel(app_of(ctx), job_id)
        return {"task": orphan.task, "task_id": orphan.task_id, "code": orphan.why}, "cancelled"

    _each(ids, act, "cancelled", is_json=is_json)


@orphans.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@as_json
@click.pass_context
def route(ctx: click.Context, ids: tuple[str, ...], is_json: bool) -> None:
    """Send records whose job is gone through the route table, as `not_found`. If many are: is it the right API key?"""
    app_of(ctx).loader.import_default_modules()  # a task's own routes

    def act(task_id: str) -> tuple[dict[str, Any], str]:
        record = found_by.route(app_of(ctx), task_id)
        known = {"task": record.task, "task_id": record.id, "until": record.until}
        return {**known, "code": (record.failure or {}).get("code")}, f"routed: until {record.until}"

    _each(ids, act, "routed", is_json=is_json, thing="record")


def _found(ctx: click.Context, *, is_old_too: bool = False) -> Orphans:
    app_of(ctx).loader.import_default_modules()  # which tasks are this app's
    return found_by.find(app_of(ctx), is_old_too=is_old_too)


def _check_selection(ids: Sequence[str], is_all: bool) -> None:
    if not ids and not is_all:
        raise click.UsageError("Name jobs by their ids, or take them all: --all.")
    if ids and is_all:
        raise click.UsageError("Name jobs by their ids or take them all: not both.")


def _each(
    ids: Sequence[str],
    act: Callable[[str], tuple[dict[str, Any], str]],
    done: str,
    *,
    is_json: bool,
    thing: str = "job",
) -> None:
    """Do something with each; one that fails stops nobody, a service that is away stops all. Exit code 1 if any."""
    if not ids:
        raise NotDone("no orphan matches")
    rows: list[dict[str, Any]] = []
    away = None
    for id in dict.fromkeys(ids):
        try:
            known, line = act(id)
        except (RoomError, TransportError, RateLimited) as error:
            away = error
            break
        except FramelaneError as error:
            known, line = {"error": str(error)}, ""
            output.warn(f"Error: {error}")
        rows.append({"id": id, **known})
        if line and not is_json:
            output.say(f"{id}  {line}")
    good = sum("error" not in row for row in rows)
    if is_json:
        output.print_json(rows)
    elif good:
        output.say(f"{count_of(good, thing)} {done}.")
    if away is not None:
        raise NotDone(f"{away} ({good} of {len(ids)} were done before; the same command goes on)") from away
    if good < len(rows):
        output.exit_with(1)
