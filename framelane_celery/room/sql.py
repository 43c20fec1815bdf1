"""The room in SQL: a row per record, compare-and-set on its version; beside it one small table for the rest.

On PostgreSQL a transaction locks the rows that it checks (the lead's, the record's, the slots'), always in that order;
on SQLite it is the only one that writes. Time is the database's clock.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar

from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.records import Record, dump_state, load_record
from framelane_celery.room import FOREIGN_S, REVOKE_S, TOMBSTONE_S, Saved, SlotClaim
from framelane_celery.room.rules import SLOT_WINDOW_S, ForeignRecords, indexed_job, is_mortal

try:
    import sqlalchemy as sa
    from sqlalchemy.engine import Connection, Engine

    from framelane_celery.room.sql_engine import (
        BUSY_TIMEOUT_S,
        clock_of,
        engine_of,
        insert_of,
        make_tables,
        reader_of,
        records,
        room,
    )
except ImportError as error:
    raise SettingsError(
        "room_url: a room in SQL needs SQLAlchemy: pip install 'framelane-celery[sql]',"
        " or 'framelane-celery[postgresql]' for PostgreSQL"
    ) from error

_PAGE: Final = 200
_ROW = [records.c[name] for name in ("id", "until", "step", "version", "due_at", "call", "request", "state")]

_T = TypeVar("_T")


class SqlRoom:
    """See `framelane_celery.room.Room` for what each method promises."""

    def __init__(self, engine: Engine, namespace: str) -> None:
        self.namespace = namespace
        self._engine = engine
        self._reader = reader_of(engine)
        self._clock = clock_of(engine)
        self._is_sqlite = engine.dialect.name == "sqlite"
        # Threads of one process take turns here instead of in SQLite's busy loop, which knows no order.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self._is_sqlite else nullcontext()
        self._insert = insert_of(engine)
        self._foreign = ForeignRecords()
        self._making = threading.Lock()
        self._is_made = False

    @classmethod
    def from_url(cls, url: str, namespace: str) -> SqlRoom:
        """Open ``postgresql://`` or ``sqlite:///file``. Raises: SettingsError. Nothing is connected yet."""
        return cls(engine_of(url), namespace)

    # --- records ---

    def create(self, record: Record) -> Record | None:
        row = self._row(record) | {"version": record.version}
        insert = self._insert(records).values(namespace=self.namespace, id=record.id, **row)
        # A tombstone that has outlived its life is as good as purged.
        insert = insert.on_conflict_do_update(
            index_elements=["namespace", "id"], set_=row, where=records.c.expires_at <= self._clock
        )
        while True:
            if self._write(lambda connection: connection.execute(insert).rowcount, is_alone=True) == 1:
                return None
            there, _ = self.read(record.id)
            if there is not None:
                return there

    def read(self, task_id: str) -> tuple[Record | None, float]:
        one = sa.select(sa.literal(1).label("one")).subquery()
        mine = sa.and_(records.c.namespace == self.namespace, records.c.id == task_id, self._is_alive())
        query = sa.select(self._clock.label("now"), *_ROW).select_from(one.outerjoin(records, mine))
        row = self._read(lambda connection: connection.execute(query).one())
        return _load(row[1:]) if row[1] is not None else None, row.now

    def save(self, old: Record, new: Record, *, token: int | None = None, claim: SlotClaim | None = None) -> Saved:
        is_alone = token is None and claim is None  # one statement, which is a transaction of its own
        return self._write(lambda connection: self._save(connection, old, new, token, claim), is_alone=is_alone)

    def _save(
        self, connection: Connection, old: Record, new: Record, token: int | None, claim: SlotClaim | None
    ) -> Saved:
        if token is not None and not self._leads(connection, token):
            return "not_leader"
        mine = sa.and_(records.c.namespace == self.namespace, records.c.id == old.id, records.c.version == old.version)
        if claim is not None:
            if connection.execute(sa.select(records.c.id).where(mine).with_for_update()).first() is None:
                return "conflict"
            if not self._take_slot(connection, claim):
                return "no_slot"
        change = sa.update(records).where(mine).values(**self._row(new, old), version=old.version + 1)
        return "saved" if connection.execute(change).rowcount == 1 else "conflict"

    def _row(self, new: Record, old: Record | None = None) -> dict[str, Any]:
        """The columns of a record, but for its id and version; of the texts only those that have changed."""
        texts = {name: getattr(new, name) for name in ("call", "request")}
        return {
            "until": new.until,
            "step": new.step,
            "due_at": new.due_at,
            "lane": new.lane,
            "lane_at": new.due_at if new.lane else None,
            "created_at": new.created_at,
            "job_id": indexed_job(new),
            "expires_at": self._clock + TOMBSTONE_S if is_mortal(new) else None,
            "state": dump_state(new),
            **{name: text for name, text in texts.items() if old is None or getattr(old, name) != text},
        }

    # --- what to look at ---

    def due(self, lane: str, limit: int) -> tuple[list[Record], float]:
        in_lane = sa.and_(records.c.namespace == self.namespace, records.c.lane == lane)

        def page(connection: Connection) -> tuple[float, Sequence[Any]]:
            now = self._now(connection)
            query = sa.select(*_ROW).where(in_lane, records.c.lane_at <= now).order_by(records.c.lane_at).limit(limit)
            return now, connection.execute(query).all()

        while True:
            now, rows = self._read(page)
            found, foreign = self._foreign.split((row.id, partial(_load, row)) for row in rows)
            if foreign:
                later = sa.update(records).where(in_lane, records.c.id.in_(foreign)).values(lane_at=now + FOREIGN_S)
                self._write(partial(_execute, later), is_alone=True)
            if found or not rows:  # else the whole page was foreign: it is out of the way now
                return found, now

    def waiting(self, lane: str) -> int:
        query = sa.select(sa.func.count()).where(records.c.namespace == self.namespace, records.c.lane == lane)
        return self._read(lambda connection: int(connection.execute(query).scalar_one()))

    def scan(self) -> Iterator[Record]:
        age = sa.tuple_(records.c.created_at, records.c.id)
        pages = sa.select(*_ROW, records.c.created_at).order_by(records.c.created_at, records.c.id).limit(_PAGE)
        pages = pages.where(records.c.namespace == self.namespace, records.c.until != "done", self._is_alive())
        page = pages
        while rows := self._read(partial(_all, page)):
            yield from self._foreign.split((row.id, partial(_load, row[:-1])) for row in rows)[0]
            page = pages.where(age > sa.tuple_(sa.literal(rows[-1].created_at), sa.literal(rows[-1].id)))

    def task_of(self, job_id: str) -> str | None:
        query = sa.select(records.c.id).where(records.c.namespace == self.namespace, records.c.job_id == job_id)
        return self._read(lambda connection: connection.execute(query.limit(1)).scalar_one_or_none())

    # --- the lead ---

    def lead(self, owner: str, ttl_s: float) -> int | None:
        return self._write(lambda connection: self._lead(connection, owner, ttl_s))

    def _lead(self, connection: Connection, owner: str, ttl_s: float) -> int | None:
        self._make_row(connection, "lead")
        row = self._locked(connection, "lead")
        now = self._now(connection)
        if row.value not in ("", owner) and row.expires_at > now:
            return None
        token: int = row.token if row.value == owner else row.token + 1
        self._set_row(connection, "lead", value=owner, token=token, expires_at=now + ttl_s)
        return token

    def _leads(self, connection: Connection, token: int) -> bool:
        row = self._locked(connection, "lead", is_shared=True)
        return row is not None and row.value != "" and row.token == token

    def resign(self, owner: str) -> None:
        mine = sa.and_(room.c.namespace == self.namespace, room.c.name == "lead", room.c.value == owner)
        leave = sa.update(room).where(mine).values(value="", expires_at=0.0)
        self._write(partial(_execute, leave), is_alone=True)

    # --- slots ---

    def _take_slot(self, connection: Connection, claim: SlotClaim) -> bool:
        name = f"slots:{claim.bucket}"
        slots, now = self._slots(connection, name)
        taken = _still_taken(slots, now)
        if slots.get("brake_until", 0.0) > now or len(taken) >= claim.per_minute:
            return False
        if not claim.from_queue and self._is_queued(connection, claim.bucket, now):
            return False
        self._set_row(connection, name, value=json.dumps(slots | {"taken": [*taken, now]}))
        return True

    def _slots(self, connection: Connection, name: str) -> tuple[dict[str, Any], float]:
        self._make_row(connection, name, value="{}")
        slots: dict[str, Any] = json.loads(self._locked(connection, name).value)
        return slots, self._now(connection)

    def _is_queued(self, connection: Connection, bucket: str, now: float) -> bool:
        in_queue = sa.and_(records.c.namespace == self.namespace, records.c.lane == f"slot:{bucket}")
        query = sa.select(records.c.id).where(in_queue, records.c.lane_at <= now).limit(1)
        return connection.execute(query).first() is not None

    def brake(self, bucket: str, for_s: float) -> None:
        self._write(lambda connection: self._brake(connection, f"slots:{bucket}", for_s))

    def _brake(self, connection: Connection, name: str, for_s: float) -> None:
        slots, now = self._slots(connection, name)
        slots["brake_until"] = max(slots.get("brake_until", 0.0), now + for_s)
        self._set_row(connection, name, value=json.dumps(slots))

    def slots_free(self, bucket: str, per_minute: int) -> int:
        mine = sa.and_(room.c.namespace == self.namespace, room.c.name == f"slots:{bucket}")
        query = sa.select(room.c.value, self._clock.label("now")).where(mine)
        row = self._read(lambda connection: connection.execute(query).first())
        slots, now = (json.loads(row.value), row.now) if row is not None else ({}, 0.0)
        return 0 if slots.get("brake_until", 0.0) > now else max(0, per_minute - len(_still_taken(slots, now)))

    # --- revokes ---

    def add_revokes(self, marks: Iterable[str]) -> None:
        rows = [{"namespace": self.namespace, "name": f"revoke:{mark}", "value": ""} for mark in sorted(set(marks))]
        insert = self._insert(room).values(expires_at=self._clock + REVOKE_S)
        insert = insert.on_conflict_do_update(
            index_elements=["namespace", "name"], set_={"expires_at": insert.excluded.expires_at}
        )
        if rows:
            self._write(lambda connection: [connection.execute(insert, row) for row in rows])

    def revokes_since(self, at: float) -> tuple[list[str], float]:
        query = sa.select(room.c.name).where(
            self._is_revoke(), room.c.expires_at >= at + REVOKE_S, room.c.expires_at >= self._clock
        )
        # The clock first: what is written while we read is found again by who asks from that instant on.
        now, rows = self._read(lambda connection: (self._now(connection), _all(query, connection)))
        return [row.name.removeprefix("revoke:") for row in rows], now

    def is_revoked(self, marks: Sequence[str]) -> bool:
        names = [f"revoke:{mark}" for mark in marks]
        mine = sa.and_(room.c.namespace == self.namespace, room.c.name.in_(names), room.c.expires_at >= self._clock)
        query = sa.select(room.c.name).where(mine).limit(1)
        return bool(names) and self._read(lambda connection: connection.execute(query).first()) is not None

    def _is_revoke(self) -> sa.ColumnElement[bool]:
        return sa.and_(room.c.namespace == self.namespace, room.c.name.like("revoke:%"))

    # --- upkeep ---

    def purge(self) -> int:
        over = sa.delete(records).where(records.c.namespace == self.namespace, records.c.expires_at <= self._clock)
        revokes = sa.delete(room).where(self._is_revoke(), room.c.expires_at < self._clock)

        def work(connection: Connection) -> int:
            connection.execute(revokes)
            return connection.execute(over).rowcount

        return self._write(work)

    def close(self) -> None:
        self._engine.dispose()

    def _is_alive(self) -> sa.ColumnElement[bool]:
        return sa.or_(records.c.expires_at.is_(None), records.c.expires_at > self._clock)

    def _now(self, connection: Connection) -> float:
        return float(connection.execute(sa.select(self._clock)).scalar_one())

    def _make_row(self, connection: Connection, name: str, value: str = "") -> None:
        row = {"namespace": self.namespace, "name": name, "value": value}
        connection.execute(self._insert(room).values(**row).on_conflict_do_nothing())

    def _locked(self, connection: Connection, name: str, *, is_shared: bool = False) -> Any:
        """A row of the small table, which stays as it is until the transaction ends."""
        mine = sa.and_(room.c.namespace == self.namespace, room.c.name == name)
        return connection.execute(sa.select(room).where(mine).with_for_update(read=is_shared)).first()

    def _set_row(self, connection: Connection, name: str, **values: Any) -> None:
        mine = sa.and_(room.c.namespace == self.namespace, room.c.name == name)
        connection.execute(sa.update(room).where(mine).values(**values))

    def _read(self, work: Callable[[Connection], _T]) -> _T:
        return self._run(self._reader, work)

    def _write(self, work: Callable[[Connection], _T], *, is_alone: bool = False) -> _T:
        """Run a transaction; ``is_alone``: it is a single statement."""
        with self._turn:
            return self._run(self._reader if is_alone and not self._is_sqlite else self._engine, work)

    def _run(self, engine: Engine, work: Callable[[Connection], _T]) -> _T:
        ends_at = time.monotonic() + BUSY_TIMEOUT_S
        with self._reaching():
            self._make_tables()
            while True:
                try:
                    with engine.begin() as connection:
                        return work(connection)
                except sa.exc.OperationalError as error:
                    # Some of SQLite's locks do not wait for the busy timeout (recovery of the log, a checkpoint).
                    if not (self._is_sqlite and "locked" in str(error.orig)) or time.monotonic() > ends_at:
                        raise
                    time.sleep(0.01)

    def _make_tables(self) -> None:
        if not self._is_made:
            with self._making:
                if not self._is_made:
                    make_tables(self._engine)
                    self._is_made = True

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever goes wrong between us and the database is a RoomError, and shows neither a password nor a value."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            text = ""
            if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)):  # others may quote what we stored
                text = ": " + " ".join(str(cause).split())[:300]
            password = str(self._engine.url.password or "")
            text = text.replace(password, "…") if password else text
            raise RoomError(f"the room in SQL: {type(cause).__name__}{text}") from None


def _load(row: Any) -> Record:
    """Rebuild a record from the columns of `_ROW`. Raises: ForeignRecord."""
    task_id, until, step, version, due_at, call, request, state = row
    return load_record(
        id=task_id, until=until, step=step, version=version, due_at=due_at, call=call, request=request, state=state
    )


def _still_taken(slots: dict[str, Any], now: float) -> list[float]:
    return [at for at in slots.get("taken", ()) if at > now - SLOT_WINDOW_S]


def _execute(statement: Any, connection: Connection) -> int:
    return connection.execute(statement).rowcount


def _all(query: Any, connection: Connection) -> Sequence[Any]:
    return connection.execute(query).all()
