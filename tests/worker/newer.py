"""Version N+1 of the package: loaded by a worker that writes a newer format (``-I tests.worker.newer``)."""

from __future__ import annotations

import os

from framelane_celery.records import shelf

NEWER = ("-c", "2", "-I", "tests.worker.newer")
"""Options of such a worker."""

FORMAT = shelf.NEWEST + 1

ENVIRONMENT = {"TEST_FORMAT": str(FORMAT)}

if "TEST_FORMAT" in os.environ:
    shelf.FORMAT = shelf.NEWEST = int(os.environ["TEST_FORMAT"])  # type: ignore[misc]
