"""Health, for a probe: whether the room answers, somebody leads, and nothing due is left standing.

It answers within a second whatever hangs. The broker is not asked: while it is away, records wait and lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from framelane_celery.doctor.asking import Question, attempt
from framelane_celery.doctor.facts import NotAsked
from framelane_celery.doctor.findings import span
from framelane_celery.doctor.secrets import secrets_of, without
from framelane_celery.room.inspect import LATE_S, Lane, RoomState, Store, open_store, options_of
from framelane_celery.settings import settings_of

if TYPE_CHECKING:
    from celery import Celery

PROBE_S: Final = 0.8
"""For the room's answer; the rest of the second is for all else. The import of its driver is not counted."""


class Health(NamedTuple):
    """One thing that a probe looks at."""

    check: str
    is_healthy: bool
    what: str


def probe(app: Celery, timeout_s: float = PROBE_S) -> list[Health]:
    """Look at all of it. Never raises."""
    store = attempt(lambda: _open(app, timeout_s))
    state = store if isinstance(store, NotAsked) else Question(partial(_state_of, store), timeout_s).answer()
    secrets = secrets_of(app)
    return [entry._replace(what=without(secrets, entry.what)) for entry in judge(state)]


def _open(app: Celery, timeout_s: float) -> Store:
    """Nothing is connected yet."""
    settings = settings_of(app)
    url = settings.room_url.get_secret_value() if settings.room_url else ""
    accounts = tuple(settings.accounts)
    return open_store(url, settings.namespace or "", options=options_of(app), timeout_s=timeout_s, accounts=accounts)


def _state_of(store: Store) -> RoomState:
    try:
        return store.state()
    finally:
        store.close()


def judge(state: RoomState | NotAsked) -> list[Health]:
    """What the room's state means. Pure."""
    if isinstance(state, NotAsked):
        return [Health("room", False, f"it cannot be asked: {state.why}")]
    return [Health("room", True, "it answers"), *_of_state(state)]


def _of_state(state: RoomState) -> Iterator[Health]:
    leader = state.leader
    yield Health(
        "watcher", leader is not None, "nobody leads" if leader is None else f"{leader.rpartition('/')[0]} leads"
    )
    clock = state.lanes.get("clock", Lane())
    late = span(max(LATE_S, state.now - (clock.first_due_at or state.now)))
    yield Health(
        "records",
        not clock.overdue,
        f"{clock.overdue} overdue, the first one by {late}" if clock.overdue else "nothing is overdue",
    )
