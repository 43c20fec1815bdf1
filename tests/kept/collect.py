"""Every name that users, other tools or records in a store hold on to, as the code has it now: a line each.

A line is a kind, a name and what belongs to it: ``setting deadline_s = 21600``. Docs: docs/deploys.md, "Names".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from importlib.metadata import distribution
from pathlib import Path
from typing import get_args

import click
from celery import Celery
from pydantic import BaseModel

import framelane_celery
from framelane_celery import errors, models, signals, testing, wakeups
from framelane_celery.cli import main
from framelane_celery.cli.commands import framelane
from framelane_celery.client import FramelaneClient
from framelane_celery.metrics.names import COUNTERS, GAUGES, HISTOGRAMS, NAMESPACE
from framelane_celery.monitoring import PROGRESS, progress_meta
from framelane_celery.queues import dead_letter_queue_of, retry_queue_of
from framelane_celery.records import FORMAT, Record, record
from framelane_celery.room.database import metadata
from framelane_celery.routing import DEFAULTS, Route
from framelane_celery.settings import _ENVIRONMENT, FramelaneSettings, SpendGuard, settings_of
from framelane_celery.tasks import FramelaneTask, GuardedTask
from framelane_celery.tasks.jobs import job_metadata

PACKAGE = Path(framelane_celery.__file__).parent
CLICKS_OWN = {"--help"}


def names() -> list[str]:
    """All of them, sorted."""
    return sorted({line for part in PARTS for line in part()})


def _source(path: str) -> str:
    return (PACKAGE / path).read_text("utf-8")


def _python() -> Iterator[str]:
    for module in (framelane_celery, models, testing):
        for name in module.__all__:
            yield f"import {module.__name__}.{name}"
    for name, method in inspect.getmembers(FramelaneClient, inspect.isfunction):
        if not name.startswith("_"):
            yield f"client {name}({', '.join(list(inspect.signature(method).parameters)[1:])})"
    for base in (FramelaneTask, GuardedTask):
        for name in vars(base):
            if not name.startswith("_"):
                yield f"task-class {base.__name__}.{name}"


def _tasks() -> Iterator[str]:
    with Celery("shop", broker="redis://localhost", set_as_current=False) as app:
        app.finalize(auto=True)
        for name, task in app.tasks.items():
            if name.startswith("framelane."):
                yield f"task {name}({', '.join(inspect.signature(task.run).parameters)})"
        app.conf.framelane = {"namespace": "namespace"}
        settings = settings_of(app)
        yield f"queue {retry_queue_of(app, settings, '<queue>')}"
        yield f"queue {dead_letter_queue_of(settings).replace('namespace', '<namespace>')}"
    yield f"state {PROGRESS}"
    for name in progress_meta(Record("id", "task", "{}", "d")):
        yield f"progress-meta {name}"


def _messages() -> Iterator[str]:
    source = _source("wakeups.py")
    keys = sorted({*re.findall(r'HEADER: \{"(\w+)"', source), *re.findall(r'_number\(request, "(\w+)"\)', source)})
    yield f"message-header {wakeups.HEADER} = {', '.join(keys)}"
    yield f"job-metadata {', '.join(job_metadata('', ''))}"
    key = Record("id", "task", "{}", "d").idempotency_key("namespace")
    yield f"idempotency-key of-(namespace,id,1) = {key}"


def _records() -> Iterator[str]:
    yield f"record-format {FORMAT}"
    for one in fields(Record):
        default = "" if one.default is MISSING else f" = {one.default!r}"
        yield f"record-field {one.name}{default}"
    for kind in ("Until", "Outcome", "Ending", "JobKind"):
        for value in get_args(getattr(record, kind)):
            yield f"record-{kind.lower()} {value}"


def _stores() -> Iterator[str]:
    for table in metadata.sorted_tables:
        for column in table.columns:
            yield f"sql {table.name}.{column.name} {column.type}"
    yield "redis-key {framelane:<namespace>}:…"
    scripts = "".join(path.read_text("utf-8") for path in (PACKAGE / "room" / "lua").glob("*.lua"))
    used = re.findall(r'_key\("(\w+)"', _source("room/redis.py")) + re.findall(r"P \.\. '(\w+)", scripts)
    for name in used:
        yield f"redis-key {name}"
    for name in re.findall(r'(?:name|f)?"(\w+):\{?', _source("room/sql.py")):
        if name in ("slots", "hold", "spent", "ends", "revoke", "counts"):
            yield f"sql-row {name}:…"


def _settings() -> Iterator[str]:
    def of(model: type[BaseModel], kind: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True)
            yield f"{kind} {name} = {default!r}" if not field.is_required() else f"{kind} {name}"

    yield from of(FramelaneSettings, "setting")
    yield from of(SpendGuard, "setting-spend_guard")
    yield from of(Route, "route-key")
    for at, rule in enumerate(DEFAULTS):
        yield f"default-route {at} = {', '.join(f'{key}: {value}' for key, value in rule.items())}"
    for name, variable in _ENVIRONMENT.items():
        yield f"environment {variable} = {name}"


def _monitoring() -> Iterator[str]:
    for kind, known in (("gauge", GAUGES), ("counter", COUNTERS), ("histogram", HISTOGRAMS)):
        for name, metric in known.items():
            yield f"metric {name} = {kind}({', '.join((NAMESPACE, *metric.labels))})"
    for name, signal in vars(signals).items():
        if name.startswith("job_"):
            yield f"signal {name} = {', '.join(sorted(signal.providing_args))}"


def _errors() -> Iterator[str]:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == errors.__name__:
            yield f"error {name} is {kind.__mro__[1].__name__}"
    for code, kind in errors.CODE_TO_ERROR.items():
        yield f"error-code {code} = {kind.__name__}"


def _commands() -> Iterator[str]:
    def of(command: click.Command, path: str) -> Iterator[str]:
        for parameter in command.params:
            options = [*parameter.opts, *parameter.secondary_opts]
            is_option = isinstance(parameter, click.Option)
            name = "/".join(options) if is_option else (parameter.metavar or str(parameter.name).upper())
            if not CLICKS_OWN & set(options):
                yield f"command {path} {name}"
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from of(inner, f"{path} {name}")
        else:
            yield f"command {path}"

    yield from of(framelane, "celery framelane")
    yield from of(main, "framelane-celery")
    for entry in distribution("framelane-celery").entry_points:
        yield f"entry-point {entry.group}:{entry.name} = {entry.value}"
    plugin = (PACKAGE.parent / "framelane_celery_pytest.py").read_text("utf-8")
    for fixture in re.findall(r"^def (framelane_\w+)\(", plugin, re.MULTILINE):
        yield f"pytest-fixture {fixture}"


def _django() -> Iterator[str]:
    """Out of the source: Django's own settings are not there."""
    for id in re.findall(r'id="(framelane\.[EW]\d+)"', _source("django/checks.py")):
        yield f"django-check {id}"
    urls = _source("django/urls.py")
    app_name = re.findall(r'app_name = "(\w+)"', urls)[0]
    for route, name in re.findall(r'path\("([^"]+)", [^)]*name="(\w+)"', urls.split('"""')[2]):
        yield f"django-url {app_name}:{name} = {route}"
    for permission in re.findall(r'\("(\w+_\w+)", "Can ', _source("django/models.py")):
        yield f"django-permission framelane.{permission}"
    for path in (PACKAGE / "django" / "migrations").glob("0*.py"):
        yield f"django-migration {path.stem}"
    for tag in re.findall(r"^def (\w+)\(", _source("django/templatetags/framelane.py"), re.MULTILINE):
        yield f"django-template-tag {tag}"
    templates = PACKAGE / "django" / "templates"
    for template in templates.rglob("*.html"):
        yield f"django-template {template.relative_to(templates)}"


PARTS = (
    _python, _tasks, _messages, _records, _stores, _settings, _monitoring, _errors, _commands, _django,
)  # fmt: skip
