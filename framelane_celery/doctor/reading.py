"""Facts that the app itself tells: its tasks, its settings, its configuration. Nothing is connected.

Raises whatever reading raises; `visit` takes that for an answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from celery.utils.imports import symbol_by_name
from kombu.serialization import registry

from framelane_celery.doctor.facts import ConfFacts, Override, QueuePlan, SettingsFacts, TaskFacts
from framelane_celery.queues import dead_letter_queue_of, queue_of, refuse_unknown, retry_queues_to_serve
from framelane_celery.routing import Route, parse_routes
from framelane_celery.settings import FramelaneSettings, settings_of
from framelane_celery.tasks import FramelaneTask
from framelane_celery.tasks.routes import routes_of
from framelane_celery.watching.request import FramelaneRequest

if TYPE_CHECKING:
    from celery import Celery


def load(app: Celery) -> bool:
    app.loader.import_default_modules()
    app.finalize()
    return True


def checked_settings(app: Celery) -> FramelaneSettings:
    """As a worker checks them at its start (watching/step.py). Raises: SettingsError."""
    settings = settings_of(app)
    refuse_unknown(app, settings.routes, "routes")
    for name, task in our_tasks(app).items():
        refuse_unknown(app, parse_routes(task.routes, f"{name}: routes"), f"{name}: routes")
    return settings


def our_tasks(app: Celery) -> dict[str, Any]:
    return {name: task for name, task in sorted(app.tasks.items()) if isinstance(task, FramelaneTask)}


def settings_facts(app: Celery, settings: FramelaneSettings, tasks: Mapping[str, Any]) -> SettingsFacts:
    routes: dict[str, tuple[Route, ...]] = {name: routes_of(app, settings, name) for name in tasks}
    queues = sorted({queue_of(app, name, {}) for name in tasks})
    dead = {dead_letter_queue_of(settings)} | {
        route.queue for rules in routes.values() for route in rules if route.action == "dead_letter" and route.queue
    }
    room_url = settings.room_url.get_secret_value() if settings.room_url else ""
    return SettingsFacts(
        namespace=settings.namespace or "",
        base_url=settings.base_url,
        has_key=settings.api_key is not None,
        accounts={name: settings.of(name).base_url for name in settings.accounts},
        room=room_url.partition(":")[0],
        watcher=settings.watcher,
        deadline_s=settings.deadline_s,
        hold_max_s=settings.hold_max_s,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        dead_letters_alarm=settings.dead_letters_alarm,
        has_webhooks=bool(settings.all_webhook_secrets),
        task_queues=tuple(queues),
        retry_queues=tuple(sorted(retry_queues_to_serve(app, settings, queues, routes))),
        dead_letter_queues=tuple(sorted(dead)),
    )


def task_facts(app: Celery, task: Any) -> TaskFacts:
    flags = ("acks_on_failure_or_timeout", "acks_on_failure", "acks_on_timeout")  # the latter two since Celery 5.7
    limits = [limit for limit in (task.time_limit, task.soft_time_limit) if limit]
    request = task.Request
    request = symbol_by_name(request) if isinstance(request, str) else request
    return TaskFacts(
        name=task.name,
        queue=queue_of(app, task.name, {}),
        acks_late=bool(task.acks_late),
        reject_on_worker_lost=bool(task.reject_on_worker_lost),
        acks_failures=all(getattr(task, flag, None) in (None, True) for flag in flags),
        retry_on_worker_lost=bool(getattr(task, "retry_on_worker_lost", False)),
        track_started=bool(task.track_started),
        ignore_result=bool(task.ignore_result),
        has_our_request=isinstance(request, type) and issubclass(request, FramelaneRequest),
        time_limit_s=min(limits, default=None),
    )


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# --- the configuration -------------------------------------------------------------------------------------------


def conf_facts(app: Celery, names: tuple[str, ...]) -> ConfFacts:
    conf = app.conf
    options = conf.broker_transport_options or {}
    limits = [task.time_limit or task.soft_time_limit for task in app.tasks.values()]
    return ConfFacts(
        broker=scheme_of(first_url(conf.broker_read_url)) or "amqp",
        broker_options={n: options[n] for n in ("visibility_timeout", "confirm_publish") if n in options},
        backend=_backend_kind(app),
        result_expires_s=_seconds(conf.result_expires),
        result_chord_expires_s=_seconds(conf.get("result_chord_expires")),
        accepts_json=_accepts_json(conf.accept_content),
        accepts_json_results=_accepts_json(conf.result_accept_content or conf.accept_content),
        task_serializer=str(conf.task_serializer),
        always_eager=bool(conf.task_always_eager),
        longest_time_limit_s=max((float(limit) for limit in limits if limit), default=None),
        queues=tuple(_plan(app, name) for name in dict.fromkeys([*names, *app.amqp.queues])),
        misplaced=tuple(_misplaced(app)),
    )


def _plan(app: Celery, name: str) -> QueuePlan:
    """As the app would declare it, without adding it to the app's queues."""
    queues = app.amqp.queues
    queue = queues[name] if name in queues else queues.new_missing(name)
    exchange = getattr(queue.exchange, "type", None) or "direct"
    return QueuePlan(name, (queue.queue_arguments or {}).get("x-queue-type") == "quorum", exchange)


def _misplaced(app: Celery) -> Iterator[str]:
    """Our settings where the app does not read them. Django is looked at only if it is imported already."""
    if app.conf.get("framelane") is not None:
        return
    django = getattr(sys.modules.get("django.conf"), "settings", None)
    if django is not None and django.configured:
        found = [f"Django's {name}" for name in ("CELERY_FRAMELANE", "FRAMELANE") if hasattr(django, name)]
        if found:
            yield from found
            return
    names = ("FRAMELANE", "CELERY_FRAMELANE", "celery_framelane")
    yield from (name for name in names if app.conf.get(name) is not None)


def overrides_of(app: Celery) -> Iterator[Override]:
    """Celery takes broker and backend from the environment first (app/utils.py); we take the configuration first.

    The attributes of `conf` ask the environment; its items are what was configured.
    """
    for variable, setting in (
        ("CELERY_BROKER_URL", "broker_url"),
        ("CELERY_BROKER_READ_URL", "broker_read_url"),
        ("CELERY_BROKER_WRITE_URL", "broker_write_url"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
    ):
        given = app.conf.get(setting)
        if os.environ.get(variable) and given and os.environ[variable] != given:
            yield Override(variable, setting, True)
    conf = app.conf.get("framelane")
    for variable, key in (
        ("FRAMELANE_API_KEY", "api_key"),
        ("FRAMELANE_BASE_URL", "base_url"),
        ("FRAMELANE_WEBHOOK_SECRET", "webhook_secrets"),
        ("FRAMELANE_ROOM_URL", "room_url"),
    ):
        value = conf.get(key) if isinstance(conf, Mapping) else None
        told = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "")
        if os.environ.get(variable) and told and os.environ[variable].strip() != told.strip():
            yield Override(variable, f"framelane['{key}']", False)


def _accepts_json(content: Any) -> bool:
    """By name or by MIME type."""
    accepted = {registry.name_to_type.get(str(one), str(one)) for one in content or ()}
    return "application/json" in accepted


def _seconds(value: Any) -> float | None:
    """A span as Celery takes it; None: for ever."""
    return float(getattr(value, "total_seconds", lambda: value)()) if value else None


def first_url(url: Any) -> str:
    """Of several brokers the first; Sentinel's several are one."""
    text = str((url[0] if url else "") if isinstance(url, (list, tuple)) else (url or ""))
    return text if text.startswith("sentinel:") else text.partition(";")[0]


def scheme_of(url: str) -> str:
    return url.partition(":")[0].lower() if "://" in url else url.lower()


def _backend_kind(app: Celery) -> str:
    url = app.conf.result_backend
    text = url if isinstance(url, str) else ""
    return scheme_of(text) if len(scheme_of(text)) < 30 else "unknown"
