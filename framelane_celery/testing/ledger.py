"""What crossed the wire, kept in order."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One request and what was answered.

    `status` is None when the connection was closed without an answer; `at` is the server's clock in epoch seconds;
    `note` says why it was refused.
    The key of the account is not kept.
    """

    number: int
    at: float
    method: str
    path: str
    query: Mapping[str, str]
    idempotency_key: str | None
    body: bytes
    status: int | None
    job_id: str | None = None
    is_replay: bool = False
    is_new_job: bool = False
    wait_s: float | None = None
    fault: str | None = None
    note: str | None = None

    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)

    def summary(self) -> dict[str, Any]:
        """Give the entry as JSON, the body as text."""
        known = {name: value for name, value in self.__dict__.items() if name != "body"}
        return {**known, "query": dict(self.query), "body": self.body.decode("utf-8", "replace")}


@dataclass
class Ledger:
    """Every request the server has seen, for assertions about traffic rather than about calls of our own functions."""

    _entries: list[Entry] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _held: int = 0

    def add(self, **members: Any) -> None:
        """Write one request down."""
        with self._changed:
            self._entries.append(Entry(number=len(self._entries) + 1, **members))
            self._changed.notify_all()

    def hold(self, change: int) -> None:
        """Count a long-poll in (+1) or out (-1)."""
        with self._changed:
            self._held += change
            self._changed.notify_all()

    @property
    def long_polls(self) -> int:
        """How many reads are held open now."""
        with self._changed:
            return self._held

    def entries(self) -> list[Entry]:
        """Every request, oldest first."""
        with self._changed:
            return list(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries())

    def __len__(self) -> int:
        with self._changed:
            return len(self._entries)

    def posts(self) -> list[Entry]:
        """Requests that ask for a job, also those that were refused."""
        return [entry for entry in self.entries() if entry.method == "POST" and entry.path.startswith(_JOB_PATHS)]

    def previews(self) -> list[Entry]:
        """Requests that ask whether a composition is right, and make no job."""
        return [entry for entry in self.entries() if entry.method == "POST" and entry.path == "/v1/preview"]

    def reads(self) -> list[Entry]:
        """Reads of jobs, single ones and lists."""
        return [entry for entry in self.entries() if entry.method == "GET" and entry.path.startswith(_JOB_PATHS)]

    def cancels(self) -> list[Entry]:
        """Requests that ask to cancel a job."""
        return [entry for entry in self.entries() if entry.method == "DELETE" and entry.path.startswith(_JOB_PATHS)]

    def jobs_per_task(self) -> dict[str, list[str]]:
        """Which jobs were made for each Celery task: two ids in one list are two payments.

        Shape:  {"<celery_task_id>": ["render_…", …]}
        """
        made: dict[str, list[str]] = {}
        for entry in self.posts():
            if entry.is_new_job and entry.job_id:
                task_id = (entry.json().get("metadata") or {}).get("celery_task_id")
                if task_id is not None:
                    made.setdefault(task_id, []).append(entry.job_id)
        return made

    def counts(self) -> dict[str, int]:
        """Figures for a glance.

        Shape:  {"requests": 12, "jobs": 4, "posts": 5, "replays": 1, "reads": 6, "cancels": 0, "long_polls": 2,
                "unanswered": 1, "status_202": 4, …}
        """
        entries = self.entries()
        by_status = Counter(f"status_{entry.status}" for entry in entries if entry.status is not None)
        return {
            "requests": len(entries),
            "jobs": sum(entry.is_new_job for entry in entries),
            "posts": len(self.posts()),
            "replays": sum(entry.is_replay for entry in entries),
            "reads": len(self.reads()),
            "cancels": len(self.cancels()),
            "long_polls": self.long_polls,
            "unanswered": sum(entry.status is None for entry in entries),
            **by_status,
        }

    def wait_until(self, happened: Callable[[Ledger], object], timeout_s: float = 5.0) -> bool:
        """Wait, without polling, until `happened(ledger)` is true; False when timeout_s passes first."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(happened(self)), timeout_s)

    def clear(self) -> None:
        """Forget what was written so far; the jobs stay."""
        with self._changed:
            self._entries.clear()


_JOB_PATHS = ("/v1/renders", "/v1/tasks")
