"""The room: the store of records. One interface; Redis or SQL behind it.

Source: design.md §3 "The room". Every store passes the same suite, tests/room/.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.monitoring import told
from framelane_celery.records import Record

if TYPE_CHECKING:
    from celery import Celery

    from framelane_celery.settings import FramelaneSettings

TOMBSTONE_S: Final = 48 * 3600
"""How long a finished record is remembered: longer than the key lives (24 h) and than any sane visibility timeout."""

REVOKE_S: Final = 3 * 3600
"""How long a revoke is remembered, as in Celery's own workers (``CELERY_WORKER_REVOKE_EXPIRES``)."""

FOREIGN_S: Final = 300.0
"""How long a record of another format is passed over before it is looked at again."""

SPENT_S: Final = 3 * 24 * 3600
"""How long a day's counters are kept after the last submission in them."""

ENDS_S: Final = 3 * 24 * 3600
"""How long a day's counts of ends are kept."""

Saved = Literal["saved", "conflict", "no_slot", "not_leader", "held", "over_budget", "revoked"]
Transition = Callable[[Record, float], "Record | None"]


class SlotClaim(NamedTuple):
    """A submit slot, taken in the same script as the write that needs it."""

    bucket: str
    """"render" or "task": the limits are per kind (framelane_api.md §12)."""
    per_minute: int
    from_queue: bool
    """Woken from the queue: may go before those who wait in it."""
    account: str = "default"
    """Whose submission it is: none is let through while the account is on hold."""


class SpendClaim(NamedTuple):
    """One submission on an account's budget of the day, counted in the same script as the write that needs it."""

    account: str
    minutes: float
    """Estimated output of this submission."""
    submissions_per_day: int | None
    """The caps, per UTC day of the room's clock. None: no cap."""
    minutes_per_day: float | None


class Place(NamedTuple):
    """A record's place in its lane: see `Room.put_off`."""

    id: str
    version: int
    due_at: float


class Ends(NamedTuple):
    """Ends of jobs that were seen. Of those whose end the API dates: how many, and how long it took to see them."""

    jobs: int = 0
    dated: int = 0
    delay_s: float = 0.0
    """The sum."""

    def plus(self, other: Ends) -> Ends:
        return Ends(self.jobs + other.jobs, self.dated + other.dated, self.delay_s + other.delay_s)


class Hold(NamedTuple):
    """An account whose submissions are stopped, or were: see `Room.hold`. Instants are of the room's clock."""

    account: str
    code: str
    """Why: "quota_exceeded", "unauthorized", "spend_guard", "operator", …"""
    reason: str
    """For the eye, one line."""
    since: float
    ends_at: float | None
    """When it ends by itself. None: not known, or only by an operator."""
    released_at: float | None = None
    """It is over; the entry stays until the watcher has moved out what was held."""

    @property
    def is_on(self) -> bool:
        return self.released_at is None


class Removed(NamedTuple):
    """What was taken out of a store for good: see `Room.remove`."""

    entries: int
    """Keys of Redis, or rows."""
    tables: tuple[str, ...] = ()
    tables_kept: str | None = None
    """Why the tables are still there; None: they are gone, or there are none."""


class Room(Protocol):
    """What a store of records can do. Every method raises RoomError if the store is away."""

    namespace: str

    def create(self, record: Record) -> Record | None:
        """Write a new record, once per task id. None: written; else the record that is there already, unchanged."""

    def creating(self, record: Record) -> AbstractContextManager[Callable[[], Record | None]]:
        """`create` in two halves: the record is sent, and the function that is given reads the answer, if it is called.

        What is done in between is done while the store writes, if the store can do that. Without the answer nobody
        knows whether the record is there. Either half may raise RoomError.
        """

    def read(self, task_id: str) -> tuple[Record | None, float]:
        """The record, and the room's clock (epoch seconds). Raises ForeignRecord."""

    def save(
        self,
        old: Record,
        new: Record,
        *,
        token: int | None = None,
        claim: SlotClaim | SpendClaim | None = None,
        unless_revoked: Sequence[str] = (),
    ) -> Saved:
        """Compare-and-set on ``old.version``; ``new`` is stored with ``old.version + 1``.

        One script: the watcher's token, the version, the revokes ("revoked", if any of the marks is remembered) and
        the claim are checked, in this order, and record, lane, open
        list and job index are written and the claim is counted, once; or nothing is. ``done`` records get a life of
        TOMBSTONE_S, and so does a ``replacing`` one without a due time.

        Of a `SlotClaim`: "held", if the account is on hold; else "no_slot", if none is free. Of a `SpendClaim`:
        "over_budget", if one more submission, or its minutes, would pass a cap, be it the day's first.
        """

    def forget(self, record: Record) -> None:
        """Take back a record that was just created, if nobody has moved it since."""

    def due(self, lane: str, limit: int, *, lean: bool = False) -> tuple[list[Record], float]:
        """The records of a lane with ``due_at <= now``, first due first, and the room's clock.

        ``lean``: without their texts, `call` and `request`, which are empty then: to be read, never to be saved.
        """

    def put_off(self, lane: str, places: Sequence[Place], token: int) -> None:
        """Give records of a lane another due time in one call: each that nobody has moved since, unless another
        watcher leads. Versions stay as they are."""

    def waiting(self, lane: str) -> int:
        """How many records are in a lane, due or not."""

    def scan(self, lane: str | None = None, *, lean: bool = False) -> Iterator[Record]:
        """Every record that is not done, page by page, oldest first; foreign ones are passed over.

        With a lane: its records, due or not, first due first, each at most once. Nobody is skipped because another
        leaves the lane, or is given another place in it, while it is scanned. ``lean`` as in `due`.
        """

    def open_count(self) -> int:
        """How many records are not done, those of another format too, which `scan` passes over."""

    def task_of(self, job_id: str) -> str | None:
        """The task id whose record waits for this job: the place of hints."""

    def lead(self, owner: str, ttl_s: float) -> int | None:
        """Become, or stay, the one active watcher of the namespace; the token, or None: another is.

        The token is new and larger with each change of owner. Who is late keeps it as long as nobody has taken over.
        """

    def resign(self, owner: str) -> None:
        """Hand the lead over at once."""

    def brake(self, bucket: str, for_s: float) -> None:
        """The server said 429: nobody gets a slot for so long. A longer brake that is on stays."""

    def slots_free(self, bucket: str, per_minute: int) -> int:
        """Slots that could be taken now: none while braked."""

    def hold(self, account: str, code: str, reason: str, ends_at: float | None = None) -> Hold:
        """Put an account on hold: no `SlotClaim` of it is granted. Answers the hold in force.

        One that is on stays as it is, but that a known ``ends_at`` replaces that of one with the same code; and an
        operator's (code "operator") takes the place of any other. One that is released gives
        way. It does not end by itself: the watcher releases it.
        """

    def holds(self) -> tuple[list[Hold], float]:
        """All holds, by account, those that are released but not dropped too; and the room's clock."""

    def release(self, account: str, *, since: float | None = None) -> bool:
        """End a hold. False: none is on or, with ``since``, it is another one than the caller saw."""

    def drop_hold(self, account: str) -> None:
        """Forget a hold that is released; one that is on stays."""

    def spent(self, account: str) -> tuple[int, float]:
        """Submissions, and minutes, that were counted for the account in this UTC day of the room's clock."""

    def add_ends(self, ends: Mapping[str, Ends]) -> None:
        """Count ends of jobs that were seen, by what told of them; kept by the UTC day for ENDS_S."""

    def ends(self) -> dict[str, Ends]:
        """What was counted in this UTC day of the room's clock and the one before, by what told of them."""

    def add_counts(self, counts: Mapping[str, float]) -> None:
        """Add to numbers that are kept for good: what the processes of the namespace have counted, by key."""

    def counts(self) -> dict[str, float]:
        """All of them, as they are now."""

    def add_revokes(self, marks: Iterable[str]) -> None:
        """Remember revokes for REVOKE_S: ``id:<task id>`` or ``stamp:<header>=<value>``."""

    def revokes_since(self, at: float) -> tuple[list[str], float]:
        """The marks written at or after an instant of the room's clock, and its clock now."""

    def purge(self) -> int:
        """Forget what has outlived its life; how many. (A store that does so by itself answers 0.)"""

    def remove(self) -> Removed:
        """Take out all that the namespace has, for good, whatever state it is in; and SQL's tables, once no other
        namespace has rows in them. Makes nothing, and may be repeated."""

    def close(self) -> None:
        """Let go of connections."""


def move(
    room: Room,
    task_id: str,
    transition: Transition,
    *,
    token: int | None = None,
    known: tuple[Record, float] | None = None,
) -> Record | None:
    """Read, ask a pure transition, save; again if somebody else wrote in between.

    ``known`` may be the record as the caller last saw it, and the room's clock now: then the first try costs no read.
    Returns the record as it is now stored, or None: no such record, the transition does not apply, or another
    watcher leads.
    """
    for _ in range(50):
        old, now = room.read(task_id) if known is None else known
        known = None
        new = transition(old, now) if old is not None else None
        if old is None or new is None:
            return None
        saved = room.save(old, new, token=token)
        if saved == "saved":
            told(room.namespace, old, new, now)
            return stored(old, new)
        if saved == "not_leader":
            return None
    raise RoomError(f"record {task_id} is written by too many at once")


def stored(old: Record, new: Record) -> Record:
    """What the room holds after ``save(old, new)``."""
    return replace(new, version=old.version + 1)


_rooms: dict[tuple[int, str, str], Room] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    """A lock that another thread held at the fork would stay held for ever in the child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def room_of(app: Celery, settings: FramelaneSettings) -> Room:
    """This process's room of an app: one per process (a fork opens its own), store and namespace."""
    url = settings.room_url.get_secret_value() if settings.room_url else ""
    key = (os.getpid(), url, settings.namespace or "")
    with _lock:
        if key not in _rooms:
            _rooms[key] = open_room(url, settings.namespace or "", options=_transport_options(app))
        return _rooms[key]


def open_room(url: str, namespace: str, *, options: Mapping[str, Any] | None = None) -> Room:
    """Open the store that a URL names; ``options`` are Celery's transport options, for Redis.

    Raises: SettingsError, if its driver is not installed or no store is behind such a URL; RoomError.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme in ("redis", "rediss", "sentinel"):
        from framelane_celery.room.redis import RedisRoom

        return RedisRoom.from_url(url, namespace, options or {})
    if scheme in ("sqlite", "postgresql"):
        from framelane_celery.room.sql import SqlRoom

        return SqlRoom.from_url(url, namespace)
    raise SettingsError(
        f"room_url: no store for {scheme!r}: use redis://, rediss://, sentinel://, postgresql:// or sqlite://"
    )


def _transport_options(app: Celery) -> dict[str, Any]:
    """What the user has told Celery about Redis: `global_keyprefix`, Sentinel's names; and, as `ssl`, TLS."""
    conf = app.conf
    return {
        **(conf.result_backend_transport_options or {}),
        **(conf.broker_transport_options or {}),
        "ssl": conf.broker_use_ssl or conf.redis_backend_use_ssl,
    }
