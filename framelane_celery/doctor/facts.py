"""The facts of a deployment, as plain values. What could not be asked is a `NotAsked`, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from framelane_celery.room import Ends, Hold
from framelane_celery.room.inspect import RedisFacts, RoomState, SqlFacts


class NotAsked(NamedTuple):
    """Why something is not known."""

    why: str


_UNASKED: Final = NotAsked("not asked")


class TaskFacts(NamedTuple):
    """One task of ours, as it is bound to the app."""

    name: str
    queue: str
    acks_late: bool = True
    reject_on_worker_lost: bool = True
    acks_failures: bool = True
    """A failed or timed out run is acknowledged, as by default."""
    retry_on_worker_lost: bool = False
    track_started: bool = False
    ignore_result: bool = False
    has_our_request: bool = True
    time_limit_s: float | None = None
    """The shorter of the two."""


class Override(NamedTuple):
    """An environment variable and a setting that say different things. ``by_environment``: the variable wins."""

    variable: str
    setting: str
    by_environment: bool


class QueuePlan(NamedTuple):
    """A queue as the app would declare it."""

    name: str
    is_quorum: bool
    exchange_type: str


@dataclass(frozen=True)
class ConfFacts:
    """What the app's configuration says. Of URLs, the scheme only."""

    broker: str = "redis"
    broker_options: Mapping[str, Any] = field(default_factory=dict)
    """visibility_timeout, confirm_publish: those that were set."""
    backend: str = "redis"
    """The scheme, or the bare word; "" for none."""
    result_expires_s: float | None = 86400.0
    result_chord_expires_s: float | None = None
    accepts_json: bool = True
    accepts_json_results: bool = True
    task_serializer: str = "json"
    always_eager: bool = False
    longest_time_limit_s: float | None = None
    """Of all tasks of the app, plain ones too."""
    queues: tuple[QueuePlan, ...] = ()
    misplaced: tuple[str, ...] = ()
    """Names under which settings of ours lie where nobody reads them."""


@dataclass(frozen=True)
class SettingsFacts:
    """Our settings, resolved."""

    namespace: str = "shop"
    base_url: str = "https://api.framelane.io"
    has_key: bool = True
    accounts: Mapping[str, str] = field(default_factory=dict)
    """The named ones, and their base URLs."""
    room: str = "redis"
    """The scheme of its URL."""
    watcher: bool = True
    deadline_s: float = 6 * 3600
    hold_max_s: float = 35 * 86400
    connect_timeout_s: float = 5
    read_timeout_s: float = 30
    dead_letters_alarm: int = 1000
    has_webhooks: bool = False
    task_queues: tuple[str, ...] = ()
    retry_queues: tuple[str, ...] = ()
    dead_letter_queues: tuple[str, ...] = ()


class ApiFacts(NamedTuple):
    """How the API answered a read that costs nothing. ``status`` None: no usable answer."""

    status: int | None
    message: str = ""


@dataclass(frozen=True)
class RoomFacts:
    """The room. ``write_error`` None: reading and writing work."""

    store: RedisFacts | SqlFacts | NotAsked
    write_error: str | None = None
    state: RoomState | NotAsked = _UNASKED
    holds: tuple[Hold, ...] = ()
    left_alone: Mapping[str, int] = field(default_factory=dict)
    """Accounts that the settings do not name, and how many of the oldest records are theirs."""
    never_begun: tuple[str, ...] = ()
    """Records that nobody begins, though their message was sent again and again: "id (task)"."""
    ends: Mapping[str, Ends] = field(default_factory=dict)
    """Jobs that ended today and yesterday, by what told of them."""


class QueueFacts(NamedTuple):
    """A queue at the broker. None: the broker does not tell."""

    messages: int | None = 0
    consumers: int | None = None
    is_there: bool = True


@dataclass(frozen=True)
class BrokerFacts:
    """The broker: it answers."""

    store: RedisFacts | SqlFacts | None = None
    """Of a Redis; None: it is none."""
    queues: Mapping[str, QueueFacts] | NotAsked = field(default_factory=dict)


@dataclass(frozen=True)
class BackendFacts:
    """The result backend: it answers. ``store`` None: it is a kind that we do not know to ask."""

    store: RedisFacts | SqlFacts | None = None


class WorkerFacts(NamedTuple):
    """A worker that answers."""

    node: str
    queues: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        return self.node.partition("@")[2]


@dataclass(frozen=True)
class Facts:
    """All of it."""

    conf: ConfFacts = ConfFacts()
    settings: SettingsFacts | NotAsked = SettingsFacts()
    overrides: tuple[Override, ...] = ()
    tasks: tuple[TaskFacts, ...] = ()
    versions: Mapping[str, str | None] = field(default_factory=dict)
    api: ApiFacts | NotAsked = _UNASKED
    account_apis: Mapping[str, ApiFacts | NotAsked] = field(default_factory=dict)
    """Each named account's, with its own key."""
    room: RoomFacts | NotAsked = _UNASKED
    broker: BrokerFacts | NotAsked = BrokerFacts()
    backend: BackendFacts | NotAsked = BackendFacts()
    workers: tuple[WorkerFacts, ...] | NotAsked = ()
    unread: tuple[str, ...] = ()
    """What of the app could not be read, and why."""

    def our_workers(self) -> list[WorkerFacts]:
        """Those that serve a queue of ours: other projects may share the broker."""
        if isinstance(self.workers, NotAsked) or isinstance(self.settings, NotAsked):
            return []
        ours = {*self.settings.task_queues, *self.settings.retry_queues}
        return [worker for worker in self.workers if ours & set(worker.queues)]
