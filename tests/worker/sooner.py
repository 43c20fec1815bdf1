"""Loaded by a worker whose watcher asks sooner whether a key is accepted again (``-I tests.worker.sooner``)."""

from __future__ import annotations

from framelane_celery.watching import holds

holds.ASK_KEY_EVERY_S = 1.0  # type: ignore[misc]
