"""`dead replay` and `dead discard`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from framelane_celery import dead_letters
from framelane_celery.cli import output
from framelane_celery.cli.checking import Checker
from framelane_celery.cli.letters import UNKNOWN, Head, Selection, heads, selects
from framelane_celery.cli.output import NotDone, app_of, as_json, count_of, room_of_app
from framelane_celery.errors import FramelaneError, RoomError


def _json_of(kind: type, name: str, text: str) -> Any:
    """Arguments as JSON text. Raises: BadParameter."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from error
    if not isinstance(given, kind):
        raise click.BadParameter(f"must be a JSON {name}")
    return given


def json_array(text: str) -> list[Any]:
    return _json_of(list, "array, such as '[1, 2]'", text)  # type: ignore[no-any-return]


def json_object(text: str) -> dict[str, Any]:
    return _json_of(dict, "object, such as '{\"size\": 2}'", text)  # type: ignore[no-any-return]


@click.command()
@selects
@click.option("--args", type=json_array, metavar="JSON", help="These arguments instead (one letter only).")
@click.option("--kwargs", type=json_object, metavar="JSON", help="These keyword arguments instead (one letter only).")
@click.option("--dry-run", is_flag=True, help="Replay nothing; ask the API whether it would take the renders.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def replay(
    ctx: click.Context,
    ids: tuple[str, ...],
    code: str | None,
    task: str | None,
    is_all: bool,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    dry_run: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Run letters again: each is a new attempt, which is paid for. A letter that is replayed twice makes one job."""
    selection = Selection(ids, code, task, is_all)
    selection.check()
    if (args is not None or kwargs is not None) and len(ids) != 1:
        raise click.UsageError("--args and --kwargs change the arguments of one letter: name its id.")
    if args is not None or kwargs is not None:
        app_of(ctx).loader.import_default_modules()  # the project's own task checks its arguments
    chosen, wrong = _chosen(ctx, selection, keeps_done=not dry_run)
    if dry_run:
        checker = Checker(app_of(ctx), args=args, kwargs=kwargs)
        _each(ctx, chosen, checker.check, is_json=is_json, wrong=wrong, done="looked at, nothing is replayed")
        return
    if len(chosen) > 1:
        output.ask(f"Replay {count_of(len(chosen), 'letter')}? Each is a job that is paid for.", yes=yes)

    def act(head: Head) -> tuple[dict[str, Any], str, bool]:
        done = dead_letters.replay(app_of(ctx), head.id, args=args, kwargs=kwargs)
        how = f"goes on as {done.task_id}" if done.task_id == head.id else f"replayed as {done.task_id}"
        if not done.is_new:
            how = f"was replayed before, as {done.task_id}"
        return {"task_id": done.task_id, "is_new": done.is_new}, how, True

    _each(
        ctx, chosen, act, is_json=is_json, wrong=wrong, done="replayed; follow one with: celery framelane progress ID"
    )


@click.command()
@selects
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def discard(
    ctx: click.Context,
    ids: tuple[str, ...],
    code: str | None,
    task: str | None,
    is_all: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Throw letters away. A pipeline that was kept waiting fails then, with its errbacks and its chord."""
    selection = Selection(ids, code, task, is_all)
    selection.check()
    chosen, wrong = heads(room_of_app(ctx), selection)
    _refuse_none(chosen, wrong)
    which = f"the letter {chosen[0].task} {chosen[0].id}" if len(chosen) == 1 else count_of(len(chosen), "letter")
    output.ask(f"Discard {which} for good?", yes=yes)

    def act(head: Head) -> tuple[dict[str, Any], str, bool]:
        dead_letters.discard(app_of(ctx), head.id)
        return {"discarded": True}, "discarded", True

    _each(ctx, chosen, act, is_json=is_json, wrong=wrong, done="discarded")


def _chosen(ctx: click.Context, selection: Selection, *, keeps_done: bool) -> tuple[list[Head], list[str]]:
    """The letters to replay. What may be paid for already is left out, unless it is named."""
    room = room_of_app(ctx)
    if selection.ids and keeps_done:  # one that was replayed is no letter any more; the replay says as what it was
        return [_head_or_id(room, letter_id) for letter_id in dict.fromkeys(selection.ids)], []
    chosen, wrong = heads(room, selection)
    if not selection.ids and selection.code != UNKNOWN:
        unknown = sum(head.code == UNKNOWN for head in chosen)
        chosen = [head for head in chosen if head.code != UNKNOWN]
        if unknown:
            output.warn(
                f"{count_of(unknown, 'letter')} of code {UNKNOWN} left out: a job may have been made, and be paid for "
                f"again. Look for it first; then name the ids, or --code {UNKNOWN}."
            )
    _refuse_none(chosen, wrong)
    return chosen, wrong


def _head_or_id(room: Any, letter_id: str) -> Head:
    record, _ = room.read(letter_id)
    return Head(letter_id, record.task if record else "", ((record.failure if record else None) or {}).get("code"))


def _refuse_none(chosen: list[Head], wrong: list[str]) -> None:
    if not chosen:
        if wrong:  # told already
            output.exit_with(1)
        raise NotDone("no dead letter matches")


def _each(
    ctx: click.Context,
    chosen: list[Head],
    act: Callable[[Head], tuple[dict[str, Any], str, bool]],
    *,
    is_json: bool,
    wrong: list[str],
    done: str,
) -> None:
    """Do something with each letter; one that fails stops nobody, a room that is away stops all. Exit code 1 if any.

    ``act`` answers what JSON has of it, a line for people, and whether it is good.
    """
    rows: list[dict[str, Any]] = []
    bad, away = len(wrong), None
    for head in chosen:
        row: dict[str, Any] = {"id": head.id, "task": head.task, "task_id": head.id, "code": head.code}
        try:
            known, line, is_good = act(head)
            bad += not is_good
        except RoomError as error:
            away = error
            break
        except FramelaneError as error:
            known, line, is_good = {"error": str(error)}, f"Error: {error}", False
            bad += 1
        rows.append({**row, **known})
        if is_json:
            continue
        (output.say if is_good else output.warn)(line if line.startswith("Error") else f"{head.id}  {line}")
    if is_json:
        output.print_json(rows)
    elif len(rows) > 1 or (rows and not bad):
        output.say(f"{count_of(len(rows) - sum('error' in row for row in rows), 'letter')} {done}.")
    if away is not None:
        raise NotDone(f"{away} ({len(rows)} of {len(chosen)} letters were done before)") from away
    if bad:
        output.exit_with(1)
