"""The call: nothing is told or sent before the room has said that the record is there, whoever's producer it goes by.

What dies between the two halves is attacked in tests/faults, what Redis may answer in tests/room/test_servers.py.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import after_task_publish, before_task_publish
from kombu import Producer
from kombu.exceptions import OperationalError, SerializerNotInstalled
from kombu.pools import ProducerPool

from framelane_celery.errors import DuplicateTask, RoomError
from framelane_celery.records import Record
from framelane_celery.room import Room, room_of
from framelane_celery.room.sql import SqlRoom
from framelane_celery.settings import settings_of
from framelane_celery.tasks import calling

COMPOSITION: dict[str, Any] = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}
OTHER: dict[str, Any] = {"elements": [{"type": "text", "text": "bye", "duration": 2}]}
SENT = ["record", "built", "answer", "backend", "before", "message", "after"]
"""What happens in a call, in this order."""

Heard = list[str]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    app = Celery(f"unit-{uuid4().hex[:6]}", set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.framelane = {"api_key": "fl_test_key", "room_url": f"sqlite:///{tmp_path}/room.sqlite"}
    yield app
    room(app).close()
    app.close()


@pytest.fixture
def heard(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """What a call does, step by step; for `room.answers`, see `away`."""
    heard: Heard = []

    def noting(owner: Any, name: str, note: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            answer = inner(*args, **kwargs)
            heard.append(note)
            return answer

        monkeypatch.setattr(owner, name, outer)

    creating = SqlRoom.creating

    @contextmanager
    def sent(room: SqlRoom, record: Record) -> Iterator[Callable[[], Record | None]]:
        heard.append("record")
        with creating(room, record) as ask:
            yield ask

    monkeypatch.setattr(SqlRoom, "creating", sent)
    noting(SqlRoom, "create", "answer")
    noting(app.amqp, "create_task_message", "built")
    noting(app.backend, "on_task_call", "backend")
    noting(Producer, "publish", "message")

    def before(**_: Any) -> None:
        heard.append("before")

    def after(**_: Any) -> None:
        heard.append("after")

    before_task_publish.connect(before)
    after_task_publish.connect(after)
    yield heard
    before_task_publish.disconnect(before)
    after_task_publish.disconnect(after)


def room(app: Celery) -> Room:
    return room_of(app, settings_of(app))


def render(app: Celery, composition: Any = COMPOSITION, task_id: str = "t", **options: Any) -> Any:
    return app.tasks["framelane.render"].apply_async((composition,), task_id=task_id, **options)


def test_the_message_is_built_meanwhile_and_leaves_after_the_answer(app: Celery, heard: Heard) -> None:
    render(app)
    assert heard == SENT
    assert room(app).read("t")[0] is not None


@pytest.mark.parametrize("name", ["producer", "publisher", "connection"])
def test_the_callers_own_producer_or_connection_sends_it_after_the_answer(
    app: Celery, heard: Heard, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []
    publish = Producer.publish
    monkeypatch.setattr(Producer, "publish", lambda self, *args, **kw: used.append(self) or publish(self, *args, **kw))
    with app.connection_for_write() as connection, app.amqp.Producer(connection, auto_declare=False) as producer:
        own = connection if name == "connection" else producer
        render(app, **{name: own})
        assert heard == SENT
        assert [producer.connection for producer in used] == [connection]
        if name != "connection":
            assert used == [producer]


class Own(Celery):
    """An app that sends by a producer of its own, whatever it is given."""

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        with self.connection_for_write() as connection:
            options["producer"] = self.amqp.Producer(connection, auto_declare=False)
            return super().send_task(name, *args, **options)


def wrapped(inner: Any) -> Any:
    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return outer


@pytest.mark.parametrize("kind", ["own", "wrapped"])
def test_who_stands_between_is_called_after_the_answer_and_never_in_vain(
    app: Celery, heard: Heard, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """An own `send_task` may take a producer of its own; Sentry wraps Celery's, and would tell of an error."""
    if kind == "own":
        app.__class__ = Own
    else:
        monkeypatch.setattr(Celery, "send_task", wrapped(Celery.send_task))
    render(app)
    assert heard == ["record", "answer", "built", "backend", "before", "message", "after"]
    heard.clear()
    render(app)
    with pytest.raises(DuplicateTask):
        render(app, OTHER)
    assert heard == ["record", "answer"] * 2


def test_a_later_start_writes_the_record_alone(app: Celery, heard: Heard) -> None:
    render(app, countdown=60)
    assert heard == ["record", "answer"]


def test_the_same_call_again_tells_nobody(app: Celery, heard: Heard) -> None:
    """A tracing library that opens a span before the message and closes it after would keep it open for ever."""
    first = render(app)
    heard.clear()
    assert render(app).id == first.id
    assert heard == ["record", "built", "answer"]
    with pytest.raises(DuplicateTask):
        render(app, OTHER)
    assert heard == ["record", "built", "answer"] * 2


def test_a_room_that_is_away_lets_nothing_out(app: Celery, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Record] = []

    def create(room: SqlRoom, record: Record) -> None:
        asked.append(record)
        raise RoomError("the room is away")

    monkeypatch.setattr(SqlRoom, "create", create)
    with pytest.raises(RoomError):
        render(app)
    assert heard == ["record", "built"]
    assert len(asked) == 1  # a room that is slow to say so is not asked twice


def test_inside_a_task_a_room_that_is_away_lets_the_message_go_alone(
    app: Celery, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def create(room: SqlRoom, record: Record) -> None:
        raise RoomError("the room is away")

    with running(app, monkeypatch):
        monkeypatch.setattr(SqlRoom, "create", create)
        render(app)
    assert heard == ["record", "built", "built", "backend", "before", "message", "after"]
    assert "the message alone goes out" in caplog.text


@contextmanager
def running(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plain task of the app runs here."""

    @app.task(name="unit.parent", shared=False)
    def parent() -> None:
        pass

    parent.push_request(id="parent", called_directly=False)
    monkeypatch.setattr(Celery, "current_worker_task", property(lambda _: parent))
    yield
    parent.pop_request()


class Broken:
    """A router that is not well: nothing can be built."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def route(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error


def test_a_room_that_is_slow_holds_no_producer(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else plain tasks of the same process would wait for the room, too."""
    app.conf.broker_pool_limit = 1
    free: list[Any] = []
    create = SqlRoom.create

    def slow(room: SqlRoom, record: Record) -> Record | None:
        with app.producer_pool.acquire(block=False) as producer:
            free.append(producer)
        return create(room, record)

    monkeypatch.setattr(SqlRoom, "create", slow)
    render(app)
    assert len(free) == 1


def test_of_a_call_that_cannot_be_built_nothing_stays(app: Celery, heard: Heard) -> None:
    with pytest.raises(ValueError, match="no route"):
        render(app, router=Broken(ValueError("no route")))
    assert heard == ["record", "answer"]
    assert room(app).read("t")[0] is None


def test_of_a_call_that_cannot_be_encoded_nothing_stays(app: Celery) -> None:
    with pytest.raises(SerializerNotInstalled):
        render(app, serializer="unknown")
    assert room(app).read("t")[0] is None


def test_a_call_that_cannot_be_built_leaves_an_earlier_one_of_its_id_alone(app: Celery) -> None:
    render(app)
    assert render(app, router=Broken(ValueError("no route"))).id == "t"
    assert room(app).read("t")[0] is not None


def test_a_call_that_is_broken_off_before_the_answer_sends_nothing(app: Celery, heard: Heard) -> None:
    with pytest.raises(KeyboardInterrupt):
        render(app, router=Broken(KeyboardInterrupt()))
    assert heard == ["record"]


def test_inside_a_task_a_call_that_cannot_be_built_is_told_and_kept(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(app, monkeypatch):
        render(app, router=Broken(ValueError("no route")))
    assert "could not be published" in caplog.text
    assert room(app).read("t")[0] is not None


@pytest.mark.parametrize(("owner", "name"), [(SqlRoom, "create"), (Producer, "publish")])
def test_the_calling_tasks_time_limit_is_its_own(
    app: Celery, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    inner = getattr(owner, name)

    def late(*args: Any, **kwargs: Any) -> Any:
        inner(*args, **kwargs)
        raise SoftTimeLimitExceeded

    with running(app, monkeypatch):
        monkeypatch.setattr(owner, name, late)
        with pytest.raises(SoftTimeLimitExceeded):
            render(app)
    assert room(app).read("t")[0] is not None


@pytest.mark.parametrize(("owner", "name"), [(ProducerPool, "acquire"), (Producer, "publish")])
def test_a_broker_that_is_away_is_left_to_the_watcher(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: type, name: str
) -> None:
    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("connection refused")

    monkeypatch.setattr(owner, name, away)
    with caplog.at_level(logging.WARNING):
        assert render(app).id == "t"
    assert "not published, the watcher will" in caplog.text
    assert room(app).read("t")[0] is not None


def test_a_promise_is_made_once_and_only_when_it_is_used() -> None:
    made: list[str] = []
    promise = calling._Promise(lambda: made.append("x") or "producer")
    assert promise
    assert made == []
    assert promise.upper() == "PRODUCER"
    assert promise.title() == "Producer"
    assert made == ["x"]
