"""Commands as pages show them: each has to exist, with the options that are given. None is run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.celery import celery
from packaging.requirements import Requirement

from framelane_celery.cli.standalone import main as framelane_celery
from tests.docs.pages import ROOT

OTHERS: Final = frozenset(
    ("cd", "ls", "pytest", "apt-get", "docker", "kubectl", "promtool", "sudo", "systemctl", "curl")
)
"""Programs of others, whose options are theirs."""


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a console block: what follows a "$", over lines that end in a backslash."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("$ "):
            yield from _parts(shlex.split(line[2:], comments=True))


def _parts(words: list[str]) -> Iterator[list[str]]:
    """Those of a pipe or a list are commands, each; what is redirected is none of their business."""
    part: list[str] = []
    for word in [*words, ";"]:
        if word in ("|", "&&", ";"):
            if part:
                yield part
            part = []
        else:
            part.append(word)


def check(words: Sequence[str], page: str) -> None:
    """Raises: AssertionError or click.UsageError, if there is no such command, or it has no such option."""
    if ">" in words:
        words = words[: words.index(">")]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return
    name, arguments = words[0], list(words[1:])
    if name in OTHERS:
        return
    assert name in CHECKS, f"{page}: nobody checks {name!r}: tests/docs/commands.py"
    CHECKS[name](arguments, page)


def _make(arguments: list[str], page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    given = {word for word in arguments if "=" not in word}
    assert given <= targets, f"{page}: make has no {given - targets}"


def _pip(arguments: list[str], page: str) -> None:
    assert arguments[0] in ("install", "uninstall"), arguments
    known = set(re.findall(r"^(\w+) = \[", _table("project.optional-dependencies"), re.MULTILINE))
    for word in arguments[1:]:
        requirement = Requirement(word)
        if requirement.name == "framelane-celery":
            assert requirement.extras <= known, f"{page}: no extra {requirement.extras - known}"


def _table(name: str) -> str:
    return (ROOT / "pyproject.toml").read_text().split(f"[{name}]\n")[1].split("\n[")[0]


def _export(arguments: list[str], page: str) -> None:
    assert arguments, page
    assert all(re.fullmatch(r"[A-Z][A-Z_]*=.+", word) for word in arguments), f"{page}: {arguments}"


def _python(arguments: list[str], page: str) -> None:
    """What is run is there: from the root, from the page's folder, or from the one around it."""
    if arguments[0] == "-c":
        compile(arguments[1], page, "exec")
        return
    is_module = arguments[0] == "-m"
    name = arguments[1].replace(".", "/") if is_module else arguments[0]
    folder = (ROOT / page).parent
    found = [
        base / path
        for base in (ROOT, folder, folder.parent)
        for path in ((name, f"{name}.py") if is_module else (name,))
    ]
    is_there = any(path.exists() for path in found) or name == "manage.py"
    assert is_there, f"{page}: python has no {' '.join(arguments)}"


def parses(group: click.Command, arguments: list[str]) -> None:
    """Let click parse a whole line, down to the last command, without running any. Raises: click.UsageError."""
    obj = CLIContext(app=Celery(set_as_current=False), no_color=True, workdir=None)
    command: click.Command | None = group
    context: click.Context | None = None
    with ExitStack() as files:
        while command is not None:
            context = command.make_context(command.name, list(arguments), parent=context, obj=obj)
            files.callback(context.close)
            if not isinstance(context.command, click.Group):
                return
            _, command, arguments = context.command.resolve_command(context, [*context._protected_args, *context.args])


def _celery(arguments: list[str], page: str) -> None:
    """Files that are named are made here, empty, for commands that open them; what a page leaves out of a JSON too."""
    for name in arguments:
        if re.fullmatch(r"FILE|\w[\w-]*\.jsonl?", name):
            Path(name).touch()
    parses(celery, [word.replace("[…]", "[]") for word in arguments])


def _framelane_celery(arguments: list[str], page: str) -> None:
    parses(framelane_celery, arguments)


CHECKS: Final[Mapping[str, Callable[[list[str], str], None]]] = MappingProxyType(
    {
        "make": _make,
        "pip": _pip,
        "export": _export,
        "python": _python,
        "celery": _celery,
        "framelane-celery": _framelane_celery,
        ".venv/bin/python": _python,
    }
)

INLINE: Final = re.compile(r"`((?:make|celery|framelane-celery) [^`\n]+)`")
"""A command in the middle of a sentence."""


def check_inline(page: str) -> None:
    """Those of a page: that a sentence names a command without what it wants is no mistake."""
    for text in INLINE.findall((ROOT / page).read_text()):
        if "…" not in text and "COMMAND" not in text:
            with suppress(click.MissingParameter, click.exceptions.NoArgsIsHelpError):
                check(shlex.split(text), page)
