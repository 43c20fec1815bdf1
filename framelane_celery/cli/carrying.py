"""`dead export` and `dead import`: letters as lines of JSON, to keep them or to carry them to another room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from framelane_celery import dead_letters
from framelane_celery.cli import output
from framelane_celery.cli.letters import Selection, heads, selects
from framelane_celery.cli.output import NotDone, app_of, as_json, count_of, room_of_app
from framelane_celery.dead_letters import NoSuchLetter
from framelane_celery.errors import FramelaneError, RoomError
from framelane_celery.records import Record
from framelane_celery.room import Room


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@selects
@click.option("--yes", is_flag=True, help="Write over FILE without asking.")
@as_json
@click.pass_context
def export(
    ctx: click.Context,
    file: str,
    ids: tuple[str, ...],
    code: str | None,
    task: str | None,
    is_all: bool,
    yes: bool,
    is_json: bool,
) -> None:
    """Write letters to FILE ("-": to stdout) as JSON lines, with their arguments: keep it as you keep secrets.

    Without a selection, all of them. They stay where they are.
    """
    selection = Selection(ids, code, task, is_all)
    if selection.is_given:
        selection.check()
    room = room_of_app(ctx)
    if ids:
        chosen, wrong = heads(room, selection)
        letters = _by_id(room, [head.id for head in chosen])
    else:
        letters, wrong = selection.in_room(room), []
    first = next(letters, None)
    if first is None and selection.is_given:
        if wrong:
            output.exit_with(1)
        raise NotDone("no dead letter matches")
    if file != "-" and Path(file).exists():
        output.ask(f"{file} exists. Write over it?", yes=yes)
    lines = (dead_letters.to_line(letter, room.namespace) for letter in _all_of(first, letters))
    number = write_lines(file, lines)
    if file == "-":
        output.warn(f"{count_of(number, 'letter')} exported.")
    elif is_json:
        output.print_json({"file": file, "exported": number})
    else:
        output.say(f"{count_of(number, 'letter')} exported to {file}.")
    if wrong:
        output.exit_with(1)


def _all_of(first: Record | None, rest: Iterator[Record]) -> Iterator[Record]:
    if first is not None:
        yield first
    yield from rest


def _by_id(room: Room, ids: Iterable[str]) -> Iterator[Record]:
    for letter_id in ids:
        with suppress(NoSuchLetter):  # replayed meanwhile
            yield dead_letters.find(room, letter_id)


def write_lines(file: str, lines: Iterator[str]) -> int:
    """Write lines; a file is there only once it is whole, and only its owner may read it."""
    if file == "-":
        return sum(_echo(line) for line in lines)
    target, number = Path(file), 0
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, encoding="utf-8", delete=False) as out:
            temporary = out.name
            for line in lines:
                out.write(line + "\n")
                number += 1
        os.replace(temporary, target)
    except OSError as error:
        raise NotDone(f"{file}: {error.strerror}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return number


def _echo(line: str) -> bool:
    click.echo(line)
    return True


# --- import ------------------------------------------------------------------------------------------------------


@click.command(name="import")
@click.argument("file", type=click.File("rb"))
@as_json
@click.pass_context
def import_(ctx: click.Context, file: IO[bytes], is_json: bool) -> None:
    """Take letters in from FILE ("-": from stdin), as `dead export` wrote it. Twice is as good as once."""
    app, new, known = app_of(ctx), 0, 0
    bad: list[dict[str, str | int]] = []
    away = None
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            is_new = dead_letters.from_line(app, line.decode())
        except RoomError as error:
            away = f"{error} (line {number}; those before it are done)"
            break
        except (FramelaneError, UnicodeDecodeError) as error:
            why = str(error) if isinstance(error, FramelaneError) else "not UTF-8"
            bad.append({"line": number, "error": why})
            output.warn(f"line {number}: {why}")
            continue
        new, known = new + is_new, known + (not is_new)
    if is_json:
        output.print_json({"new": new, "known": known, "bad": bad})
    else:
        output.say(f"{count_of(new, 'new letter')}, {known} known already, {count_of(len(bad), 'bad line')}.")
    if away is not None:
        raise NotDone(away)
    if bad:
        output.exit_with(1)
