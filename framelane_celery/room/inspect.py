"""Facts about a store, for whoever diagnoses a deployment: only read, but for one write that is taken back.

A store is opened beside the room, on connections of its own, so that a short timeout is nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from framelane_celery.errors import SettingsError
from framelane_celery.records import look_lane
from framelane_celery.room import Room, _transport_options

if TYPE_CHECKING:
    from celery import Celery

REDIS_SCHEMES: Final = ("redis", "rediss", "sentinel", "redis+socket", "unix")

LATE_S: Final = 60.0
"""A record that is due for longer is overdue: a watcher moves what is due four times a second."""

LANES: Final = ("clock", "look", "dead:new", "dead")
"""What a `RoomState` tells of; "look" stands for the looks of all accounts."""


@dataclass(frozen=True)
class RedisFacts:
    """One Redis server. None: it does not say, or we may not ask."""

    round_trip_s: float
    clock_ahead_s: float
    """Its clock, minus this host's."""
    server_id: str | None = None
    """Tells whether two URLs lead to one server."""
    version: str | None = None
    is_cluster: bool = False
    is_replica: bool = False
    policy: str | None = None
    max_bytes: int | None = None
    """0: no limit."""
    used_bytes: int | None = None
    system_bytes: int | None = None
    append_only: bool | None = None
    snapshots: bool | None = None
    replicas: int | None = None
    refused: str | None = None
    """Why the server told nothing of itself (``INFO``)."""


@dataclass(frozen=True)
class SqlFacts:
    """One database. Of SQLite: where its file is."""

    dialect: str
    round_trip_s: float
    clock_ahead_s: float
    tables_missing: tuple[str, ...] = ()
    may_create: bool = True
    file_system: str | None = None
    """Of SQLite's file; None: not known."""
    is_relative: bool = False
    """SQLite's file is named from the working directory of whoever opens it."""


class Lane(NamedTuple):
    """How many records are in a lane, how many of them are overdue (LATE_S), and when the first one is due."""

    records: int = 0
    overdue: int = 0
    first_due_at: float | None = None

    def plus(self, other: Lane) -> Lane:
        first = min((at for at in (self.first_due_at, other.first_due_at) if at is not None), default=None)
        return Lane(self.records + other.records, self.overdue + other.overdue, first)


def lanes_in(accounts: Sequence[str]) -> dict[str, str]:
    """The room's own lanes that are counted, and as which of LANES."""
    return {lane: lane for lane in LANES} | {look_lane(account): "look" for account in accounts}


def summed(found: Iterable[tuple[str, Lane]]) -> dict[str, Lane]:
    """Lanes by their names in LANES: all of them."""
    lanes = {lane: Lane() for lane in LANES}
    for name, lane in found:
        lanes[name] = lanes[name].plus(lane)
    return lanes


@dataclass(frozen=True)
class RoomState:
    """How the room's work goes. Instants are of its clock."""

    now: float
    leader: str | None
    """Who leads now; None: nobody."""
    lanes: Mapping[str, Lane]
    """By name: all of LANES."""


class Store(Protocol):
    """What can be asked of a store. Every method raises RoomError if it is away."""

    @property
    def room(self) -> Room:
        """The room itself, on the store's connections."""

    def facts(self) -> RedisFacts | SqlFacts:
        """What kind of a store it is."""

    def state(self) -> RoomState:
        """How the room's work goes. Raises RoomError too if no room was ever made there."""

    def exists(self) -> bool:
        """Whether a room was ever made there. (Redis needs nothing to be made.)"""

    def try_to_write(self) -> None:
        """Write something, and take it back. Raises RoomError, if that is refused."""

    def queue_lengths(self, names: tuple[str, ...]) -> dict[str, int]:
        """How many messages wait in queues of Celery's, where they are kept there."""

    def close(self) -> None:
        """Let go of connections."""


def options_of(app: Celery) -> dict[str, Any]:
    """What the user has told Celery about its Redis."""
    return _transport_options(app)


def open_store(
    url: str,
    namespace: str,
    *,
    options: Mapping[str, Any] | None = None,
    timeout_s: float = 3.0,
    accounts: Sequence[str] = (),
) -> Store:
    """Open a store for questions. A broker's or a result backend's URL will do too. Nothing is connected yet.

    ``accounts``: those, beside the default one, whose looks its state tells too.

    Raises: SettingsError, if its driver is not installed or no store is behind such a URL.
    """
    for prefix in ("db+", "database+"):
        url = url.removeprefix(prefix)
    scheme = url.partition("://")[0]
    if scheme in REDIS_SCHEMES:
        from framelane_celery.room.inspect_redis import RedisStore

        return RedisStore(url, namespace, options or {}, timeout_s, accounts)
    if scheme.partition("+")[0] in ("sqlite", "postgresql"):
        from framelane_celery.room.inspect_sql import SqlStore

        return SqlStore(url, namespace, timeout_s, accounts)
    raise SettingsError("neither Redis nor PostgreSQL nor SQLite")
