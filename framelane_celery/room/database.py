"""How the SQL room gets to its database: engine, tables, transactions, clock, errors. Nothing here knows a record.

PostgreSQL for production; SQLite (write-ahead log) for one host, the demo and tests. The tables are made by whoever
comes first, if they are missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from framelane_celery.errors import RoomError, SettingsError
from framelane_celery.room import Removed

_T = TypeVar("_T")

_TIMEOUT_S: Final = 5
_BUSY_TIMEOUT_S: Final = 10

metadata = sa.MetaData()

records = sa.Table(
    "framelane_records",
    metadata,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("until", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("due_at", sa.Double),
    sa.Column("lane", sa.Text),
    # The place in the lane: the due time, or later for a record of another format, whose own columns stay as they are.
    sa.Column("lane_at", sa.Double),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("job_id", sa.Text),  # only while the record waits for the job
    sa.Column("expires_at", sa.Double),  # of what may be forgotten
    sa.Column("call", sa.Text, nullable=False),
    sa.Column("request", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
)
sa.Index("framelane_records_lane", records.c.namespace, records.c.lane, records.c.lane_at)
sa.Index("framelane_records_job", records.c.namespace, records.c.job_id)
sa.Index("framelane_records_age", records.c.namespace, records.c.created_at, records.c.id)

room = sa.Table(
    "framelane_room",
    metadata,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    # lead, its owner; revoke:<mark>, nothing; and JSON of rules.py: slots:<bucket>, hold:<account>,
    # spent:<account>:<day>, the day counted from 1970, UTC.
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False, default=0),
    sa.Column("expires_at", sa.Double, nullable=False, default=0.0),
)


class Database:
    """One process's way to the database: a pool of connections, shared by its threads."""

    def __init__(self, engine: Engine) -> None:
        self.clock = _clock_of(engine)
        self.insert = _insert_of(engine)
        self._engine = engine
        self._reader = _reader_of(engine)
        self._is_sqlite = engine.dialect.name == "sqlite"
        # Threads of one process take turns here instead of in SQLite's busy loop, which knows no order.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self._is_sqlite else nullcontext()
        self._making = threading.Lock()
        self._is_made = False

    @classmethod
    def from_url(cls, url: str) -> Database:
        """Raises: SettingsError. Nothing is connected yet."""
        return cls(_engine_of(url))

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """Run statements that change nothing. Raises: RoomError, as `write` does."""
        return self._run(self._reader, work)

    def write(self, work: Callable[[Connection], _T], *, is_alone: bool = False) -> _T:
        """Run a transaction; ``is_alone``: it is one statement, which is a transaction of its own."""
        with self._turn:
            return self._run(self._reader if is_alone and not self._is_sqlite else self._engine, work)

    def remove(self, namespace: str) -> Removed:
        """Delete a namespace's rows, and drop the tables if none of another one are in them. Makes no table.

        Raises: RoomError.
        """
        with self._turn, self._reaching(), self._making:
            with self._engine.begin() as connection:
                there = [table for table in metadata.sorted_tables if sa.inspect(connection).has_table(table.name)]
                self._take_time(connection)
                mine = [sa.delete(table).where(table.c.namespace == namespace) for table in there]
                rows = sum(connection.execute(delete).rowcount for delete in mine)
            with self._engine.begin() as connection:
                kept = self._why_kept(connection, there)
                if kept is None:
                    metadata.drop_all(connection, tables=there)
                    self._is_made = False
        tables = tuple(table.name for table in there) if kept is None else ()
        return Removed(rows, tables, kept)

    def _take_time(self, connection: Connection) -> None:
        """A million rows take longer to delete than any other statement may take."""
        if not self._is_sqlite:
            connection.execute(sa.text("SET LOCAL statement_timeout = '10min'"))

    def _why_kept(self, connection: Connection, there: Sequence[sa.Table]) -> str | None:
        """Why tables must stay; None: nobody needs them, and nobody can write into them until the transaction ends."""
        if there and not self._is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('framelane_celery'))"))
            names = ", ".join(table.name for table in there)
            connection.execute(sa.text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
        if any(connection.execute(sa.select(table.c.namespace).limit(1)).first() for table in there):
            return "other namespaces have rows in them"
        if there and sa.inspect(connection).has_table("django_migrations"):
            made = sa.text("SELECT 1 FROM django_migrations WHERE app = 'framelane' LIMIT 1")
            if connection.execute(made).first():
                return "Django's migrations made them: manage.py migrate framelane zero"
        return None

    def close(self) -> None:
        self._engine.dispose()

    def _run(self, engine: Engine, work: Callable[[Connection], _T]) -> _T:
        ends_at = time.monotonic() + _BUSY_TIMEOUT_S
        with self._reaching():
            self._make_tables_once()
            while True:
                try:
                    with engine.begin() as connection:
                        return work(connection)
                except OperationalError as error:
                    # Some of SQLite's locks do not wait for the busy timeout (recovery of the log, a checkpoint).
                    if not (self._is_sqlite and "locked" in str(error.orig)) or time.monotonic() > ends_at:
                        raise
                    time.sleep(0.01)

    def _make_tables_once(self) -> None:
        if not self._is_made:
            with self._making:
                if not self._is_made:
                    _make_tables(self._engine)
                    self._is_made = True

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever goes wrong between us and the database is a RoomError, and shows neither a password nor a value."""
        try:
            yield
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            text = ""
            if isinstance(error, (OperationalError, InterfaceError)):  # others may quote what we stored
                text = ": " + " ".join(str(cause).split())[:300]
            password = str(self._engine.url.password or "")
            text = text.replace(password, "…") if password else text
            self._is_made = False  # look again: perhaps another namespace has left and taken the tables along
            raise RoomError(f"the room in SQL: {type(cause).__name__}{text}") from None


def _engine_of(url: str) -> Engine:
    """Make the engine: pooled, with timeouts, and without parameters (bytes of requests) in any error.

    Raises: SettingsError. Nothing is connected yet.
    """
    try:
        parsed = _with_driver(make_url(url))
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        return _postgresql(parsed)
    except ImportError as error:
        raise SettingsError(
            f"room_url: the database driver {error.name} is not installed: pip install 'framelane-celery[postgresql]'"
        ) from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise SettingsError(f"room_url: not a usable database URL ({type(error).__name__})") from None


def _with_driver(url: URL) -> URL:
    """Plain ``postgresql://`` means psycopg 3, unless only psycopg2 is there, whatever SQLAlchemy's release prefers."""
    if url.drivername != "postgresql":
        return url
    driver = "psycopg2" if find_spec("psycopg2") and not find_spec("psycopg") else "psycopg"
    return url.set(drivername=f"postgresql+{driver}")


def _postgresql(url: URL) -> Engine:
    limits: dict[str, Any] = {"connect_timeout": _TIMEOUT_S, "tcp_user_timeout": _TIMEOUT_S * 1000}
    # A pooler between us and the server may have to be told to let this pass (pgbouncer: ignore_startup_parameters).
    ours = f"-c statement_timeout={_TIMEOUT_S * 1000} -c idle_in_transaction_session_timeout=30000"
    given = url.query.get("options", "")  # a search_path, say; what is given comes last, and wins
    limits["options"] = " ".join([ours, given if isinstance(given, str) else " ".join(given)]).strip()
    kept = url.difference_update_query(["options"])
    return sa.create_engine(
        kept,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in limits.items() if name not in kept.query},
        pool_pre_ping=True,
        pool_timeout=_TIMEOUT_S,
        pool_recycle=1800,
        hide_parameters=True,
    )


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise SettingsError("room_url: SQLite in memory is not shared between processes; write sqlite:///file")
    engine = sa.create_engine(
        url,
        connect_args={"timeout": _BUSY_TIMEOUT_S},
        pool_timeout=_BUSY_TIMEOUT_S,
        max_overflow=50,  # a connection is a file handle; whoever writes waits for the others anyway
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so, below
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later would fail at once if another one wrote in between.
        reads = connection.get_execution_options().get("framelane_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _reader_of(engine: Engine) -> Engine:
    """The same pool, for statements that stand alone: no round trips for BEGIN and COMMIT, no lock on SQLite."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(framelane_reads=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _clock_of(engine: Engine) -> sa.ColumnElement[float]:
    """The database's clock as epoch seconds: of the moment, not of the transaction's begin."""
    if engine.dialect.name == "sqlite":  # milliseconds; unixepoch('subsec') would need SQLite 3.42
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double)
    return sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Double)


def _insert_of(engine: Engine) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT."""
    return sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert


def _make_tables(engine: Engine) -> None:
    """Make what is missing. Safe when several processes come first at once."""
    if engine.dialect.name == "sqlite":
        _use_wal(engine)
    inspector = sa.inspect(engine)
    if all(inspector.has_table(name) for name in metadata.tables):
        return
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('framelane_celery'))"))
        metadata.create_all(connection)


def statements(dialect: str, *, drop: bool = False) -> list[str]:
    """The DDL that makes the tables, or drops them, for whoever runs migrations of their own; safe where they are there
    (or gone) already. ``dialect``: postgresql or sqlite."""
    known = {"postgresql": postgresql.dialect, "sqlite": sqlite.dialect}[dialect]()
    if drop:
        ddl: list[Any] = [DropTable(table, if_exists=True) for table in reversed(metadata.sorted_tables)]
    else:
        ddl = [CreateTable(table, if_not_exists=True) for table in metadata.sorted_tables]
        indexes = [index for table in metadata.sorted_tables for index in table.indexes]
        ddl += [CreateIndex(index, if_not_exists=True) for index in sorted(indexes, key=lambda index: str(index.name))]
    return [str(one.compile(dialect=known)).strip() for one in ddl]


def _use_wal(engine: Engine) -> None:
    """Write-ahead log: readers and the writer don't wait for each other. Kept in the file, so set once.

    The change itself fails at once, whatever the busy timeout, while another process has the new file open.
    """
    ends_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        connection = engine.raw_connection()
        try:
            if connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
                return
        except engine.dialect.loaded_dbapi.OperationalError as error:
            if time.monotonic() > ends_at:
                raise OperationalError("PRAGMA journal_mode=WAL", None, error) from error
        finally:
            connection.close()
        time.sleep(0.02)
