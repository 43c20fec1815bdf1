"""Real deployments that are sick: private servers, RabbitMQ, and addresses at which nobody answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.transport import memory

from framelane_celery import FramelaneTask
from framelane_celery.doctor import probe
from framelane_celery.doctor.asking import Question
from framelane_celery.doctor.facts import NotAsked
from framelane_celery.doctor.secrets import secrets_of, without
from framelane_celery.doctor.visit import gather
from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.records import Record
from framelane_celery.room import Room, open_room
from framelane_celery.room.inspect import RedisFacts, SqlFacts, open_store
from framelane_celery.testing import FramelaneServer
from scripts.check_servers import SERVERS
from tests.doctor.conftest import DEAD_PORT, KEY, PASSWORD, Told
from tests.room.stores import POSTGRES_URL, REDIS_URL
from tests.room.test_servers import PrivateRedis

AMQP = next(server.url for server in SERVERS if server.name == "RabbitMQ")

Tell = Callable[..., Told]
MakeApp = Callable[..., Celery]
StartRedis = Callable[..., PrivateRedis]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def overdue(room: Room) -> None:
    """A record that has been due for five minutes, and a letter, and one that nobody ever begins."""
    _, now = room.read("x")
    record = Record(id="late", task="framelane.render", call="{}", digest="d", created_at=now, due_at=now - 300)
    letter = {"at": now, "queue": "q", "route": {}, "keep_waiting": False, "announced": True}
    room.create(record)
    room.create(replace(record, id="letter", until="dead", letter=letter))
    room.create(replace(record, id="never", due_at=now + 900, resends=5))


# --- the room ----------------------------------------------------------------------------------------------------


def test_a_redis_that_evicts_and_saves_nothing(start_redis: StartRedis, make_app: MakeApp, tell: Tell) -> None:
    server = start_redis(
        "--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb", "--save", "", "--appendonly", "no"
    )
    app = make_app({"room_url": server.url}, broker_url=server.url, result_backend=server.url)
    told = tell(app, "doctor", "--json")
    check = "Redis (room, broker, results)"
    assert ("problem", "maxmemory-policy is allkeys-lru (maxmemory is 100 MiB)") in told.findings(check)
    assert ("warning", "nothing is saved: AOF and snapshots are off") in told.findings(check)
    assert told.exit_code == 1
    assert not list(server.client.scan_iter("*doctor*"))  # what it wrote, it took back


def test_a_redis_that_keeps_and_saves_everything(start_redis: StartRedis, make_app: MakeApp, tell: Tell) -> None:
    server = start_redis("--save", "", "--appendonly", "yes")
    app = make_app({"room_url": server.url})
    told = tell(app, "doctor", "--json")
    assert [level for level, _ in told.findings("Redis (room)")] == ["ok"]
    assert [level for level, _ in told.findings("room")] == ["ok"]
    assert [level for level, _ in told.findings("clocks")] == ["ok"]


def test_a_redis_that_is_full_or_a_replica(start_redis: StartRedis, make_app: MakeApp, tell: Tell) -> None:
    server = start_redis("--save", "")
    app = make_app({"room_url": server.url})
    server.client.config_set("maxmemory", "1")
    (found,) = tell(app, "doctor", "--json").findings("room")
    assert found[0] == "problem"
    assert "not written" in found[1]
    server.client.config_set("maxmemory", "0")
    server.client.replicaof("127.0.0.1", DEAD_PORT)
    told = tell(app, "doctor")
    assert "Point room_url at the primary" in told.text


def test_a_redis_user_who_may_not_ask(start_redis: StartRedis, make_app: MakeApp, tell: Tell) -> None:
    server = start_redis("--save", "")
    server.client.acl_setuser(
        "app", enabled=True, passwords=[f"+{PASSWORD}"], keys=["app1:*"], commands=["+@all", "-@dangerous"]
    )
    url = server.url.replace("//", f"//app:{PASSWORD}@")
    app = make_app({"room_url": url}, result_backend_transport_options={"global_keyprefix": "app1:"})
    told = tell(app, "doctor", "--json")
    ((level, what),) = told.findings("Redis (room)")
    assert (level, "INFO is refused" in what) == ("warning", True)
    assert [level for level, _ in told.findings("room")] == ["ok"]
    assert {f["why"] for f in json.loads(told.text) if f["what"] == what} == {"What is not looked at may be wrong."}


@pytest.mark.parametrize("kind", ["redis", "sqlite", "postgresql"])
def test_what_stands_still_in_the_room_is_told(
    kind: str, unique: str, tmp_path: Path, make_app: MakeApp, tell: Tell
) -> None:
    url = {"redis": REDIS_URL, "sqlite": f"sqlite:///{tmp_path}/room.db", "postgresql": POSTGRES_URL}[kind]
    namespace = f"doctor-{unique}"
    app = make_app({"room_url": url, "dead_letters_alarm": 1})
    room = open_room(url, namespace)
    try:
        overdue(room)
        room.hold("acme", "quota_exceeded", "the quota is spent")
        told = tell(app, "doctor", "--json")
        assert ("problem", "1 overdue, the first one by 5 min") in told.findings("records")
        assert ("problem", "never begun, though sent again and again: never (framelane.render)") in told.findings()
        assert ("problem", "1 waiting for somebody (alarm at 1)") in told.findings("dead letters")
        assert [level for level, _ in told.findings("holds")] == ["warning"]
        assert [level for level, _ in told.findings("watcher")] == ["problem"]
        assert tell(app, "health").exit_code == 1
        room.lead("w1@host/0123", 60)
        assert [(e.check, e.is_healthy) for e in probe(app)] == [("room", True), ("watcher", True), ("records", False)]
        for id in ("late", "letter", "never"):
            record = room.read(id)[0]
            assert record is not None
            room.forget(record)
        healthy = tell(app, "health", "--json")
        assert healthy.exit_code == 0, healthy.text
        assert json.loads(healthy.text)["is_healthy"] is True
        room.resign("w1@host/0123")
        assert [entry.what for entry in probe(app) if not entry.is_healthy] == ["nobody leads"]
    finally:
        room.close()
        clean(kind, url, namespace)


def clean(kind: str, url: str, namespace: str) -> None:
    if kind == "redis":
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"*{namespace}*"):
                client.delete(key)
    elif kind == "postgresql":
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for table in ("framelane_records", "framelane_room"):
                connection.execute(sa.text(f"DELETE FROM {table} WHERE namespace = :n"), {"n": namespace})


def test_a_database_without_tables_gets_none_from_us() -> None:
    schema = f"doctor_{uuid4().hex[:10]}"
    engine = sa.create_engine(POSTGRES_URL, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    store = open_store(f"{POSTGRES_URL}?options=-csearch_path%3D{schema}", "n")
    try:
        kind = store.facts()
        assert isinstance(kind, SqlFacts)
        assert kind.tables_missing == ("framelane_records", "framelane_room")
        assert kind.may_create
        store.try_to_write()
        with pytest.raises(RoomError, match="yet: a worker makes them"):
            store.state()
        with engine.begin() as connection:
            assert sa.inspect(connection).get_table_names(schema) == []
    finally:
        store.close()
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


def test_a_sqlite_file_that_is_not_there_is_not_made(make_app: MakeApp, tell: Tell, tmp_path: Path) -> None:
    app = make_app()
    told = tell(app, "doctor", "--json")
    assert [level for level, _ in told.findings("room")] == ["problem"]
    assert tell(app, "health").exit_code == 1
    assert not (tmp_path / "room.db").exists()


def test_what_is_no_store_is_a_settings_error() -> None:
    for url in ("mongodb://x", "sqlite", "sqlite+x://"):
        with pytest.raises(SettingsError):
            open_store(url, "n")


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "black-hole"])
def test_health_answers_within_a_second_whatever_hangs(
    scheme: str, silent_port: int, make_app: MakeApp, tell: Tell
) -> None:
    address = "10.255.255.1:6379" if scheme == "black-hole" else f"127.0.0.1:{silent_port}"
    scheme = "redis" if scheme == "black-hole" else scheme
    app = make_app({"room_url": f"{scheme}://u:{PASSWORD}@{address}/0"}, broker_url=f"amqp://127.0.0.1:{DEAD_PORT}")
    began = time.monotonic()
    told = tell(app, "health")
    assert time.monotonic() - began < 1.5
    assert told.exit_code == 1
    assert "not ok: room: it cannot be asked" in told.text


def test_a_room_and_a_broker_that_are_down(make_app: MakeApp, tell: Tell) -> None:
    away = f"redis://:{PASSWORD}@127.0.0.1:{DEAD_PORT}/0"
    app = make_app({"room_url": away}, broker_url=f"amqp://u:{PASSWORD}@127.0.0.1:{DEAD_PORT}//", result_backend=away)
    began = time.monotonic()
    told = tell(app, "doctor", "--json")
    assert time.monotonic() - began < 20
    assert told.exit_code == 1
    for check in ("room", "broker"):
        assert [level for level, _ in told.findings(check)] == ["problem"]
    assert ("warning", "not checked: the broker cannot be reached") in told.findings("workers")
    assert [level for level, _ in told.findings("result backend")] == ["problem"]


# --- the broker --------------------------------------------------------------------------------------------------


def test_a_quorum_queue_on_a_direct_exchange(unique: str, make_app: MakeApp, tell: Tell) -> None:
    """And nobody consumes it, nor its retry queue; the letters' queue is consumed."""
    name = f"fl-doctor-{unique}"
    queue = Queue(name, Exchange(name, "direct"), name, queue_arguments={"x-queue-type": "quorum"})
    dead = f"{name}.dead"
    app = make_app({"dead_letter_queue": dead}, broker_url=AMQP, task_queues=[queue])
    with Connection(AMQP) as connection:
        channel = connection.default_channel
        try:
            queue(channel).declare()
            producer = connection.Producer()
            producer.publish({}, exchange="", routing_key=name)
            Queue(dead)(channel).queue_declare()
            tag = channel.basic_consume(dead, callback=lambda message: None)
            told = wait_until_counted(lambda: tell(app, "doctor", "--json"), name)
            assert ("warning", f"with a direct exchange: {name}") in told.findings("quorum queues")
            assert ("warning", f"nobody serves {name}.retry") in told.findings("retry queues")
            assert ("warning", f"somebody consumes {dead}") in told.findings("dead-letter queue")
            assert [level for level, _ in told.findings("publisher confirms")] == ["ok"]
            assert channel.queue_declare(name, passive=True).message_count == 1  # nothing was taken
            channel.basic_cancel(tag)
        finally:
            for made in (name, dead):
                channel.queue_delete(made)
            channel.exchange_delete(name)


def wait_until_counted(ask: Callable[[], Told], name: str) -> Told:
    """RabbitMQ counts a quorum queue's messages a moment later."""
    for _ in range(5):
        told = ask()
        if ("problem", f"messages wait and nobody takes them: {name} (1 waiting)") in told.findings("task queues"):
            return told
        time.sleep(0.5)
    raise AssertionError(told.text)


def test_a_queue_that_the_broker_does_not_tell_about(unique: str, make_app: MakeApp, tell: Tell) -> None:
    """One that is another connection's own; a user without rights gets the like."""
    name = f"fl-doctor-{unique}"
    with Connection(AMQP) as connection:
        Queue(name, exclusive=True)(connection.default_channel).queue_declare()
        told = tell(make_app(broker_url=AMQP), "doctor", "--json")
    assert told.findings("queues") == [
        ("warning", f"not checked: the broker does not tell about {name}: ResourceLocked")
    ]
    assert [level for level, _ in told.findings("broker")] == ["ok"]


def test_messages_on_redis_are_counted_by_a_client_of_our_own(start_redis: StartRedis) -> None:
    server = start_redis("--save", "")
    server.client.rpush("k:q", "a", "b")
    server.client.rpush("k:q\x06\x166", "c")
    store = open_store(server.url, "n", options={"global_keyprefix": "k:"})
    try:
        assert store.queue_lengths(("q", "other")) == {"q": 3, "other": 0}
        kind = store.facts()
        assert isinstance(kind, RedisFacts)
        assert (kind.policy, kind.append_only, kind.snapshots) == ("noeviction", False, False)
    finally:
        store.close()


def test_a_redis_behind_a_socket_is_reached_as_kombu_names_it(start_redis: StartRedis, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    start_redis("--save", "", "--unixsocket", str(path))
    store = open_store(f"redis+socket://{path}?virtual_host=3", "n")
    try:
        store.try_to_write()
    finally:
        store.close()


# --- the application ---------------------------------------------------------------------------------------------


def test_overridden_flags_and_settings(make_app: MakeApp, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMELANE_API_KEY", "another-key-in-the-environment")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", f"redis://:{PASSWORD}@127.0.0.1:{DEAD_PORT}/0")
    app = make_app(
        task_annotations={"framelane.render": {"acks_late": False}},
        task_acks_on_failure_or_timeout=False,
        accept_content=["pickle"],
        broker_transport_options={"visibility_timeout": 5},
    )

    @app.task(base=FramelaneTask, name="shop.promo", shared=False, ignore_result=True, track_started=True)
    def promo() -> None:
        pass

    told = tell(app, "doctor", "--json")
    assert ("problem", "acks_late is off on framelane.render") in told.findings("acks")
    assert ("warning", "track_started is on: shop.promo") in told.findings("states")
    assert ("warning", "ignore_result is on: shop.promo") in told.findings("states")
    assert "failed runs are rejected" in str(told.findings("acks"))
    assert ("problem", "accept_content has no json") in told.findings("serializers")
    differ = [what for _, what in told.findings("environment")]
    assert differ == [
        "CELERY_RESULT_BACKEND and result_backend differ: CELERY_RESULT_BACKEND wins",
        "FRAMELANE_API_KEY and framelane['api_key'] differ: framelane['api_key'] wins",
    ]
    assert "another-key" not in told.text


class DirectOnly(memory.Transport):
    """A broker without broadcast, as SQS is."""

    implements = memory.Transport.implements.extend(exchange_type=frozenset(["direct"]))


def test_workers_that_cannot_be_asked_are_no_problem(make_app: MakeApp, tell: Tell) -> None:
    off = make_app(worker_enable_remote_control=False)
    direct_only = make_app(broker_transport=f"{__name__}:DirectOnly")
    for app, why in ((off, "worker_enable_remote_control is off"), (direct_only, "no remote control")):
        ((level, what),) = tell(app, "doctor", "--json").findings("workers")
        assert (level, "not checked" in what, why in what) == ("warning", True, True)


def test_a_key_that_is_refused_and_one_that_is_missing(make_app: MakeApp, tell: Tell, api: FramelaneServer) -> None:
    app = make_app({"api_key": "fl_test_wr0ngkey"})
    told = tell(app, "doctor", "--json")
    ((level, what),) = told.findings("api key")
    assert (level, "401" in what) == ("problem", True)
    assert "fl_test_wr0ngkey" not in told.text
    app.conf.framelane = {**app.conf.framelane, "api_key": None}
    assert ("problem", "no key is set") in tell(app, "doctor", "--json").findings("api key")


def test_an_api_that_is_away_is_a_warning(make_app: MakeApp, tell: Tell) -> None:
    app = make_app({"base_url": f"http://127.0.0.1:{DEAD_PORT}"})
    assert [level for level, _ in tell(app, "doctor", "--json").findings("api key")] == ["warning"]


def test_settings_that_do_not_resolve(make_app: MakeApp, tell: Tell) -> None:
    app = make_app({"romm_url": "x"})
    told = tell(app, "doctor", "--json")
    assert told.findings("settings") == [("problem", "framelane: unknown key 'romm_url'; did you mean 'room_url'?")]
    assert told.exit_code == 1
    health = tell(app, "health")
    assert (health.exit_code, "unknown key 'romm_url'" in health.text) == (1, True)


def test_settings_under_a_name_that_nobody_reads(make_app: MakeApp, tell: Tell) -> None:
    app = make_app()
    app.conf.CELERY_FRAMELANE, app.conf.framelane = {"namespace": "x"}, None
    found = [what for _, what in tell(app, "doctor", "--json").findings("settings")]
    assert "CELERY_FRAMELANE is set, but the app does not read it" in found


DJANGO = """
import sys
from django.conf import settings
settings.configure(FRAMELANE={{"api_key": "x"}}, CELERY_BROKER_URL="memory://")
from celery import Celery
from framelane_celery.doctor.reading import conf_facts
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
print(*conf_facts(app, ()).misplaced)
"""


def test_django_settings_without_the_namespace() -> None:
    command = [sys.executable, "-c", DJANGO.format()]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout == "Django's FRAMELANE\n"


def test_a_module_that_cannot_be_imported_is_told(make_app: MakeApp, tell: Tell) -> None:
    app = make_app(imports=["no_such_module_of_ours"])
    told = tell(app, "doctor", "--json")
    assert "no_such_module_of_ours" in str(told.findings("app"))


def test_no_secret_survives(make_app: MakeApp) -> None:
    app = make_app(
        {"room_url": "postgresql://u:p%40ss%2Fword@h/db", "webhook_secrets": ["whsec_123"]},
        broker_url="amqp://u:br0ker/pw@h//;amqp://u:0therpw@h//",
        result_backend="redis://:r3sults@h/0",
    )
    text = f"{KEY} p@ss/word p%40ss%2Fword whsec_123 br0ker/pw 0therpw r3sults fine"
    assert without(secrets_of(app), text).split() == [*["…"] * 7, "fine"]


def test_a_question_that_hangs_or_fails_is_answered_too() -> None:
    stop = threading.Event()
    hanging = Question(stop.wait, 0.05)
    assert hanging.answer() == NotAsked("no answer within 0.05 s")
    stop.set()
    failing = Question(lambda: 1 / 0, 5)
    assert failing.answer() == NotAsked("ZeroDivisionError: division by zero")
    assert Question(lambda: "fine", 5).answer() == "fine"


def test_gathering_never_raises(make_app: MakeApp) -> None:
    """Whatever is configured."""
    nonsense: list[dict[str, Any]] = [
        {"broker_url": "nonsense://x"},
        {"broker_url": None, "result_backend": None},
        {"result_backend": "nonsense"},
        {"result_backend": "db+nonsense://"},
        {"accept_content": None},
        {"broker_transport_options": None},
        {"task_queues": []},
    ]
    for conf in nonsense:
        facts = gather(make_app(**conf))
        assert facts.tasks, conf


# --- what is printed ---------------------------------------------------------------------------------------------


def test_what_people_read(make_app: MakeApp, tell: Tell) -> None:
    told = tell(make_app(), "doctor")
    lines = told.text.splitlines()
    assert told.exit_code == 1
    assert lines[0].startswith("problem  ")
    assert lines[1].startswith("         ")
    assert lines[2].startswith("         -> ")
    assert lines[-1].endswith(" ok")
    assert "Traceback" not in told.text


def test_what_programs_read(make_app: MakeApp, tell: Tell) -> None:
    told = tell(make_app(), "doctor", "--json")
    findings = json.loads(told.text)
    assert {tuple(finding) for finding in findings} == {("level", "check", "what", "why", "change")}
    assert {finding["level"] for finding in findings} <= {"problem", "warning", "ok"}


def test_wrong_usage_is_exit_code_two(make_app: MakeApp, tell: Tell) -> None:
    assert tell(make_app(), "doctor", "--nonsense").exit_code == 2


# --- accounts ----------------------------------------------------------------------------------------------------


def test_each_accounts_key_is_tried_and_one_that_was_removed_is_told(
    make_app: MakeApp, tell: Tell, tmp_path: Path
) -> None:
    accounts = {"eu": {"api_key": f"{KEY}_wrong"}, "us": {"api_key": KEY}}
    app = make_app({"accounts": accounts})
    room = open_room(f"sqlite:///{tmp_path}/room.db", app.main)
    record = Record(id="x", task="framelane.render", call="{}", digest="d", created_at=1.0, due_at=time.time() + 60)
    room.create(replace(record, account="us"))
    room.create(replace(record, id="y", account="removed"))
    room.close()
    told = tell(app, "doctor", "--json")
    levels = {what.partition(": ")[0]: level for level, what in told.findings("api key") if what.startswith("account")}
    assert levels == {"account eu": "problem", "account us": "ok"}
    assert any("1 of account removed are left alone" in what for _, what in told.findings("records"))
