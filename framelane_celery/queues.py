"""The queues of our own, for retries and for dead letters; and what a priority means.

Plain kombu queues, made as Celery makes missing ones: durable, and quorum queues where the app asks for that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from framelane_celery import pacing
from framelane_celery.errors import SettingsError
from framelane_celery.routing import Route
from framelane_celery.settings import FramelaneSettings

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Queue

logger = logging.getLogger(__name__)

_DESTINATION: Final = ("queue", "exchange", "routing_key")
_AMQP: Final = ("amqp", "amqps", "pyamqp", "librabbitmq")


def queue_of(
    app: Celery,
    task_name: str,
    options: Mapping[str, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> str:
    """The name of the queue in which a task with these options waits for a worker."""
    asked = {name: options[name] for name in _DESTINATION if options.get(name)}
    try:
        route = app.amqp.router.route(dict(asked), task_name, args, kwargs)
    except Exception as error:  # noqa: BLE001 - the user's router, without its arguments; or a queue not known here
        logger.warning("%s: its queue cannot be told, the default is taken: %r", task_name, error)
        return str(app.conf.task_default_queue)
    queue = route.get("queue")
    if "queue" not in asked and (route.get("exchange") or route.get("routing_key")):
        # Celery adds its default queue to a route without one, but publishes to the exchange and key all the same.
        exchange = _name_of(route.get("exchange") or getattr(queue, "exchange", None))
        for name, known in app.amqp.queues.items():
            if (_name_of(known.exchange), known.routing_key) == (exchange, route.get("routing_key")):
                return str(name)
    return str(_name_of(queue) or app.conf.task_default_queue)


def _name_of(destination: Any) -> Any:
    return getattr(destination, "name", destination)


def retry_queue_of(app: Celery, settings: FramelaneSettings, task_queue: str, named: str | None = None) -> str:
    """Where retries of the tasks of a queue go: where the route says, else the setting, else a queue beside theirs."""
    return named or settings.retry_queue or f"{task_queue}.retry"


def dead_letter_queue_of(settings: FramelaneSettings, named: str | None = None) -> str:
    """Where a letter is announced: where its route says, else the setting."""
    return named or settings.dead_letter_queue or f"{settings.namespace}.dead"


def declared(app: Celery, name: str) -> Queue:
    """The queue of that name, known to the app from now on even where it makes no missing ones."""
    queues = app.amqp.queues
    return queues[name] if name in queues else queues.add(queues.new_missing(name))


def retry_queues_to_serve(
    app: Celery, settings: FramelaneSettings, serves: Iterable[str], tasks: Mapping[str, Iterable[Route]]
) -> set[str]:
    """The retry queues that belong to the queues that a worker serves. ``tasks``: our tasks' routes by name."""
    serves = set(serves) - {dead_letter_queue_of(settings)}
    # A worker that is given retry queues by name serves those as they are.
    plain = {
        name for name in serves if name.removesuffix(".retry") == name or name.removesuffix(".retry") not in serves
    }
    found = {retry_queue_of(app, settings, name) for name in plain} if settings.retry_queue is None else set()
    for name, routes in tasks.items():
        if queue_of(app, name, {}) in serves:
            found |= {settings.retry_queue} if settings.retry_queue else set()
            found |= {route.queue for route in routes if route.action == "retry" and route.queue}
    return found - serves


def serve_retry_queues(app: Celery, settings: FramelaneSettings, tasks: Mapping[str, Iterable[Route]]) -> None:
    """Have this worker take retries of the tasks that it serves, with ``-Q`` too. Before its consumer starts.

    What it serves is pinned at the same time. Without ``-Q``, Celery 5.5 serves every queue that its app has heard of,
    from the next reconnection on: the dead letters too, since we publish to their queue. Those are served by who asks
    for them with ``-Q``, though they be in ``task_queues``.
    """
    queues = app.amqp.queues
    is_asked = getattr(queues, "_consume_from", None) is not None  # -Q; private, the same in 5.5 and 5.7
    dead = {dead_letter_queue_of(settings)} | {
        route.queue for routes in tasks.values() for route in routes if route.action == "dead_letter" and route.queue
    }
    serves = [name for name in queues.consume_from if is_asked or name not in dead]
    queues.select(serves)
    for name in sorted(retry_queues_to_serve(app, settings, serves, tasks)):
        queues.select_add(declared(app, name))


def refuse_unknown(app: Celery, routes: Iterable[Route], where: str) -> None:
    """Refuse a queue that a route names and the app does not know, where it makes none by itself.

    Raises: SettingsError.
    """
    if app.conf.task_create_missing_queues:
        return
    for at, route in enumerate(routes):
        if route.queue is not None and route.queue not in app.amqp.queues:
            raise SettingsError(
                f"{where}[{at}].queue: {route.queue!r} is not in task_queues, and task_create_missing_queues is off"
            )


def head_start_s(app: Celery, options: Mapping[str, Any]) -> float:
    """How far ahead a task with these options queues for a submit slot, by its Celery priority."""
    higher_is_first, default = _priorities(app)
    priority = options.get("priority")
    return pacing.head_start_s(default if priority is None else priority, higher_is_first=higher_is_first)


_known: WeakKeyDictionary[Celery, tuple[bool, int | None]] = WeakKeyDictionary()


def _priorities(app: Celery) -> tuple[bool, int | None]:
    """Whether 9 goes before 0 on the app's broker, and the default priority; read once, since each call asks."""
    known = _known.get(app)
    if known is None:
        url = app.conf.broker_write_url or app.conf.broker_url or "amqp"
        scheme = str(url if isinstance(url, str) else url[0]).partition(":")[0]
        known = _known[app] = (scheme in _AMQP, app.conf.task_default_priority)
    return known
