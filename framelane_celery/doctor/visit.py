"""A visit: gather the facts of an app's deployment, then ask every check.

Gathering never raises: a question that fails is answered by `NotAsked`, and the checks say so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from framelane_celery.client import FramelaneClient
from framelane_celery.doctor import configuration, operation, reading, stores
from framelane_celery.doctor.asking import Question, attempt
from framelane_celery.doctor.facts import (
    ApiFacts,
    BackendFacts,
    BrokerFacts,
    ConfFacts,
    Facts,
    NotAsked,
    QueueFacts,
    RoomFacts,
    SettingsFacts,
    WorkerFacts,
)
from framelane_celery.doctor.findings import LEVELS, Check, Finding
from framelane_celery.doctor.reading import first_url, scheme_of
from framelane_celery.doctor.secrets import secrets_of, without
from framelane_celery.errors import ApiError, FramelaneError, SettingsError
from framelane_celery.records import Record
from framelane_celery.room import Ends, Hold
from framelane_celery.room.inspect import REDIS_SCHEMES, Store, open_store, options_of
from framelane_celery.settings import FramelaneSettings

if TYPE_CHECKING:
    from celery import Celery

Answer = TypeVar("Answer")

STORE_S: Final = 3.0
"""For one answer of a store or a broker."""

INSPECT_S: Final = 1.0
"""For how long replies of workers are collected."""

ANSWER_S: Final = 10.0
"""For all of one question."""

SCANNED: Final = 2000
RESENT: Final = 3
"""A record whose message was sent so often more, and begun by nobody, is told."""

CHECKS: Final[tuple[Check, ...]] = (*configuration.CHECKS, *stores.CHECKS, *operation.CHECKS)


def examine(app: Celery) -> list[Finding]:
    """Look at everything; worst first. Never raises. Takes a few seconds, and some more where nothing answers."""
    facts = gather(app)
    secrets = secrets_of(app)
    found = [finding for check in CHECKS for finding in check(facts)]
    clean = [f._replace(what=without(secrets, f.what), change=without(secrets, f.change)) for f in found]
    return sorted(clean, key=lambda finding: LEVELS.index(finding.level))


def gather(app: Celery) -> Facts:
    """Ask for all facts, side by side."""
    facts = read(app)
    names = _queues_of(facts.settings)
    settings = attempt(lambda: reading.checked_settings(app))
    broker = Question(lambda: _broker(app, names), ANSWER_S)
    backend = Question(lambda: _backend(app), ANSWER_S)
    room = None if isinstance(settings, NotAsked) else Question(lambda: _room(app, settings), ANSWER_S)
    api = None if isinstance(settings, NotAsked) else Question(lambda: _api(settings), ANSWER_S)
    accounts = () if isinstance(settings, NotAsked) else settings.laid_over.items()
    apis = {name: Question(partial(_api, own), ANSWER_S) for name, own in accounts}
    answered = broker.answer()
    workers = None if isinstance(answered, NotAsked) else Question(lambda: _workers(app), ANSWER_S)
    return replace(
        facts,
        api=NotAsked("the settings do not resolve") if api is None else api.answer(),
        account_apis={name: question.answer() for name, question in apis.items()},
        room=NotAsked("the settings do not resolve") if room is None else room.answer(),
        broker=answered,
        backend=backend.answer(),
        workers=NotAsked("the broker cannot be reached") if workers is None else workers.answer(),
    )


def read(app: Celery, *, loads: bool = True) -> Facts:
    """What the app itself tells: nothing is connected. What cannot be read is named in `Facts.unread`.

    ``loads``: its modules first. Not within Django's system checks: loading runs those.
    """
    unread: list[str] = []

    def ask_for(what: str, ask: Callable[[], Answer], otherwise: Answer) -> Answer:
        answer = attempt(ask)
        if isinstance(answer, NotAsked):
            unread.append(f"{what} ({answer.why})")
            return otherwise
        return answer

    if loads:
        ask_for("the app's modules", lambda: reading.load(app), True)
    none: dict[str, Any] = {}
    tasks = ask_for("the app's tasks", lambda: reading.our_tasks(app), none)
    settings = attempt(lambda: reading.settings_facts(app, reading.checked_settings(app), tasks))
    names = _queues_of(settings)
    return Facts(
        settings=settings,
        tasks=ask_for("the tasks' flags", lambda: tuple(reading.task_facts(app, task) for task in tasks.values()), ()),
        conf=ask_for("the configuration", lambda: reading.conf_facts(app, names), ConfFacts()),
        overrides=ask_for("the environment", lambda: tuple(reading.overrides_of(app)), ()),
        versions={name: reading.version_of(name) for name in configuration.SUPPORTED},
        unread=tuple(unread),
    )


def _queues_of(settings: SettingsFacts | NotAsked) -> tuple[str, ...]:
    if isinstance(settings, NotAsked):
        return ()
    return tuple(dict.fromkeys([*settings.task_queues, *settings.retry_queues, *settings.dead_letter_queues]))


# --- the stores --------------------------------------------------------------------------------------------------


def _room(app: Celery, settings: FramelaneSettings) -> RoomFacts:
    url = settings.room_url.get_secret_value() if settings.room_url else ""
    store = open_store(
        url, settings.namespace or "", options=options_of(app), timeout_s=STORE_S, accounts=tuple(settings.accounts)
    )
    try:
        kind = attempt(store.facts)
        if isinstance(kind, NotAsked):
            return RoomFacts(kind)
        written = attempt(lambda: _write(store))
        state = attempt(store.state)
        if not isinstance(state, NotAsked) and state.leader is None:  # it may be handed over just now
            time.sleep(2 * INSPECT_S)
            state = attempt(store.state)
        waits = state if isinstance(state, NotAsked) else attempt(lambda: _waits(store))
        holds, never, ends = ([], (), {}) if isinstance(waits, NotAsked) else waits
        left = waits if isinstance(waits, NotAsked) else attempt(lambda: _left_alone(store, settings))
        return RoomFacts(
            kind,
            write_error=written.why if isinstance(written, NotAsked) else None,
            state=waits if isinstance(waits, NotAsked) else state,
            holds=tuple(holds),
            left_alone={} if isinstance(left, NotAsked) else left,
            never_begun=never,
            ends=ends,
        )
    finally:
        store.close()


def _write(store: Store) -> bool:
    store.try_to_write()
    return True


def _waits(store: Store) -> tuple[list[Hold], tuple[str, ...], dict[str, Ends]]:
    return store.room.holds()[0], _never_begun(store), store.room.ends()


def _never_begun(store: Store) -> tuple[str, ...]:
    """Of the first records that wait for the clock or a worker."""

    def is_never(record: Record) -> bool:
        return record.until == "start" and record.resends >= RESENT and not record.ending

    page = islice(store.room.scan("clock"), SCANNED)
    return tuple(f"{record.id} ({record.task})" for record in page if is_never(record))


def _left_alone(store: Store, settings: FramelaneSettings) -> Mapping[str, int]:
    """Of the oldest records."""
    page = islice(store.room.scan(lean=True), SCANNED)
    return Counter(
        record.account for record in page if not record.is_over and record.account not in settings.account_names
    )


def _backend(app: Celery) -> BackendFacts:
    """Redis and PostgreSQL are asked; of other kinds nothing is known here. (SQLite's file Celery makes itself.)"""
    url = app.conf.result_backend
    url = url if isinstance(url, str) else ""
    if url in ("database", "db") and app.conf.get("database_url"):
        url = f"db+{app.conf.database_url}"
    plain = url.removeprefix("db+").removeprefix("database+")
    if scheme_of(plain).partition("+")[0] not in (*REDIS_SCHEMES, "postgresql"):
        return BackendFacts()
    try:
        store = open_store(plain, "doctor", options=options_of(app), timeout_s=STORE_S)
    except SettingsError:  # a driver that we do not use, Celery may
        return BackendFacts()
    try:
        return BackendFacts(store.facts())
    finally:
        store.close()


# --- the broker and the workers ----------------------------------------------------------------------------------


def _broker(app: Celery, names: tuple[str, ...]) -> BrokerFacts:
    """Redis is asked by a client of our own, never through kombu's channel (broker_facts.md, rule 7)."""
    url = first_url(app.conf.broker_read_url)
    if scheme_of(url) in REDIS_SCHEMES:
        store = open_store(url if "://" in url else f"{url}://", "doctor", options=options_of(app), timeout_s=STORE_S)
        try:
            kind = store.facts()
            lengths = attempt(lambda: store.queue_lengths(names))
        finally:
            store.close()
        if not isinstance(lengths, NotAsked):
            queues = {name: QueueFacts(length) for name, length in lengths.items()}
        return BrokerFacts(kind, lengths if isinstance(lengths, NotAsked) else queues)
    with app.connection_for_read(connect_timeout=STORE_S) as connection:
        connection.ensure_connection(max_retries=1, timeout=STORE_S)
        if connection.transport.driver_type != "amqp":
            return BrokerFacts(None, {name: QueueFacts(None) for name in names})
        return BrokerFacts(None, attempt(lambda: {name: _passively(connection, name) for name in names}))


def _passively(connection: Any, name: str) -> QueueFacts:
    """Count without reading (broker_facts.md, "What follows", 6). A queue that is not there closes the channel."""
    channel = connection.channel()
    try:
        _, messages, consumers = channel.queue_declare(queue=name, passive=True)
    except connection.channel_errors as error:
        if getattr(error, "reply_code", None) != 404:
            raise FramelaneError(f"the broker does not tell about {name}: {type(error).__name__}") from error
        return QueueFacts(0, 0, is_there=False)
    else:
        return QueueFacts(messages, consumers)
    finally:
        if channel.is_open:
            channel.close()


def _workers(app: Celery) -> tuple[WorkerFacts, ...]:
    """A worker answers where celery/worker/consumer/control.py lets it: not on SQS, nor with remote control off."""
    with app.connection_for_write(connect_timeout=STORE_S) as connection:
        if not app.conf.worker_enable_remote_control:
            raise FramelaneError("worker_enable_remote_control is off, so they cannot be asked")
        if not connection.supports_exchange_type("fanout"):
            raise FramelaneError("this broker has no remote control, so they cannot be asked")
        inspect = app.control.inspect(timeout=INSPECT_S, connection=connection)
        queues = inspect.active_queues() or {}
        tasks = (inspect.registered() or {}) if queues else {}
    return tuple(
        WorkerFacts(
            node,
            tuple(queue["name"] for queue in served or () if isinstance(queue, Mapping)),
            tuple(str(task).partition(" ")[0] for task in tasks.get(node) or ()),
        )
        for node, served in sorted(queues.items())
    )


# --- the API -----------------------------------------------------------------------------------------------------


def _api(settings: FramelaneSettings) -> ApiFacts:
    if settings.api_key is None:
        return ApiFacts(None, "no key is set")
    key = settings.api_key.get_secret_value()
    with FramelaneClient(key, settings.base_url, connect_timeout_s=2, read_timeout_s=STORE_S) as client:
        try:
            client.get_usage()
        except ApiError as error:
            return ApiFacts(error.status, f"{error.status}: {error}")
        except FramelaneError as error:
            return ApiFacts(None, str(error))
    return ApiFacts(200)
