"""A thread that does one thing after the other."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from framelane_celery.errors import RoomError

logger = logging.getLogger(__name__)


class Desk:
    """What is put on it is done in order; what goes wrong is told, and never stops the rest."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._do, name=self._name, daemon=True).start()

    def stop(self) -> None:
        self._work.put(None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits on it."""
        return self._work.empty()

    def put(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def _do(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except RoomError as error:
                logger.warning("%s: the room is away, seen again later: %s", self._name, error)
            except Exception:  # one bad record never stops the others
                logger.exception("%s: passed over", self._name)
