"""`doctor` and `health`: what is wrong in a deployment, and whether it works at all."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click
from rich.text import Text

from framelane_celery.cli.output import app_of, as_json, console_of, count_of, exit_with, print_json, printable, say
from framelane_celery.doctor import Finding, Level, examine, probe

_STYLES: Final[dict[Level, str]] = {"problem": "bold red", "warning": "yellow", "ok": "green"}
_INDENT: Final = 9


@click.command()
@as_json
@click.pass_context
def doctor(ctx: click.Context, is_json: bool) -> None:
    """Check the whole deployment, and say what to change.

    Takes some seconds. Exit code 0: no problem (there may be warnings); 1: a problem.
    """
    findings = examine(app_of(ctx))
    if is_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            _print_finding(finding)
        _print_summary(findings)
    exit_with(int(any(finding.level == "problem" for finding in findings)))


@click.command()
@as_json
@click.pass_context
def health(ctx: click.Context, is_json: bool) -> None:
    """Answer a probe within a second: the room answers, a watcher leads, nothing is overdue.

    Exit code 0: healthy; 1: not.
    """
    entries = probe(app_of(ctx))
    is_healthy = all(entry.is_healthy for entry in entries)
    if is_json:
        print_json({"is_healthy": is_healthy, "checks": [entry._asdict() for entry in entries]})
    else:
        for entry in entries:
            say(f"{'ok' if entry.is_healthy else 'not ok'}: {entry.check}: {entry.what}")
    exit_with(int(not is_healthy))


def _print_finding(finding: Finding) -> None:
    head = Text(f"{finding.level:<{_INDENT}}", style=_STYLES[finding.level])
    head.append(f"{finding.check}: ", style="bold")
    head.append(printable(finding.what), style="default")
    _print_wrapped(head, hang=True)
    if finding.why:
        _print_wrapped(Text(printable(finding.why), style="dim"))
    if finding.change:
        _print_wrapped(Text(f"-> {printable(finding.change)}"))


def _print_wrapped(text: Text, *, hang: bool = False) -> None:
    """Wrapped at the terminal's width, under the finding's head."""
    console = console_of()
    margin = " " * _INDENT
    body = text[_INDENT:] if hang else text
    first = text[:_INDENT] if hang else Text(margin)
    for at, line in enumerate(body.wrap(console, max(20, console.width - _INDENT), overflow="fold")):
        line.rstrip()
        with console.capture() as captured:
            console.print((first if at == 0 else Text(margin)) + line, soft_wrap=True)
        click.echo(captured.get().rstrip())


def _print_summary(findings: list[Finding]) -> None:
    counts = Counter(finding.level for finding in findings)
    say(f"{count_of(counts['problem'], 'problem')}, {count_of(counts['warning'], 'warning')}, {counts['ok']} ok")
