"""`dead`: the dead letters, listed, counted, shown; what changes them is in `replaying` and `carrying`."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from shlex import quote
from typing import Any

import click

from framelane_celery import dead_letters
from framelane_celery.cli import output
from framelane_celery.cli.carrying import export, import_
from framelane_celery.cli.letters import row_of
from framelane_celery.cli.output import as_json, count_of, instant, print_rows, room_of_app
from framelane_celery.cli.replaying import discard, replay
from framelane_celery.cli.waiting import SHOWN, print_attempts
from framelane_celery.records import Record
from framelane_celery.shown import comes_after, without_secrets
from framelane_celery.waits import failure_text, relative
from framelane_celery.wakeups import Call


@click.group()
def dead() -> None:
    """Dead letters: tasks that have failed for good, kept with all that is needed to run them again."""


for _command in (replay, discard, export, import_):
    dead.add_command(_command)


@dead.command(name="list")
@click.option("--code", help="Only letters of this code.")
@click.option("--task", help="Only letters of this task, by its name.")
@click.option("--limit", type=click.IntRange(0), help=f"At most so many. Tables stop at {SHOWN}; 0 shows all.")
@as_json
@click.pass_context
def list_(ctx: click.Context, code: str | None, task: str | None, limit: int | None, is_json: bool) -> None:
    """List the letters, oldest first. Listing changes nothing."""
    room = room_of_app(ctx)
    most = (limit or None) if is_json or limit is not None else SHOWN
    letters = dead_letters.letters(room, code=code, task=task)
    rows = [row_of(letter) for letter in islice(letters, most)]
    if is_json:
        output.print_json(rows)
        return
    if not rows:
        output.say("No dead letters." if code is None and task is None else "No such dead letters.")
        return
    now = room.holds()[1]
    print_rows(("id", "task", "code", "when", "attempts", "message"), [_cells(row, now) for row in rows])
    more = sum(1 for _ in letters)
    rest = f", and {more} more: --limit 0 shows all" if more else ""
    output.say(f"{count_of(len(rows), 'letter')}{rest}.")


def _cells(row: dict[str, Any], now: float) -> tuple[Any, ...]:
    when = relative(row["at"], now) if row["at"] else ""
    waits = "kept waiting; " if row["keep_waiting"] else ""
    return (row["id"], row["task"], row["code"], when, row["attempts"], f"{waits}{row['message'] or ''}")


@dead.command()
@as_json
@click.pass_context
def count(ctx: click.Context, is_json: bool) -> None:
    """Count the letters by their codes."""
    letters = dead_letters.letters(room_of_app(ctx))
    counts = Counter(str((letter.failure or {}).get("code") or "unknown") for letter in letters)
    if is_json:
        output.print_json([{"code": code, "count": number} for code, number in counts.most_common()])
        return
    if counts:
        print_rows(("code", "letters"), counts.most_common())
    output.say(f"{count_of(counts.total(), 'letter')}." if counts else "No dead letters.")


@dead.command()
@click.argument("letter_id", metavar="ID")
@click.option("--full", is_flag=True, help="The arguments as they are, with the keys in signed URLs.")
@as_json
@click.pass_context
def show(ctx: click.Context, letter_id: str, full: bool, is_json: bool) -> None:
    """Show one letter: its call, its error, its attempts, the route that sent it, and what comes after it."""
    room = room_of_app(ctx)
    letter = dead_letters.find(room, letter_id)
    call = Call.from_text(letter.call)
    args, kwargs = (call.args, call.kwargs) if full else (without_secrets(call.args), without_secrets(call.kwargs))
    route, after = (letter.letter or {}).get("route") or {}, comes_after(call)
    if is_json:
        history = list(letter.history)
        known = {"args": args, "kwargs": kwargs, "route": route, "after": after, "history": history}
        output.print_json({**row_of(letter), "created_at": letter.created_at, "outcome": letter.outcome, **known})
        return
    now = room.holds()[1]
    output.print_fields(_fields(letter, route, after, now))
    print_attempts(letter, now)
    for name, value in (("args", args), ("kwargs", kwargs)):
        if value:
            output.say("")
            output.say(f"{name}:")
            output.print_text(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _fields(letter: Record, route: dict[str, Any], after: dict[str, Any], now: float) -> dict[str, Any]:
    names = {"next": "then", "on_success": "on success", "on_error": "on error", "chord": "chord's body"}
    lines = {
        shown: " → ".join(after[name]) if isinstance(after[name], list) else after[name]
        for name, shown in names.items()
        if name in after
    }
    state = "has failed; a replay runs it, and what comes after it, under a new id"
    if letter.until == "release":
        state = "kept waiting; a replay goes on from this step, a discard fails it"
    return {
        "task": letter.task,
        "id": letter.id,
        "error": failure_text(letter.failure),
        "died": instant((letter.letter or {}).get("at"), now),
        "called": instant(letter.created_at, now),
        "attempts": letter.attempts_made,
        "job": letter.job_id,
        "account": letter.account if letter.account != "default" else None,
        "pipeline": state,
        **lines,
        "sent by": json.dumps(route) if route else None,
        "replay": f"celery framelane dead replay {quote(letter.id)}",
    }
