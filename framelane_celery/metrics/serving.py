"""Answers Prometheus over HTTP: in a worker that is told to, or in a process of its own."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from framelane_celery.errors import SettingsError

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.settings import FramelaneSettings

logger = logging.getLogger(__name__)


class Serving(NamedTuple):
    """A server that answers in a thread of its own."""

    server: Any
    thread: Any
    collector: Any

    @property
    def port(self) -> int:
        return int(self.server.server_port)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        self.collector.close()


def serve(app: Celery, port: int, host: str = "127.0.0.1") -> Serving:
    """Answer at ``http://host:port/metrics`` with the app's metrics alone.

    Raises: SettingsError, if prometheus_client is missing; OSError, if the port is taken.
    """
    registry, collector = _registry_of(app)
    from prometheus_client import start_http_server

    return Serving(*start_http_server(port, addr=host, registry=registry), collector)


def text(app: Celery) -> str:
    """What a scrape would read. Raises: SettingsError, if prometheus_client is missing."""
    registry, collector = _registry_of(app)
    from prometheus_client import generate_latest

    try:
        return generate_latest(registry).decode()
    finally:
        collector.close()


def _registry_of(app: Celery) -> tuple[Any, Any]:
    """The app's metrics alone: what the process itself has in prometheus_client's registry is its own affair."""
    from framelane_celery.metrics import collector

    registry, ours = collector.CollectorRegistry(), collector.Collector(app)
    registry.register(ours)
    return registry, ours


def expose(app: Celery, settings: FramelaneSettings) -> Serving | None:
    """Answer in this worker, if the settings name a port. What is wrong with that is told, and stops no worker."""
    if settings.metrics_port is None:
        return None
    try:
        serving = serve(app, settings.metrics_port, settings.metrics_host)
    except SettingsError as error:
        logger.error("no metrics: %s", error)
    except OSError as error:
        logger.warning(
            "no metrics: port %d of %s cannot be used (%s): another worker of this host may have it, and its metrics "
            "are those of the whole namespace", settings.metrics_port, settings.metrics_host, error.strerror,
        )  # fmt: skip
    else:
        os.register_at_fork(after_in_child=serving.server.socket.close)  # a pool process must not keep the port
        logger.info("metrics at http://%s:%d/metrics", settings.metrics_host, serving.port)
        return serving
    return None
