"""One suite, run against every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from framelane_celery.records import Record
from framelane_celery.room import Room
from tests.room.stores import RedisStore, SqlStore, open_store

Store = RedisStore | SqlStore


@pytest.fixture(scope="session", params=["redis", "postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(request.param, tmp_path_factory.mktemp("room"))
    yield store
    store.close()


@pytest.fixture
def namespace(store: Store) -> Iterator[str]:
    namespace = f"test-{uuid4().hex[:12]}"
    yield namespace
    store.clean(namespace)


@pytest.fixture
def open_again(store: Store, namespace: str) -> Iterator[Callable[[], Room]]:
    """Another process's room of the same namespace."""
    rooms: list[Room] = []

    def open_one() -> Room:
        rooms.append(store.open(namespace))
        return rooms[-1]

    yield open_one
    for room in rooms:
        room.close()


@pytest.fixture
def room(open_again: Callable[[], Room]) -> Room:
    return open_again()


@pytest.fixture
def make_record() -> Callable[..., Record]:
    def make(id: str = "task-1", **values: object) -> Record:
        return Record(**{"id": id, "task": "framelane.render", "call": '{"args":[]}', "digest": "d", **values})  # type: ignore[arg-type]

    return make
