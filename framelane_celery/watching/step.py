"""The bootstep that puts a watcher into every worker whose app has tasks of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from celery import bootsteps, signals
from celery.worker import state
from kombu.utils.functional import maybe_list

from framelane_celery import queues
from framelane_celery.models import build_models
from framelane_celery.room import room_of
from framelane_celery.routing import parse_routes
from framelane_celery.settings import settings_of
from framelane_celery.tasks.routes import routes_of
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
        build_models()  # before the pool and our threads are there
        _install_queues(worker.app)

    def start(self, worker: Any) -> None:
        self._worker = worker
        resend_unknown(worker.consumer)
        signals.worker_ready.connect(self._on_ready)
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

    def _on_shutting_down(self, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.hand_over()

    def _on_shutdown(self, **kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.stop()


def _install_queues(app: Any) -> None:
    """Check every rule of every task, and serve the retry queues of what this worker serves.

    Raises: SettingsError.
    """
    from framelane_celery.tasks import RecordedTask

    settings = settings_of(app)
    queues.refuse_unknown(app, settings.routes, "routes")
    tasks = {}
    for name, task in app.tasks.items():
        if isinstance(task, RecordedTask):
            tasks[name] = routes_of(app, settings, name)
            queues.refuse_unknown(app, parse_routes(task.routes), f"{name}: routes")
    queues.serve_retry_queues(app, settings, tasks)


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
