"""Questions to a database; see `framelane_celery.room.inspect`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError

from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.room.database import Database, metadata, records, room
from framelane_celery.room.inspect import LATE_S, Lane, RoomState, SqlFacts, lanes_in, summed
from framelane_celery.room.sql import SqlRoom


class SqlStore:
    """See `framelane_celery.room.inspect.Store`. Makes no table, and no file."""

    def __init__(self, url: str, namespace: str, timeout_s: float, accounts: Sequence[str] = ()) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise SettingsError("not a usable database URL") from None
        self._dialect = parsed.get_backend_name()
        self._file = Path(parsed.database or "") if self._dialect == "sqlite" else None
        if self._dialect == "postgresql" and "connect_timeout" not in parsed.query:
            parsed = parsed.update_query_dict({"connect_timeout": str(max(2, round(timeout_s)))})
        self._database = Database.from_url(parsed.render_as_string(hide_password=False))
        self.room = SqlRoom(self._database, namespace)
        self._namespace, self._lanes = namespace, lanes_in(accounts)

    def facts(self) -> SqlFacts:
        with self._database._reaching(), self._reader() as connection:
            missing = self._missing(connection)
            times = [self._compare_clocks(connection) for _ in range(3)]
            round_trip_s, clock_ahead_s = min(times)
            return SqlFacts(
                self._dialect,
                round_trip_s,
                clock_ahead_s,
                tables_missing=missing,
                may_create=self._may_create(connection),
                file_system=file_system_of(self._file) if self._file is not None else None,
                is_relative=self._file is not None and not self._file.is_absolute(),
            )

    def _reader(self) -> Connection:
        if self._file is not None and not self._file.exists():
            raise RoomError(f"the room in SQL: there is no file {self._file} yet: a worker makes it")
        return self._database._reader.connect()

    def _missing(self, connection: Connection) -> tuple[str, ...]:
        inspector = sa.inspect(connection)
        return tuple(name for name in metadata.tables if not inspector.has_table(name))

    def _compare_clocks(self, connection: Connection) -> tuple[float, float]:
        asked_at, began = time.time(), time.perf_counter()
        there = float(connection.execute(sa.select(self._database.clock)).scalar_one())
        took_s = time.perf_counter() - began
        return took_s, there - (asked_at + took_s / 2)

    def _may_create(self, connection: Connection) -> bool:
        if self._dialect == "sqlite":
            return True
        may = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
        return bool(connection.execute(sa.text(may)).scalar_one())

    def state(self) -> RoomState:
        with self._database._reaching(), self._reader() as connection:
            if missing := self._missing(connection):
                raise RoomError(f"the room in SQL has no {', no '.join(missing)} yet: a worker makes them")
            now = float(connection.execute(sa.select(self._database.clock)).scalar_one())
            lead = sa.select(room.c.value, room.c.expires_at)
            lead = lead.where(room.c.namespace == self._namespace, room.c.name == "lead")
            leader = connection.execute(lead).first()
            overdue = sa.func.count().filter(records.c.lane_at < now - LATE_S)
            query = sa.select(records.c.lane, sa.func.count(), overdue, sa.func.min(records.c.lane_at))
            query = query.where(records.c.namespace == self._namespace, records.c.lane.in_(list(self._lanes)))
            rows = connection.execute(query.group_by(records.c.lane)).all()
        lanes = summed((self._lanes[row[0]], Lane(*row[1:])) for row in rows)
        leads = leader is not None and leader.value != "" and leader.expires_at > now
        return RoomState(now, leader.value if leader is not None and leads else None, lanes)

    def exists(self) -> bool:
        if self._file is not None and not self._file.exists():
            return False
        with self._database._reaching(), self._reader() as connection:
            return len(self._missing(connection)) < len(metadata.tables)

    def try_to_write(self) -> None:
        """In a transaction that is rolled back."""
        with self._database._reaching(), self._database._engine.connect() as connection:
            if not self._missing(connection):
                row = {"namespace": self._namespace, "name": "doctor", "value": ""}
                connection.execute(self._database.insert(room).values(**row).on_conflict_do_nothing())
            connection.rollback()

    def queue_lengths(self, names: tuple[str, ...]) -> dict[str, int]:
        raise RoomError("no queues are counted in a database")

    def close(self) -> None:
        self.room.close()


def file_system_of(path: Path, mounts: str | None = None) -> str | None:
    """The kind of file system that a path is on; None where the host does not tell. ``mounts`` as /proc/mounts."""
    if mounts is None:
        with suppress(OSError):
            mounts = Path("/proc/mounts").read_text(errors="replace")
    folder, found = path.resolve(), (0, "")
    for line in (mounts or "").splitlines():
        _, at, kind, *_ = [*line.split(), "", "", ""]
        if at and folder.is_relative_to(at.replace("\\040", " ")):
            found = max(found, (len(at), kind))
    return found[1] or None
