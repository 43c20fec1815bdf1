"""The workspace's webhook endpoints as a store: who is told, with which secret, and what came of each attempt."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from framelane_celery.testing.clock import iso

EVENTS = ("render.completed", "render.failed", "task.completed", "task.failed", "asset.ready")
"""Those that sources name (framelane_api.md §13.2). `asset.ready` is never sent here: its payload is unknown."""


@dataclass
class Receiver:
    """One endpoint."""

    id: str
    url: str
    events: tuple[str, ...]
    created_at: float
    last_delivery_at: float | None = None

    def view(self) -> dict[str, Any]:
        """As the console's type has it."""
        told = None if self.last_delivery_at is None else iso(self.last_delivery_at)
        return {
            "id": self.id,
            "url": self.url,
            "events": list(self.events),
            "enabled": True,
            "created_at": iso(self.created_at),
            "last_delivery_at": told,
        }


class Receivers:
    """All endpoints. One secret signs for the workspace (framelane_api.md §13.4: the reference's word)."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self._lock = threading.Lock()
        self._all: dict[str, Receiver] = {}
        self._attempts: dict[str, list[dict[str, Any]]] = {}

    def add(self, receiver: Receiver) -> None:
        """Tell this one too, of jobs that are made from now on."""
        with self._lock:
            self._all[receiver.id] = receiver
            self._attempts[receiver.id] = []

    def remove(self, receiver_id: str) -> bool:
        """Tell it no more; whether there was such a one."""
        with self._lock:
            return self._all.pop(receiver_id, None) is not None

    def find(self, receiver_id: str) -> Receiver | None:
        """One endpoint."""
        with self._lock:
            return self._all.get(receiver_id)

    def all(self) -> list[Receiver]:
        """Every endpoint, oldest first (INFER)."""
        with self._lock:
            return list(self._all.values())

    def rotate(self) -> str:
        """A new secret; the old one is worthless at once."""
        with self._lock:
            self.secret = f"whsec_{secrets.token_hex(16)}"
            return self.secret

    def note(self, receiver_id: str, fields: dict[str, Any], status: int | None) -> None:
        """One attempt was made."""
        now = time.time()
        with self._lock:
            receiver = self._all.get(receiver_id)
            if receiver is None:
                return
            receiver.last_delivery_at = now
            is_taken = status is not None and 200 <= status < 300
            self._attempts[receiver_id].append(
                {
                    "id": f"attempt_{secrets.token_hex(13)}",
                    "webhook_id": receiver_id,
                    **fields,
                    "status": "succeeded" if is_taken else "failed",  # its words are unknown
                    "status_code": status,
                    "response_body": None,
                    "created_at": iso(now),
                    "attempted_at": iso(now),
                    "next_retry_at": None,
                }
            )

    def attempts(self, receiver_id: str) -> list[dict[str, Any]]:
        """What came of each, newest first (INFER)."""
        with self._lock:
            return self._attempts[receiver_id][::-1]
