"""Our queues at the broker, and how they are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.exceptions import OperationalError
from kombu.transport import virtual

from framelane_celery.errors import FramelaneError
from framelane_celery.queues import dead_letter_queue_of, queue_of, retry_queue_of
from framelane_celery.settings import FramelaneSettings
from framelane_celery.tasks.recorded import RecordedTask
from framelane_celery.tasks.routes import routes_of

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection, Queue

CONNECT_S = 5.0


class BrokerAway(FramelaneError):
    """The broker does not answer, so its queues could not be removed."""


class RemovedQueue(NamedTuple):
    name: str
    messages: int
    """How many were in it: of ours, as far as nobody else publishes to it."""


def own_queues(app: Celery, settings: FramelaneSettings, served: Iterable[str] = ()) -> tuple[set[str], set[str]]:
    """The queues for retries and for letters; and those of them that have to stay, as the app itself uses them.

    ``served``: more queues that workers take tasks from, by ``-Q``. A queue stays if `task_queues` names it, or if
    tasks are sent to it. The app's modules have to be loaded.
    Raises: SettingsError.
    """
    ours = {name for name, task in app.tasks.items() if isinstance(task, RecordedTask)}
    sent_to = {queue_of(app, name, {}) for name in app.tasks} | {app.conf.task_default_queue}
    in_use = {*sent_to, *app.amqp.Queues(app.conf.task_queues), *served}
    rules = [route for name in ours for route in routes_of(app, settings, name)] + [*settings.routes]
    found = {dead_letter_queue_of(settings)} | {route.queue for route in rules if route.queue}
    found |= {retry_queue_of(app, settings, queue) for queue in in_use}
    return found - in_use, found & in_use


class _InUse(Exception):
    """A worker takes from the queue: one that was not stopped, or another app's."""


def remove_queues(app: Celery, names: Iterable[str]) -> tuple[list[RemovedQueue], set[str]]:
    """Delete queues, and the exchange that Celery has made for each. Answers those that were there; and those that
    stay, as somebody takes from them. (Only RabbitMQ knows.)

    Raises: BrokerAway.
    """
    removed, in_use = [], set()
    with app.connection_for_write(connect_timeout=CONNECT_S) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_S)
            for name in names:
                try:
                    removed.append(_remove(connection, app.amqp.queues.new_missing(name)))
                except _InUse:
                    in_use.add(name)
        except (OperationalError, OSError, *connection.connection_errors) as error:
            raise BrokerAway(
                f"the broker cannot be reached ({type(error).__name__}); the room is as it was: try again"
            ) from None
    return [one for one in removed if one is not None], in_use


def _remove(connection: Connection, queue: Queue) -> RemovedQueue | None:
    with connection.channel() as channel:
        if isinstance(channel, virtual.Channel):
            return _remove_virtual(channel, queue)
    with connection.channel() as channel:
        try:
            messages = channel.queue_declare(queue.name, passive=True).message_count
        except connection.channel_errors:
            return None
    try:
        with connection.channel() as channel:
            channel.queue_delete(queue.name, if_unused=True)
    except connection.channel_errors:
        raise _InUse from None
    try:
        with connection.channel() as channel:
            channel.exchange_delete(queue.exchange.name, if_unused=True)
    except connection.channel_errors:  # bound to by others
        pass
    return RemovedQueue(queue.name, messages)


def _remove_virtual(channel: Any, queue: Queue) -> RemovedQueue | None:
    """Where kombu keeps queues itself (Redis, SQS, files): it deletes what this process has declared, with its binding.
    A queue without messages is only its binding there."""
    try:
        is_bound = any(queue.name in binding for binding in channel.get_table(queue.exchange.name))
    except KeyError:
        is_bound = False
    bound = queue.bind(channel)
    bound.declare()
    messages = channel.queue_declare(queue.name).message_count
    bound.delete()
    return RemovedQueue(queue.name, messages) if is_bound or messages else None
