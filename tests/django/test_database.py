"""Django's own database as the room: its URL, and the migration that makes the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from django.core.management import call_command
from django.db import connections
from sqlalchemy.engine import make_url

from framelane_celery.django import room_url
from framelane_celery.errors import SettingsError
from framelane_celery.room import open_room
from framelane_celery.room.database import metadata, statements
from framelane_celery.settings import resolve
from tests.cli.rooms import make_letter, make_record
from tests.room.stores import POSTGRES_URL

POSTGRESQL = "django.db.backends.postgresql"
SQLITE = "django.db.backends.sqlite3"


def url_of(**database: Any) -> str:
    return room_url("records", databases={"records": database})


@pytest.mark.parametrize(
    ("database", "url"),
    [
        ({"NAME": "shop", "USER": "u", "PASSWORD": "p", "HOST": "db", "PORT": 5433}, "postgresql://u:p@db:5433/shop"),
        ({"NAME": "shop"}, "postgresql:///shop"),
        ({"NAME": "shop", "USER": "u", "HOST": "::1"}, "postgresql://u@[::1]/shop"),
        ({"NAME": "shop", "HOST": "/run/pg", "PORT": "1"}, "postgresql:///shop?host=%2Frun%2Fpg&port=1"),
        (
            {"NAME": "a", "HOST": "h", "OPTIONS": {"sslmode": "require", "pool": True}},
            "postgresql://h/a?sslmode=require",
        ),
    ],
)
def test_postgresql(database: dict[str, Any], url: str) -> None:
    assert url_of(ENGINE=POSTGRESQL, **database) == url


def test_a_user_and_a_password_may_hold_anything() -> None:
    odd = "p@:/?#%ü ["
    url = make_url(url_of(ENGINE=POSTGRESQL, NAME="shop", USER=odd, PASSWORD=odd, HOST="h"))
    assert (url.username, url.password, url.host, url.database) == (odd, odd, "h", "shop")


@pytest.mark.parametrize("name", ["/srv/shop/db.sqlite3", Path("/srv/shop/db.sqlite3")])
def test_sqlite(name: Any) -> None:
    url = url_of(ENGINE=SQLITE, NAME=name)
    assert make_url(url).database == "/srv/shop/db.sqlite3"
    conf = {"room_url": url, "namespace": "shop"}
    assert resolve(conf, environ={}, app_name=None, broker_url=None, result_backend=None).room_url is not None


@pytest.mark.parametrize(
    ("databases", "text"),
    [
        ({}, "DATABASES has no 'records'; it has none"),
        ({"other": {}}, "it has 'other'"),
        ({"records": {"ENGINE": "django.db.backends.mysql", "PASSWORD": "hunter2"}}, "is django.db.backends.mysql"),
        ({"records": {}}, "is empty"),
        ({"records": {"ENGINE": SQLITE, "NAME": ":memory:"}}, "name a file"),
        ({"records": {"ENGINE": SQLITE, "NAME": "file:x?mode=memory"}}, "name a file"),
        ({"records": {"ENGINE": POSTGRESQL, "OPTIONS": {"service": "x"}, "PASSWORD": "hunter2"}}, "write the URL"),
        ({"records": {"ENGINE": POSTGRESQL, "NAME": "a?b", "PASSWORD": "hunter2"}}, "an odd one"),
    ],
)
def test_others_are_refused_with_what_to_write(databases: Any, text: str) -> None:
    with pytest.raises(SettingsError, match=text) as raised:
        room_url("records", databases=databases)
    assert "hunter2" not in str(raised.value)


def test_without_databases_django_is_asked() -> None:
    with pytest.raises(SettingsError, match=r"DATABASES\['default'\] is SQLite in memory"):
        room_url()


# --- the migration -----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A second database of the project, in a file."""
    path = tmp_path / "second.sqlite3"
    connections.databases["second"] = {**connections.databases["default"], "NAME": str(path)}
    yield path
    connections["second"].close()
    del connections["second"]
    del connections.databases["second"]


def migrate(*words: str) -> None:
    call_command("migrate", "framelane", *words, database="second", verbosity=0)


def schema_of(path: Path) -> dict[str, list[Any]]:
    """Columns and indexes of our tables, as SQLite tells them."""
    connection = sqlite3.connect(path)
    try:
        indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
        tables = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in metadata.tables}
        told = {name: connection.execute(f"PRAGMA index_info({name})").fetchall() for (name,) in indexes}
        return {**tables, **{name: rows for name, rows in told.items() if "framelane" in name}}
    finally:
        connection.close()


def test_the_tables_are_those_that_a_worker_makes(file: Path, tmp_path: Path) -> None:
    migrate()
    made = open_room(f"sqlite:///{tmp_path}/worker.db", "shop")
    made.holds()
    made.close()
    assert schema_of(file) == schema_of(tmp_path / "worker.db")
    assert len(schema_of(file)) >= 5


def test_a_room_works_in_them_and_a_worker_may_have_come_first(file: Path) -> None:
    first = open_room(f"sqlite:///{file}", "shop")
    first.create(make_record("t", "done", due_at=None, call=""))
    first.close()
    migrate()
    room = open_room(f"sqlite:///{file}", "shop")
    assert room.read("t")[0] is not None
    room.close()


def test_it_can_be_taken_back(file: Path) -> None:
    migrate()
    migrate("zero")
    assert not any(schema_of(file).values())
    migrate()
    assert schema_of(file)["framelane_records"]


def test_it_is_not_taken_back_while_tasks_wait(file: Path) -> None:
    migrate()
    room = open_room(f"sqlite:///{file}", "shop")
    room.create(make_letter("letter"))
    with pytest.raises(RuntimeError, match="1 tasks wait, or are dead letters"):
        migrate("zero")
    assert room.read("letter")[0] is not None
    room.close()


def test_a_project_on_another_database_migrates_too() -> None:
    from importlib import import_module

    migration = import_module("framelane_celery.django.migrations.0001_initial")
    assert migration._statements("mysql") == migration._statements("oracle", drop=True) == []


def test_for_postgresql_too() -> None:
    made, dropped = statements("postgresql"), statements("postgresql", drop=True)
    assert sum(one.startswith("CREATE TABLE IF NOT EXISTS framelane_") for one in made) == 2
    assert sum(one.startswith("CREATE INDEX IF NOT EXISTS framelane_") for one in made) == 3
    assert "DOUBLE PRECISION" in made[0]
    assert dropped == ["DROP TABLE IF EXISTS framelane_room", "DROP TABLE IF EXISTS framelane_records"]


@pytest.fixture
def schema() -> Iterator[str]:
    """A schema of its own on PostgreSQL, as the project's database "second"."""
    name = f"django_{uuid4().hex[:8]}"
    server = make_url(POSTGRES_URL)
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    connections.databases["second"] = {
        **connections.databases["default"],
        "ENGINE": POSTGRESQL,
        "NAME": server.database,
        "USER": server.username or "",
        "PASSWORD": server.password or "",
        "HOST": server.host or "",
        "PORT": server.port or "",
        "OPTIONS": {"options": f"-c search_path={name}"},
    }
    yield name
    connections["second"].close()
    del connections["second"]
    del connections.databases["second"]
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


def test_on_postgresql_the_room_is_where_the_migration_made_it(schema: str) -> None:
    migrate()
    room = open_room(room_url("second", databases=connections.databases), "shop")
    room.create(make_letter("letter"))
    with connections["second"].cursor() as cursor:
        cursor.execute("SELECT id FROM framelane_records")
        assert cursor.fetchall() == [("letter",)]
        cursor.execute(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = %s AND indexname LIKE 'framelane%%'", [schema]
        )
        assert cursor.fetchone() == (5,)
    with pytest.raises(RuntimeError, match="1 tasks wait"):
        migrate("zero")
    assert (
        room._database.read(lambda connection: connection.execute(sa.text("SHOW statement_timeout")).scalar()) == "5s"
    )
    room.close()


def test_nothing_is_left_to_migrate(database: None) -> None:
    told = StringIO()
    call_command("makemigrations", "framelane", check=True, dry_run=True, stdout=told)
    assert told.getvalue().strip() == "No changes detected in app 'framelane'"
