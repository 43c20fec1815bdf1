"""A result backend that notes what the record waits for at the moment when PROGRESS is stored."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

from framelane_celery.room import room_of
from framelane_celery.settings import settings_of
from tests.worker.project import journal


class NotingBackend(RedisBackend):
    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        if state == "PROGRESS":
            record, _ = room_of(self.app, settings_of(self.app)).read(task_id)
            journal("progress", id=task_id, until=record and record.until)
        return super().store_result(task_id, result, state, *args, **kwargs)
