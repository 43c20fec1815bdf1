"""When the tables of a room in SQL go, and when they stay. Each test has a database, or a schema, of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from framelane_celery.errors import RoomError
from framelane_celery.room import Removed, Room, open_room
from scripts.check_servers import SERVERS
from tests.room.steps import Make, put
from tests.room.stores import own_schema

POSTGRES = next(server.url for server in SERVERS if server.name == "PostgreSQL")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database, or a schema, that is nobody else's."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/room.db"
        return
    with own_schema(POSTGRES, f"test_{uuid4().hex[:12]}") as url:
        yield url


def tables(url: str) -> set[str]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def run(url: str, statement: str) -> None:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


OURS = ("framelane_records", "framelane_room")


@pytest.fixture
def rooms(url: str) -> Iterator[tuple[Room, Room]]:
    both = open_room(url, "one"), open_room(url, "two")
    yield both
    for room in both:
        room.close()


def test_the_last_namespace_takes_the_tables_along(url: str, rooms: tuple[Room, Room], make_record: Make) -> None:
    run(url, "CREATE TABLE orders (id integer)")
    one, two = rooms
    put(one, make_record())
    two.add_counts({"resends": 1})  # a row of the small table alone
    assert one.remove() == Removed(1, (), "other namespaces have rows in them")
    assert tables(url) == {*OURS, "orders"}
    assert two.counts() == {"resends": 1}
    removed = two.remove()
    assert (removed.entries, set(removed.tables), removed.tables_kept) == (1, set(OURS), None)
    assert tables(url) == {"orders"}
    assert two.remove() == Removed(0, (), None)
    assert tables(url) == {"orders"}
    put(two, make_record())  # whoever comes back makes them anew
    assert tables(url) == {*OURS, "orders"}


def test_a_live_process_of_another_namespace_makes_them_anew(
    url: str, rooms: tuple[Room, Room], make_record: Make
) -> None:
    """With no row in them, nobody can tell that it is there: one call of its fails, and no more."""
    one, two = rooms
    assert two.counts() == {}
    assert set(one.remove().tables) == set(OURS)
    with pytest.raises(RoomError):
        put(two, make_record())
    put(two, make_record())
    assert two.read("task-1")[0] is not None


def test_a_room_that_never_was_is_not_made_to_be_removed(url: str, rooms: tuple[Room, Room]) -> None:
    assert rooms[0].remove() == Removed(0)
    assert tables(url) == set()


def test_tables_that_a_migration_has_made_are_left_to_it(url: str, rooms: tuple[Room, Room], make_record: Make) -> None:
    put(rooms[0], make_record())
    run(url, "CREATE TABLE django_migrations (app text)")
    run(url, "INSERT INTO django_migrations VALUES ('framelane')")
    removed = rooms[0].remove()
    assert (removed.entries, removed.tables) == (1, ())
    assert "manage.py migrate framelane zero" in str(removed.tables_kept)
    assert tables(url) == {*OURS, "django_migrations"}
    run(url, "UPDATE django_migrations SET app = 'shop'")
    assert set(rooms[0].remove().tables) == set(OURS)
