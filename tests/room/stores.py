"""The stores under test, and what a test may do behind a room's back: look at the bytes, and let time pass."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from framelane_celery.room import Room, open_room
from framelane_celery.room.database import Database, metadata, records
from framelane_celery.room.database import room as room_table
from framelane_celery.room.redis import RedisRoom
from framelane_celery.room.sql import SqlRoom

REDIS_URL = os.environ.get("FRAMELANE_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
POSTGRES_URL = os.environ.get("FRAMELANE_TEST_POSTGRES_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/test")


@contextmanager
def own_schema(url: str, schema: str) -> Iterator[str]:
    """A schema that is nobody else's, in a PostgreSQL database; the URL of a database that has just it."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    try:
        yield f"{url}?options=-csearch_path%3D{schema}"
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


class RedisStore:
    name = "redis"
    away_url = "redis://user:s3cret-pw@127.0.0.1:1/0"

    def __init__(self) -> None:
        self.url = REDIS_URL
        self.client = redis.Redis.from_url(REDIS_URL, protocol=2)

    def open(self, namespace: str, **options: Any) -> Room:
        return open_room(self.url, namespace, options=options)

    def open_quickly(self, namespace: str) -> Room:
        """On the store's own connections; not to be closed."""
        return RedisRoom(self.client, namespace)

    def key(self, namespace: str, rest: str) -> str:
        return f"{{framelane:{namespace}}}:{rest}"

    def row(self, namespace: str, task_id: str) -> dict[str, Any]:
        stored = self.client.hgetall(self.key(namespace, f"record:{task_id}"))
        return {name.decode(): value.decode() for name, value in stored.items()}

    def put_state(self, namespace: str, task_id: str, state: str) -> None:
        assert self.client.hset(self.key(namespace, f"record:{task_id}"), "state", state) == 0

    def vanish(self, namespace: str, task_id: str) -> None:
        self.client.delete(self.key(namespace, f"record:{task_id}"))

    def life_s(self, namespace: str, task_id: str) -> float | None:
        ttl = self.client.ttl(self.key(namespace, f"record:{task_id}"))
        return None if ttl < 0 else ttl

    def end_life(self, namespace: str, task_id: str) -> None:
        self.client.pexpire(self.key(namespace, f"record:{task_id}"), 1)
        while self.client.exists(self.key(namespace, f"record:{task_id}")):
            pass

    def age_slots(self, namespace: str, bucket: str, by_s: float) -> None:
        key = self.key(namespace, f"slots:{bucket}")
        for member in self.client.zrange(key, 0, -1):
            self.client.zincrby(key, -by_s, member)

    def age_revokes(self, namespace: str, by_s: float) -> None:
        for member in self.client.zrange(self.key(namespace, "revokes"), 0, -1):
            self.client.zincrby(self.key(namespace, "revokes"), -by_s, member)

    def put_hold(self, namespace: str, account: str, text: str) -> None:
        self.client.hset(self.key(namespace, "holds"), account, text)

    def end_day(self, namespace: str) -> None:
        """What was spent today was spent yesterday."""
        for name in self.names(self.key(namespace, "spent:")):
            head, _, day = name.rpartition(":")
            self.client.rename(name, f"{head}:{int(day) - 1}")

    def spent_days(self, namespace: str) -> list[int]:
        return [int(name.rpartition(":")[2]) for name in self.names(self.key(namespace, "spent:"))]

    def spent_lives_s(self, namespace: str) -> list[float]:
        return [self.client.ttl(name) for name in self.names(self.key(namespace, "spent:"))]

    def names(self, prefix: str) -> set[str]:
        return {key.decode() for key in self.client.scan_iter(match=f"{prefix}*", count=1000)}

    def clean(self, namespace: str) -> None:
        for key in self.client.scan_iter(match=f"*{{framelane:{namespace}}}*", count=1000):
            self.client.delete(key)

    def close(self) -> None:
        self.client.close()


class SqlStore:
    def __init__(self, name: str, url: str, away_url: str) -> None:
        self.name, self.url, self.away_url = name, url, away_url
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.database = Database.from_url(url)
        self.open_quickly("first").waiting("clock")  # makes the tables

    def open(self, namespace: str, **options: Any) -> Room:
        return open_room(self.url, namespace, options=options)

    def row(self, namespace: str, task_id: str) -> dict[str, Any]:
        query = sa.select(records).where(records.c.namespace == namespace, records.c.id == task_id)
        with self.engine.begin() as connection:
            row = connection.execute(query).mappings().one()
        return {name: value for name, value in row.items() if name != "lane_at"}

    def open_quickly(self, namespace: str) -> Room:
        """On the store's own connections; not to be closed."""
        return SqlRoom(self.database, namespace)

    def _change(self, table: sa.Table, namespace: str, *where: Any, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.namespace == namespace, *where).values(**values))

    def put_state(self, namespace: str, task_id: str, state: str) -> None:
        self._change(records, namespace, records.c.id == task_id, state=state)

    def vanish(self, namespace: str, task_id: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.delete(records).where(records.c.namespace == namespace, records.c.id == task_id))

    def life_s(self, namespace: str, task_id: str) -> float | None:
        ends_at = self.row(namespace, task_id)["expires_at"]
        return None if ends_at is None else ends_at - time.time()

    def end_life(self, namespace: str, task_id: str) -> None:
        self._change(records, namespace, records.c.id == task_id, expires_at=1.0)

    def age_slots(self, namespace: str, bucket: str, by_s: float) -> None:
        where = room_table.c.name == f"slots:{bucket}"
        with self.engine.begin() as connection:
            text = connection.execute(
                sa.select(room_table.c.value).where(room_table.c.namespace == namespace, where)
            ).scalar_one()
        slots = json.loads(text)
        slots["taken"] = [at - by_s for at in slots["taken"]]
        self._change(room_table, namespace, where, value=json.dumps(slots))

    def age_revokes(self, namespace: str, by_s: float) -> None:
        where = room_table.c.name.like("revoke:%")
        self._change(room_table, namespace, where, expires_at=room_table.c.expires_at - by_s)

    def put_hold(self, namespace: str, account: str, text: str) -> None:
        self._change(room_table, namespace, room_table.c.name == f"hold:{account}", value=text)

    def end_day(self, namespace: str) -> None:
        """What was spent today was spent yesterday."""
        for name, _ in self._spent(namespace):
            head, _, day = name.rpartition(":")
            self._change(room_table, namespace, room_table.c.name == name, name=f"{head}:{int(day) - 1}")

    def spent_days(self, namespace: str) -> list[int]:
        return [int(name.rpartition(":")[2]) for name, _ in self._spent(namespace)]

    def spent_lives_s(self, namespace: str) -> list[float]:
        return [expires_at - time.time() for _, expires_at in self._spent(namespace)]

    def end_spent_lives(self, namespace: str) -> None:
        self._change(room_table, namespace, room_table.c.name.like("spent:%"), expires_at=1.0)

    def _spent(self, namespace: str) -> list[Any]:
        query = sa.select(room_table.c.name, room_table.c.expires_at).where(
            room_table.c.namespace == namespace, room_table.c.name.like("spent:%")
        )
        with self.engine.begin() as connection:
            return list(connection.execute(query))

    def clean(self, namespace: str) -> None:
        with self.engine.begin() as connection:
            for table in metadata.tables.values():
                connection.execute(sa.delete(table).where(table.c.namespace == namespace))

    def close(self) -> None:
        self.database.close()
        self.engine.dispose()


def open_store(name: str, folder: Path) -> RedisStore | SqlStore:
    """Open a store for tests. A server that does not answer is a failure, never a skip."""
    if name == "redis":
        store = RedisStore()
        store.client.ping()
        return store
    if name == "postgresql":
        return SqlStore(name, POSTGRES_URL, "postgresql+psycopg://user:s3cret-pw@127.0.0.1:1/test")
    assert sqlite3.sqlite_version_info >= (3, 35)
    return SqlStore(name, f"sqlite:///{folder}/room.db", f"sqlite:///{folder}/s3cret-pw/away/room.db")
