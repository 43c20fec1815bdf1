"""Write the reference pages that say nothing but what the code says: ``make reference``. A test compares them with it.

In docs/reference/: cli.md from the commands, metrics.md and signals.md from their declarations, tasks.md from the tasks
that an app knows. What is written by hand beside them (settings.md, errors.md, records.md) a test holds against the
code: tests/docs.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import click
from celery import Celery, Task
from celery.utils.dispatch import Signal

from framelane_celery import signals
from framelane_celery.cli.commands import framelane
from framelane_celery.cli.standalone import main as standalone
from framelane_celery.metrics.names import COUNTERS, GAUGES, HISTOGRAMS, NAMESPACE, Metric
from framelane_celery.tasks.builtin import BuiltinTask
from framelane_celery.tasks.recorded import RecordedTask

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py from the code: change it there, then `make reference`. -->"


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


def pages() -> dict[str, str]:
    """Each page's name and text."""
    made = {"cli.md": cli(), "metrics.md": metrics(), "signals.md": of_signals(), "tasks.md": tasks()}
    return {name: "\n".join([MADE, "", *lines]).rstrip() + "\n" for name, lines in made.items()}


# --- the command line --------------------------------------------------------------------------------------------


def cli() -> Iterator[str]:
    yield from (
        "# Command line",
        "",
        "`celery -A PROJECT framelane COMMAND` asks and changes what waits; `PROJECT` is the module of your Celery "
        "app. `framelane-celery COMMAND` needs no app.",
        "",
        "Exit codes: 0 done; 1 not done (nothing matched, some failed, the room is away); 2 wrong usage. With "
        "`--json`, what is listed is an array of objects, and its `id` is what the other commands take. What destroys "
        "something asks first, or wants `--yes`.",
        "",
    )
    for group, prefix in ((framelane, "celery -A PROJECT framelane"), (standalone, "framelane-celery")):
        yield from (f"## {prefix.replace(' -A PROJECT', '')}", "", help_of(group), "")
        for command, name in commands_of(group, prefix):
            yield from command_lines(command, name, name.removeprefix(f"{prefix} "))


def commands_of(group: click.Group, prefix: str) -> Iterator[tuple[click.Command, str]]:
    """Each command in the order in which the code adds it, with how it is called; groups before what is in them."""
    for name, command in group.commands.items():
        yield command, f"{prefix} {name}"
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{prefix} {name}")


def command_lines(command: click.Command, called: str, title: str) -> Iterator[str]:
    context = click.Context(command, info_name=called)
    yield from (f"### {title}", "", "```text", f"{called} {' '.join(command.collect_usage_pieces(context))}".rstrip())
    yield from ("```", "", help_of(command), "")
    rows = [option_row(option, context) for option in command.params if isinstance(option, click.Option)]
    if rows:
        has_defaults = any(default for _, default, _ in rows)
        for option, default, meaning in (("option", "default", "meaning"), ("---", "---", "---"), *rows):
            yield f"| {option} | {f'{default} | ' if has_defaults else ''}{meaning} |"
        yield ""


def help_of(command: click.Command) -> str:
    return cell(inspect.cleandoc(command.help or ""), within_table=False)


def option_row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    """How it is written, its default, what it means."""
    told = option.get_help_record(context)
    assert told is not None, f"{option.name} is hidden"
    names, words = told
    words = re.sub(r"\s*\[(default|required|[x<>=\d. ]*)[^\]]*\]$", "", words)  # click's own columns
    default = option.get_default(context)
    is_shown = not option.is_flag and isinstance(default, (str, int, float))
    names = names.replace(" RANGE", "").replace("|", " | ")
    return f"`{cell(names)}`", f"`{default}`" if is_shown else "", cell(words)


# --- metrics and signals -----------------------------------------------------------------------------------------


def metrics() -> Iterator[str]:
    yield from (
        "# Metrics",
        "",
        "How Prometheus gets them: [Monitoring](../monitoring.md#metrics). Each has the label "
        f"`{NAMESPACE}`, the setting `namespace`, in front. No label is an id. Codes that are not known, and queues "
        "and accounts from the 41st on, are `other`.",
    )
    kinds: tuple[tuple[str, str, Mapping[str, Metric]], ...] = (
        ("Gauges", "", GAUGES),
        ("Counters", "_total", COUNTERS),
        ("Histograms, in seconds", "", HISTOGRAMS),
    )
    for title, suffix, table in kinds:
        yield from ("", f"## {title}", "", "| metric | says | labels |", "| --- | --- | --- |")
        for name, metric in table.items():
            labels = [f"`{label}`" for label in metric.labels]
            if metric.always:
                labels[0] += f": {', '.join(metric.always)}"
            yield f"| `framelane_{name}{suffix}` | {cell(metric.help)} | {', '.join(labels)} |"


def of_signals() -> Iterator[str]:
    summary, _, rest = inspect.cleandoc(signals.__doc__ or "").partition("\n\n")
    code, _, rest = rest.partition("\n\n")
    yield from (
        "# Signals",
        "",
        f"`framelane_celery.signals`: {summary[0].lower()}{flat(summary)[1:]}",
        "",
        "```python",
    )
    yield "from framelane_celery.signals import job_finished"
    yield from (
        "",
        "",
        inspect.cleandoc(code).replace(": ...", ':\n    print(f"{sender} {task_id}: {outcome}")'),
        "```",
        "",
    )
    yield from (literal(rest), "", "| signal | when | gives, beside what all give |", "| --- | --- | --- |")
    words = docs_of_names(signals)
    for name, signal in vars(signals).items():
        if isinstance(signal, Signal):
            own = sorted(signal.providing_args - signals._ALWAYS)
            yield f"| `{name}` | {cell(words[name])} | {', '.join(f'`{field}`' for field in own)} |"


def docs_of_names(module: object) -> dict[str, str]:
    """The text below each assignment of a module, which is its documentation."""
    body = ast.parse(inspect.getsource(module)).body  # type: ignore[arg-type]
    return {
        before.targets[0].id: inspect.cleandoc(after.value.value)
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign) and isinstance(before.targets[0], ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


# --- tasks -------------------------------------------------------------------------------------------------------


def tasks() -> Iterator[str]:
    yield from (
        "# Tasks",
        "",
        "Their names are what messages and records say, so they are never renamed. In Python they are "
        "`framelane_celery.render`, `framelane_celery.transcribe`, …: [Python](python.md#tasks).",
        "",
        "| name | first argument | what it does |",
        "| --- | --- | --- |",
    )
    with Celery("reference", broker="memory://", set_as_current=False) as app:
        app.finalize()
        known: dict[str, Task] = {name: app.tasks[name] for name in sorted(app.tasks) if name.startswith("framelane.")}
        yield from (f"| `{name}` | {taken_by(task)} | {cell(summary_of(task))} |" for name, task in known.items())
    yield from (
        "",
        "The first argument may also be a plain dict, or the finished job of the step before. A task of your own has "
        "the name that Celery gives it. What they take beside it, and what they give: [Python](python.md#tasks).",
    )


def taken_by(task: Task) -> str:
    if isinstance(task, BuiltinTask):
        return f"[`{task.request_class.__name__}`](python.md#requests)"
    if not isinstance(task, RecordedTask):
        return "none: it is sent by us, as the message of a dead letter"
    return {"job": "a finished job", "items": "a list"}[next(iter(inspect.signature(task.run).parameters))]


def summary_of(task: Task) -> str:
    return flat(inspect.cleandoc(task.run.__doc__ or "").split("\n\n")[0]).split(" Shape:")[0]


# --- text --------------------------------------------------------------------------------------------------------


def flat(text: str) -> str:
    return " ".join(text.split())


def literal(text: str) -> str:
    """reStructuredText's double backticks as Markdown's single ones."""
    return text.replace("``", "`")


def cell(text: str, *, within_table: bool = True) -> str:
    """A docstring or a help text for a page: one line in a table, its paragraphs elsewhere."""
    text = literal(text.replace("\b", "")).replace("<", "&lt;")
    return flat(text).replace("|", "\\|") if within_table else text


if __name__ == "__main__":
    main()
