"""The bootstep that puts a watcher into every worker whose app has tasks of ours."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from celery import bootsteps, signals
from celery.utils.dispatch import Signal
from celery.worker import state
from kombu.utils.functional import maybe_list

from framelane_celery import counting, queues
from framelane_celery.metrics import expose
from framelane_celery.models import build_models
from framelane_celery.room import room_of
from framelane_celery.routing import default_routes, parse_routes
from framelane_celery.settings import settings_of
from framelane_celery.tasks.routes import routes_of
from framelane_celery.watching.brief import shorten
from framelane_celery.watching.unknown import resend_unknown
from framelane_celery.watching.watcher import Watcher

logger = logging.getLogger(__name__)


class WatcherStep(bootsteps.StartStopStep):
    """Starts the watcher once the worker's consumer is up: resends before that would double a backlog.

    Raises: SettingsError, so that a worker without a usable room does not start.
    """

    name = "framelane.watcher"

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.watcher: Watcher | None = None
        self._app, self._node = worker.app, worker.hostname
        build_models()  # before the pool and our threads are there
        default_routes()
        _install_queues(worker.app)
        signals.worker_process_init.connect(self._on_process_init)
        _count(worker.app)

    def _on_process_init(self, **kwargs: Any) -> None:
        """In each pool process, once Celery has made its tracers."""
        for task in tasks_of_ours(self._app):
            shorten(self._app, task, self._node)

    def start(self, worker: Any) -> None:
        self._worker = worker
        resend_unknown(worker.consumer)
        signals.worker_ready.connect(self._on_ready)
        embedded = sys.modules.get("celery.contrib.testing.worker")
        if embedded is not None:  # its workers, of users' tests, tell neither `worker_ready` nor `worker_shutdown`
            uid = f"{self.name}-{id(self)}"  # Celery 5.5 takes the methods of two steps for one receiver
            embedded.test_worker_started.connect(self._on_embedded_ready, dispatch_uid=uid)
            embedded.test_worker_stopped.connect(self._on_shutdown, dispatch_uid=uid)
        signals.worker_shutting_down.connect(self._on_shutting_down)
        signals.worker_shutdown.connect(self._on_shutdown)

    def stop(self, worker: Any) -> None:
        """The lead goes; leases are renewed until the pool is empty, so the thread stays until `worker_shutdown`."""
        self._on_shutting_down()

    terminate = stop

    def _on_ready(self, sender: Any, **kwargs: Any) -> None:
        if self.watcher is not None or sender.app is not self._worker.app:
            return
        app = sender.app
        settings = settings_of(app)
        if settings.api_key is None and not settings.accounts:
            logger.error("no API key is set, so every job is refused: set framelane['api_key'] or FRAMELANE_API_KEY")
        mind_forks(app)
        self.watcher = Watcher(
            app,
            room_of(app, settings),
            settings,
            self._worker.hostname,
            runs=lambda: active_task_ids(self._worker.app),
            revokes=heard_revokes,
            events_are_on=lambda: sends_task_events(getattr(sender, "event_dispatcher", None)),
        )
        self.watcher.start()
        expose(app, settings)

    def _on_embedded_ready(self, consumer: Any, **kwargs: Any) -> None:
        self._on_ready(consumer)

    def _on_shutting_down(self, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.hand_over()

    def _on_shutdown(self, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.stop()
        counting.tell()


_inherited: list[tuple[Any, str, Callable[[], Any]]] = []
"""Locks that our threads share with whoever runs tasks: whose, by what name, and how to make another."""


def mind_forks(app: Any) -> None:
    """Have pool processes that are forked from now on wait for no lock that a thread of ours held at that moment.

    Celery's worker has no threads that publish, so it resets connections after a fork, and no locks. The post and the
    scribe are such threads, and they share with a task: kombu's cached properties, which have one lock for all
    instances, taken even to read a value; what sends signals and ``task-sent`` events; and the import of librabbitmq,
    tried with each connection: where it is missing, it is said so here, and nobody has to lock and look.
    """
    if find_spec("librabbitmq") is None:
        sys.modules["librabbitmq"] = None  # type: ignore[assignment]
    _inherited[:] = [(one, "lock", threading.RLock) for one in _cached_properties()]
    _inherited.extend((one, "lock", threading.Lock) for one in vars(signals).values() if isinstance(one, Signal))
    _inherited.append((app.amqp._event_dispatcher, "mutex", threading.Lock))


def _cached_properties() -> Iterator[Any]:
    """Those that lock, of every class of this process."""
    seen: set[type] = {object}
    waiting: list[type] = [object]
    while waiting:
        cls = waiting.pop()
        for one in vars(cls).values():
            if issubclass(type(one), cached_property) and hasattr(one, "lock"):
                yield one
        found: set[type] = set(type.__subclasses__(cls)) - seen
        seen |= found
        waiting += found


def _unlock_in_child() -> None:
    for owner, name, make in _inherited:
        setattr(owner, name, make())


os.register_at_fork(after_in_child=_unlock_in_child)


def _count(app: Any) -> None:
    """Have this worker count what it does, in its pool's processes too."""
    namespace = settings_of(app).namespace or ""
    counting.tell_to(namespace, lambda counts: room_of(app, settings_of(app)).add_counts(counts))
    signals.worker_process_shutdown.connect(counting.tell)


def _install_queues(app: Any) -> None:
    """Check every rule of every task, and serve the retry queues of what this worker serves.

    Raises: SettingsError.
    """
    settings = settings_of(app)
    queues.refuse_unknown(app, settings.routes, "routes")
    tasks = {}
    for task in tasks_of_ours(app):
        tasks[task.name] = routes_of(app, settings, task.name)
        queues.refuse_unknown(app, parse_routes(task.routes), f"{task.name}: routes")
    queues.serve_retry_queues(app, settings, tasks)


def tasks_of_ours(app: Any) -> list[Any]:
    from framelane_celery.tasks import RecordedTask

    return [task for task in app.tasks.values() if isinstance(task, RecordedTask)]


def sends_task_events(dispatcher: Any) -> bool:
    """Whether somebody asked for task events. Heartbeats and gossip alone switch the dispatcher on, for its own group.

    Source: celery/worker/consumer/events.py and EventDispatcher.send; ``groups`` is empty with ``-E``, and a monitor's
    ``enable_events`` adds "task".
    """
    if dispatcher is None or not dispatcher.enabled:
        return False
    return not dispatcher.groups or "task" in dispatcher.groups


def active_task_ids(app: Any) -> list[str]:
    """The ids of the tasks of ours that this worker's pool is running."""
    from framelane_celery.tasks import RecordedTask

    return [
        request.id for request in state.active_requests.copy() if isinstance(app.tasks.get(request.type), RecordedTask)
    ]


def heard_revokes() -> Iterator[str]:
    """What this worker was told to revoke: by id, and by stamp."""
    for task_id in state.revoked.as_dict():
        yield f"id:{task_id}"
    for header, values in dict(state.revoked_stamps).items():
        for value in maybe_list(values) or ():
            yield f"stamp:{header}={value}"
