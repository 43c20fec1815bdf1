"""`drain`: the way out. Nothing new is submitted, what is in flight ends; then, with the workers stopped, all goes."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click
from celery import Celery

from framelane_celery import draining
from framelane_celery.cli import output
from framelane_celery.cli.carrying import write_lines
from framelane_celery.cli.output import NotDone, app_of, as_json, count_of
from framelane_celery.draining import Removal, Survey, told
from framelane_celery.settings import settings_of

TIMEOUT_S: Final = 3600.0

_AGAIN: Final = "The accounts stay on hold, and jobs are watched. The same command goes on; `drain --undo` goes back."
_NO_LEADER: Final = "No watcher leads, so nothing moves on: start a worker."


@click.command()
@click.option("--wait/--cancel", "waits", default=True, help="Wait for what is in flight (default), or cancel it.")
@click.option("--timeout", default=TIMEOUT_S, show_default=True, type=click.FloatRange(0), metavar="S", help="Seconds.")
@click.option("--export", type=click.Path(dir_okay=False), metavar="FILE", help="Keep what is left, as `dead export`.")
@click.option("--remove", "removes", is_flag=True, help="Remove queues, keys, tables. Once the workers are stopped.")
@click.option("--discard", "discards", is_flag=True, help="With --remove: whatever is still there is lost.")
@click.option("--queue", "-q", "queues", multiple=True, help="With --remove: one that workers serve by -Q. Repeatable.")
@click.option("--undo", "undoes", is_flag=True, help="Release the accounts again, and submit what was held.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def drain(
    ctx: click.Context,
    waits: bool,
    timeout: float,
    export: str | None,
    removes: bool,
    discards: bool,
    queues: tuple[str, ...],
    undoes: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Stop submitting, then wait for or cancel what is in flight. With --remove: remove all that is ours.

    First with the workers running, then with --remove once they are stopped. It may be interrupted and called again.
    """
    if undoes and (removes or export or not waits):
        raise click.UsageError("--undo goes with no other option.")
    if (discards or queues) and not removes:
        raise click.UsageError("--discard and --queue go with --remove.")
    if removes and not waits:
        raise click.UsageError("--cancel needs a worker, --remove needs them stopped: first the one, then the other.")
    app = app_of(ctx)
    if undoes:
        _undo(app, is_json)
    elif removes:
        _remove(app, export, queues, discards=discards, yes=yes, is_json=is_json)
    else:
        _drain(app, export, timeout, cancels=not waits, yes=yes, is_json=is_json)


def _undo(app: Celery, is_json: bool) -> None:
    accounts = draining.undo(app)
    if is_json:
        output.print_json({"released": accounts})
    elif accounts:
        output.say(f"{count_of(len(accounts), 'account')} released: {', '.join(accounts)}.")
    if not accounts:
        raise NotDone("no account is on hold for a drain")


# --- stop, and wait ----------------------------------------------------------------------------------------------


def _drain(app: Celery, export: str | None, timeout_s: float, *, cancels: bool, yes: bool, is_json: bool) -> None:
    if cancels:
        output.ask("Cancel every job in flight, and every task that was not submitted?", yes=yes)
    if export is not None:
        _ask_over(export, yes=yes)
    try:
        seen = _wait(app, timeout_s, cancels=cancels)
        exported = None if export is None or not seen.is_drained else write_lines(export, draining.lines(app))
    except KeyboardInterrupt:
        raise NotDone(f"interrupted. {_AGAIN}") from None
    if is_json:
        output.print_json({**_as_json(app, seen), "exported": exported, "removed": None})
    else:
        for line in _report(seen, export, exported):
            output.say(line)
    if not seen.is_drained:
        raise NotDone(f"not drained within {timeout_s:g} s. {_AGAIN}")


def _wait(app: Celery, timeout_s: float, *, cancels: bool) -> Survey:
    """The room once nothing is under way, or at the end of the time. What changes is told on stderr."""
    ends_at, line, is_led = time.monotonic() + timeout_s, "", True
    for seen in draining.drain(app, cancels=cancels):
        if seen.in_flight and (was := line) != (line := f"In flight: {told(seen.in_flight)}."):
            output.warn(line if was or not seen.not_submitted else f"{line} Not submitted: {told(seen.not_submitted)}.")
        if seen.in_flight and is_led != (is_led := seen.leader is not None) and not is_led:
            output.warn(_NO_LEADER)
        if seen.is_drained or time.monotonic() >= ends_at:
            return seen
    raise AssertionError("a drain ends with a survey")


def _report(seen: Survey, export: str | None, exported: int | None) -> list[str]:
    if seen.in_flight:
        return [f"Still in flight: {told(seen.in_flight)}." + ("" if seen.leader else f" {_NO_LEADER}")]
    lines = ["Drained: nothing is in flight, and nothing is submitted."]
    if seen.not_submitted:
        lines.append(f"{count_of(sum(seen.not_submitted.values()), 'task')} not submitted: {told(seen.not_submitted)}.")
    if seen.unanswered:
        lines.append(f"{seen.unanswered} of them were posted and never answered: celery framelane orphans list")
    if seen.letters:
        lines.append(f"{count_of(seen.letters, 'dead letter')}: celery framelane dead list")
    if exported is not None:
        lines.append(f"{count_of(exported, 'line')} written to {export}: `dead import` takes them in elsewhere.")
    return [*lines, "Next: stop the workers, then `drain --remove`. To go back: `drain --undo`."]


def _as_json(app: Celery, seen: Survey) -> dict[str, Any]:
    counts = {name: dict(getattr(seen, name)) for name in ("in_flight", "not_submitted")}
    more = {"unanswered": seen.unanswered, "letters": seen.letters, "accounts": sorted(seen.accounts)}
    leader = seen.leader and seen.leader.partition("/")[0]
    return {"id": settings_of(app).namespace, "drained": seen.is_drained, **counts, **more, "leader": leader}


# --- remove ------------------------------------------------------------------------------------------------------


def _remove(
    app: Celery, export: str | None, queues: tuple[str, ...], *, discards: bool, yes: bool, is_json: bool
) -> None:
    there = draining.survey(app)
    if not discards:  # before anything is asked or written
        draining.refuse_loss(there, None if export is None else there.left)
    output.ask(f"Remove all of {settings_of(app).namespace}{_lost(there, export)}, for good?", yes=yes)
    exported = None
    if export is not None:
        _ask_over(export, yes=yes)
        exported = write_lines(export, draining.lines(app))
    removal = draining.remove(app, queues=queues, exported=exported, discards=discards)
    if is_json:
        output.print_json({**_as_json(app, there), "exported": exported, "removed": _removed_as_json(removal)})
        return
    if exported is not None:
        output.say(f"{count_of(exported, 'line')} written to {export}.")
    for line in _removed(removal):
        output.say(line)


def _lost(there: Survey, export: str | None) -> str:
    counts = Counter({"in flight": sum(there.in_flight.values())})
    if export is None:
        counts += Counter({"not submitted": sum(there.not_submitted.values()), "dead letters": there.letters})
    return f" ({told(+counts)})" if +counts else ""


def _removed(removal: Removal) -> list[str]:
    lines = [f"Queue {one.name}: removed, with {count_of(one.messages, 'message')}." for one in removal.queues]
    why = "task_queues or a task's route names it, or a worker takes from it"
    lines += [f"Queue {name}: stays, as {why}." for name in removal.queues_kept]
    lines += [f"Table {name}: removed." for name in removal.room.tables]
    lines.append(f"The room: {removal.room.entries} entries (keys or rows) removed.")
    if removal.room.tables_kept:
        lines.append(f"The tables stay: {removal.room.tables_kept}.")
    return [
        *lines,
        "Results and webhooks stay: see “What stays” of the page “Removing framelane_celery”.",
    ]


def _removed_as_json(removal: Removal) -> dict[str, Any]:
    return {
        "queues": [one._asdict() for one in removal.queues],
        "queues_kept": list(removal.queues_kept),
        "entries": removal.room.entries,
        "tables": list(removal.room.tables),
        "tables_kept": removal.room.tables_kept,
    }


def _ask_over(file: str, *, yes: bool) -> None:
    if Path(file).exists():
        output.ask(f"{file} exists. Write over it?", yes=yes)
