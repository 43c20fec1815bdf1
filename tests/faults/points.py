"""Loaded by a worker under attack (``-I tests.faults.points``): its process dies at a point when a test has ordered it.

Nothing is faked. Each function that is wrapped here does what it did; before and after it the process can be killed,
stopped or held. An order is a file ``at-<point>@<task id>`` (or ``at-<point>``, for whoever comes first) beside the
journal; it is carried out once.

Points of a run      begin bytes post progress accept hold finish, each `:before` and `:after`; body completed
                     progress:within, between the result backend's read and its write; the watcher's is shown:within
                     after_return (the user's own code); tail:before-result result:stored failure:stored chord:before
Points of a watcher  lead:after seen; decide shown looked wake resend reclaim publish end announce announcement
                     announced, each `:before` and `:after`; revoked:stored
Points of a caller   create:sent create:after publish:before publish:after; start_replay replay put_away, each of these
                     with `:before` and `:after`
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import current_task
from celery.backends.base import Backend
from celery.backends.redis import RedisBackend

from framelane_celery import wakeups
from framelane_celery.client import FramelaneClient
from framelane_celery.records import Record
from framelane_celery.room.redis import RedisRoom
from framelane_celery.room.sql import SqlRoom
from framelane_celery.tasks.run import WorkerRun
from framelane_celery.watching.scribe import Scribe
from tests.worker import project


def strike(point: str, task_id: str | None = None) -> None:
    """Die here, if a test has ordered it."""
    folder = Path(os.environ["TEST_JOURNAL"]).parent
    for name in (f"at-{point}@{task_id}", f"at-{point}"):
        order = folder / name
        try:
            what = order.read_text()
            order.unlink()  # two may have read it: one of them fails here
        except FileNotFoundError:
            continue
        project.journal("struck", point=point, id=task_id, what=what)
        if what == "kill process":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "kill worker":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "hang":
            time.sleep(3600)
        elif what.startswith("wait "):
            while not Path(what.removeprefix("wait ")).exists():
                time.sleep(0.02)


def running_id() -> str | None:
    """The id of the task that this thread runs; in the watcher's threads there is none."""
    if threading.current_thread().name.startswith("framelane-"):
        return None
    return current_task.request.id if current_task else None


def wrap(owner: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None) -> None:
    """Have a function struck before and after; both get its arguments."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        answer = inner(*args, **kwargs)
        if after is not None:
            after(*args, **kwargs)
        return answer

    setattr(owner, name, outer)


def transition(old: Record, new: Record, token: int | None) -> str:
    """What a write to the room is called, by what it changes."""
    if old.is_letter:
        return _of_a_letter(old, new)
    if old.until == "running":
        if new.until == "running":
            is_clock = threading.current_thread().name == "framelane-clock"
            return "bytes" if old.request != new.request else "renew" if is_clock else "lease"
        return {"job": "accept", "done": "finish", "dead": "finish", "start": "reclaim", "instant": "pause"}.get(
            new.until, "other"
        )
    if new.until == "running":
        return "begin"
    if old.until == "job":
        return {"done": "end", "job": "looked"}.get(new.until, "decide")
    if new.until == "start":
        return "resend" if old.until == "start" else "wake"
    return "end" if new.until == "done" else "queue" if new.until == "slot" else "other"


def _of_a_letter(old: Record, new: Record) -> str:
    if new.is_letter:
        if "replaying_at" in (new.letter or {}) and "replaying_at" not in (old.letter or {}):
            return "start_replay"
        return "announced" if (new.letter or {}).get("announced") else "announce"
    return "put_away" if old.until == "dead" else "replay"


def _save(when: str) -> Callable[..., None]:
    def hit(room: Any, old: Record, new: Record, *, token: int | None = None, **_: Any) -> None:
        strike(f"{transition(old, new, token)}:{when}", old.id)

    return hit


def _mark(point: str) -> Callable[..., None]:
    return lambda backend, task_id, *args, **kwargs: strike(point, task_id)


_storing = threading.local()


def _stored(when: str) -> Callable[..., None]:
    def hit(backend: Any, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> None:
        _storing.progress_of = task_id if state == "PROGRESS" and when == "before" else None
        if state == "PROGRESS":
            strike(f"{_progress()}:{when}", task_id)

    return hit


def _progress() -> str:
    return "progress" if running_id() else "shown"


def _has_read(*_: Any) -> None:
    """The result backend has read what is there, and is about to write over it."""
    if (task_id := getattr(_storing, "progress_of", None)) is not None:
        strike(f"{_progress()}:within", task_id)


def _arm_creating() -> None:
    """Redis is asked in two halves; SQL as a whole, once the answer is wanted."""
    inner = RedisRoom.creating

    @contextmanager
    def creating(room: RedisRoom, record: Record) -> Iterator[Callable[[], Record | None]]:
        with inner(room, record) as ask:
            strike("create:sent", record.id)

            def answer() -> Record | None:
                there = ask()
                strike("create:after", record.id)
                return there

            yield answer

    RedisRoom.creating = creating


def arm() -> None:
    for room in (RedisRoom, SqlRoom):
        wrap(room, "save", _save("before"), _save("after"))
        wrap(room, "lead", None, lambda *_: strike("lead:after"))
    wrap(
        SqlRoom,
        "create",
        lambda room, record: strike("create:sent", record.id),
        lambda room, record: strike("create:after", record.id),
    )
    _arm_creating()
    wrap(
        FramelaneClient,
        "submit",
        lambda *_: strike("post:before", running_id()),
        lambda *_: strike("post:after", running_id()),
    )
    wrap(
        wakeups,
        "publish",
        lambda app, record, *_, **__: strike("publish:before", record.id),
        lambda app, record, *_, **__: strike("publish:after", record.id),
    )
    wrap(
        wakeups,
        "announce",
        lambda app, record, queue: strike("announcement:before", record.id),
        lambda app, record, queue: strike("announcement:after", record.id),
    )
    wrap(
        WorkerRun,
        "ask_lease",
        lambda run: strike("hold:before", run.record.id),
        lambda run: strike("hold:after", run.record.id),
    )
    wrap(Backend, "mark_as_done", _mark("tail:before-result"), _mark("result:stored"))
    wrap(Backend, "mark_as_failure", None, _mark("failure:stored"))
    wrap(Backend, "mark_as_revoked", None, _mark("revoked:stored"))
    wrap(Backend, "store_result", _stored("before"), _stored("after"))
    wrap(RedisBackend, "_get_task_meta_for", None, _has_read)
    wrap(RedisBackend, "on_chord_part_return", lambda _, request, *__, **___: strike("chord:before", request.id), None)
    wrap(Scribe, "act_on", lambda _, seen: strike("seen", seen.task_id), None)
    wrap(project, "reach", lambda point: strike(point, running_id()), None)


arm()
