"""What all commands share: where the app is, tables, JSON, questions, errors of one line, exit codes.

Exit codes: 0 done; 1 not done (nothing matched, some failed, the store is away); 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

import click
from celery import Celery
from rich.console import Console
from rich.table import Table
from rich.text import Text

from framelane_celery.errors import FramelaneError, SettingsError, clean_text
from framelane_celery.operations import room_for
from framelane_celery.room import Room
from framelane_celery.waits import relative

_UNBOUND: Final = 100_000
"""The width of a pipe: a line per row, for grep."""

_LEAST_WRAPPED: Final = 30
"""A column that wraps in fewer cells than these is no pleasure: then each row is a paragraph."""

_NO_APP: Final = "no app was named (celery -A PROJECT framelane …): "

Command = TypeVar("Command", bound=Callable[..., Any])


class NotDone(click.ClickException):
    """The command could not do all of what was asked: one line, exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Commands(click.Group):
    """A group whose errors are one line on stderr: ours are for people, and no traceback helps them."""

    def invoke(self, ctx: click.Context) -> Any:
        _bear_any_text()
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise NotDone(f"{'' if _names_an_app(ctx) else _NO_APP}{error}") from error
        except FramelaneError as error:
            raise NotDone(str(error)) from error
        except UnicodeEncodeError as error:  # bytes on the command line that are no text, so nothing has that name
            raise NotDone(f"not a name, as it is not text: {error.object!r}") from error


def _names_an_app(ctx: click.Context) -> bool:
    """Without ``-A`` Celery takes an app of its own, whose settings nobody has written, most likely."""
    return ctx.find_root().params.get("app", "") is not None


def app_of(ctx: click.Context) -> Celery:
    """The app that ``celery -A`` names."""
    return ctx.obj.app


def room_of_app(ctx: click.Context) -> Room:
    """The app's room. Raises: SettingsError."""
    return room_for(app_of(ctx))


def as_json(command: Command) -> Command:
    """The option ``--json`` of every command; it comes as ``is_json``."""
    return click.option("--json", "is_json", is_flag=True, help="Print JSON; instants are epoch seconds.")(command)


def exit_with(code: int) -> NoReturn:
    """End the command with an exit code; it has said why."""
    click.get_current_context().exit(code)


def _bear_any_text() -> None:
    """An id may hold what the terminal's encoding has not: write it escaped, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


# --- text --------------------------------------------------------------------------------------------------------


def printable(text: Any) -> str:
    """Text that others chose, as one line that cannot steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def print_json(value: Any) -> None:
    """Print JSON, in ASCII: any pipe takes it."""
    click.echo(json.dumps(value, indent=2, default=str))


def warn(text: str) -> None:
    """A line on stderr, which does not end the command."""
    click.echo(printable(text), err=True)


def say(text: str) -> None:
    """A line on stdout."""
    click.echo(printable(text))


def print_text(text: str) -> None:
    """Print several lines, none of which can steer a terminal."""
    for line in text.splitlines():
        say(line)


def count_of(number: int, thing: str) -> str:
    """ "1 letter", "2 letters"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def short(text: Any, limit: int = 300) -> str:
    """A message that came from the API: one line, no signed URL, nothing that steers a terminal."""
    return printable(clean_text(str(text), limit)) if text else ""


def instant(at: float | None, now: float) -> str | None:
    """An instant for people: absolute, with its zone, and as seen from now."""
    if not at:
        return None
    try:
        absolute = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return str(at)
    return f"{absolute} ({relative(at, now)})"


# --- questions ---------------------------------------------------------------------------------------------------


def ask(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed or paid. Without a terminal to ask, ``--yes`` is needed: exit code 2."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{printable(question)} Nobody is here to ask: add --yes.")
    if not click.confirm(printable(question), err=True):
        raise NotDone("nothing was done")


# --- tables ------------------------------------------------------------------------------------------------------


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table. The first column is an id, which is never cut; the last one may wrap.

    Where the terminal is too narrow for that, each row is a paragraph; in a pipe, each is one line.
    """
    cells = [[printable("" if cell is None else cell) for cell in row] for row in rows]
    console = console_of()
    fixed = sum(max(Text(line[at]).cell_len for line in [columns, *cells]) + 2 for at in range(len(columns) - 1))
    longest = max((Text(line[-1]).cell_len for line in [columns, *cells]), default=0)
    left = console.width - fixed
    if longest > left and left < _LEAST_WRAPPED:
        _print_paragraphs(console, columns, cells)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True, overflow="ignore")
    table.add_column(columns[-1], overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    _print(console, table)


def _print_paragraphs(console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """The id on a line of its own, so that it can be copied; then what is short; then what is long."""
    for line in cells:
        _print(console, Text(line[0], style="bold", no_wrap=True, overflow="ignore"))
        short = [f"{name} {cell}" for name, cell in zip(columns[1:-1], line[1:-1], strict=True) if cell]
        for text in (" · ".join(short), line[-1] and f"{columns[-1]}: {line[-1]}"):
            if text:
                _print_indented(console, text)


def _print_indented(console: Console, text: str) -> None:
    wrapped = Text(text).wrap(console, max(20, console.width - 4), overflow="fold")
    for part in wrapped:
        part.rstrip()
        _print(console, Text("    ") + part)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values, one under the other; what is None or empty is left out."""
    shown = {name: printable(value) for name, value in fields.items() if value not in (None, "")}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in shown.items():
        table.add_row(Text(name), Text(value))
    _print(console_of(), table)


def console_of() -> Console:
    """A console for stdout: as wide as the terminal, or without end in a pipe; colour only in a terminal."""
    is_terminal = sys.stdout.isatty()
    context = click.get_current_context(silent=True)
    no_color = bool(getattr(getattr(context, "obj", None), "no_color", False)) or not is_terminal
    return Console(width=None if is_terminal else _UNBOUND, no_color=no_color or None, highlight=False, markup=False)


def _print(console: Console, what: Any) -> None:
    """Through click, which knows what to do when the reader has gone (``| head``)."""
    with console.capture() as captured:
        console.print(what, soft_wrap=isinstance(what, Text))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
