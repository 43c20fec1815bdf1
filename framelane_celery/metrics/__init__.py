"""Prometheus' metrics: what the room knows now, and what all processes of the namespace have counted.

    from prometheus_client import REGISTRY
    from framelane_celery.metrics import Collector

    REGISTRY.register(Collector(app))

Or have a worker answer (the setting ``metrics_port``), or a process of its own (``celery -A proj framelane metrics``).
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from framelane_celery.metrics.serving import Serving, expose, serve, text

if TYPE_CHECKING:
    from framelane_celery.metrics.collector import Collector

__all__ = ["Collector", "Serving", "alert_rules", "dashboard", "expose", "serve", "text"]


def dashboard() -> str:
    """The Grafana dashboard, as JSON."""
    return (files("framelane_celery.metrics") / "grafana-dashboard.json").read_text("utf-8")


def alert_rules() -> str:
    """The alert rules, as Prometheus reads them."""
    return (files("framelane_celery.metrics") / "alerts.yml").read_text("utf-8")


def __getattr__(name: str) -> Any:
    """Import what needs prometheus_client where it is asked for."""
    if name == "Collector":
        from framelane_celery.metrics.collector import Collector

        return Collector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
