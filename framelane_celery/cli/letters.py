"""Which dead letters a command is about, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import click

from framelane_celery import dead_letters
from framelane_celery.cli import output
from framelane_celery.cli.output import short
from framelane_celery.dead_letters import NoSuchLetter
from framelane_celery.records import Record
from framelane_celery.room import Room

UNKNOWN: Final = "outcome_unknown"
"""The code of what may be paid for already: only replayed where somebody asks for just that."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Selection(NamedTuple):
    """Letters by id, or by what they have in common, or all."""

    ids: tuple[str, ...]
    code: str | None
    task: str | None
    is_all: bool

    @property
    def is_given(self) -> bool:
        return bool(self.ids or self.code or self.task or self.is_all)

    def check(self) -> None:
        """Raise a usage error for a selection that says nothing, or two things."""
        if not self.is_given:
            raise click.UsageError("Name letters by their ids, or select them: --code, --task or --all.")
        if self.ids and (self.code or self.task or self.is_all):
            raise click.UsageError("Name letters by their ids or select them by --code, --task or --all: not both.")
        if self.is_all and (self.code or self.task):
            raise click.UsageError("--all takes every letter: leave out --code and --task, or --all.")

    def in_room(self, room: Room) -> Iterator[Record]:
        """The letters; ids that are none are told, and counted by the caller: see `named`."""
        return dead_letters.letters(room, code=self.code, task=self.task)


def selects(command: Command) -> Command:
    """The arguments and options that make a `Selection`."""
    for option in (
        click.option("--all", "is_all", is_flag=True, help="Every dead letter."),
        click.option("--task", help="The letters of this task, by its name."),
        click.option("--code", help="The letters of this code, such as source_not_found."),
        click.argument("ids", metavar="[ID...]", nargs=-1),
    ):
        command = option(command)
    return command


class Head(NamedTuple):
    """What is remembered of a letter that was selected: thousands may be."""

    id: str
    task: str
    code: str | None


def heads(room: Room, selection: Selection) -> tuple[list[Head], list[str]]:
    """The selected letters, and the ids that are none, which are told on stderr."""
    if not selection.ids:
        return [head_of(letter) for letter in selection.in_room(room)], []
    found, wrong = [], []
    for letter_id in dict.fromkeys(selection.ids):
        try:
            found.append(head_of(dead_letters.find(room, letter_id)))
        except NoSuchLetter as error:
            output.warn(f"Error: {error}")
            wrong.append(letter_id)
    return found, wrong


def head_of(letter: Record) -> Head:
    return Head(letter.id, letter.task, (letter.failure or {}).get("code"))


def row_of(letter: Record) -> dict[str, Any]:
    """A letter as JSON, without its arguments."""
    failure, told = letter.failure or {}, letter.letter or {}
    return {
        "id": letter.id,
        "task": letter.task,
        "task_id": letter.id,
        "code": failure.get("code"),
        "message": short(failure.get("message")) or None,
        "at": told.get("at"),
        "attempts": letter.attempts_made,
        "job_id": letter.job_id,
        "account": letter.account,
        "keep_waiting": letter.until == "release",
    }
