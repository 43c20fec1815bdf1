"""Version N of the project: loaded by a worker that does not know the tasks which version N+1 has added.

``-I tests.worker.older``, with `without(…)` as its environment. Nothing else is different: the package is the same.
"""

from __future__ import annotations

import os
from typing import Any

from celery import signals

from framelane_celery.room import redis, sql
from tests.worker.project import app

OLDER = ("-c", "2", "-E", "-I", "tests.worker.older")
"""Options of such a worker."""

FOREIGN_S = 2.0
"""How long it passes over a record that it cannot read: not five minutes, lest a test take as long."""


def without(*names: str) -> dict[str, str]:
    """The environment of a worker that does not know these tasks of the project."""
    return {"TEST_WITHOUT": " ".join(name if "." in name else f"tests.worker.project.{name}" for name in names)}


def _forget(**kwargs: Any) -> None:
    app.finalize()
    for name in os.environ["TEST_WITHOUT"].split():
        app.tasks.unregister(name)


if "TEST_WITHOUT" in os.environ:
    redis.FOREIGN_S = sql.FOREIGN_S = FOREIGN_S  # type: ignore[misc]
    signals.worker_init.connect(_forget, weak=False)
