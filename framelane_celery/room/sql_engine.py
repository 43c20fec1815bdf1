"""How the SQL room gets to its database: tables, engine, clock. PostgreSQL for production; SQLite for one host.

The tables are made by whoever comes first, if they are missing.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from framelane_celery.errors import SettingsError

TIMEOUT_S: Final = 5
BUSY_TIMEOUT_S: Final = 10

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
    sa.Column("name", sa.Text, primary_key=True),  # lead, slots:<bucket>, revoke:<mark>
    sa.Column(
        "value", sa.Text, nullable=False
    ),  # the owner; JSON {"taken": [instants], "brake_until": instant}; nothing
    sa.Column("token", sa.BigInteger, nullable=False, default=0),
    sa.Column("expires_at", sa.Double, nullable=False, default=0.0),
)


def engine_of(url: str) -> Engine:
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
    """Plain ``postgresql://`` means psycopg 3, unless only psycopg2 is there."""
    if url.drivername == "postgresql" and (find_spec("psycopg") or not find_spec("psycopg2")):
        return url.set(drivername="postgresql+psycopg")
    return url


def _postgresql(url: URL) -> Engine:
    limits: dict[str, Any] = {"connect_timeout": TIMEOUT_S, "tcp_user_timeout": TIMEOUT_S * 1000}
    # A pooler between us and the server may have to be told to let this pass (pgbouncer: ignore_startup_parameters).
    limits["options"] = f"-c statement_timeout={TIMEOUT_S * 1000} -c idle_in_transaction_session_timeout=30000"
    return sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in limits.items() if name not in url.query},
        pool_pre_ping=True,
        pool_timeout=TIMEOUT_S,
        pool_recycle=1800,
        hide_parameters=True,
    )


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise SettingsError("room_url: SQLite in memory is not shared between processes; write sqlite:///file")
    engine = sa.create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_timeout=BUSY_TIMEOUT_S,
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


def reader_of(engine: Engine) -> Engine:
    """The same pool, for statements that stand alone: no round trips for BEGIN and COMMIT, no lock on SQLite."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(framelane_reads=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def clock_of(engine: Engine) -> sa.ColumnElement[float]:
    """The database's clock as epoch seconds: of the moment, not of the transaction's begin."""
    if engine.dialect.name == "sqlite":  # milliseconds; unixepoch('subsec') would need SQLite 3.42
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double)
    return sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Double)


def insert_of(engine: Engine) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT."""
    return sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert


def make_tables(engine: Engine) -> None:
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


def _use_wal(engine: Engine) -> None:
    """Write-ahead log: readers and the writer don't wait for each other. Kept in the file, so set once.

    The change itself fails at once, whatever the busy timeout, while another process has the new file open.
    """
    ends_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        connection = engine.raw_connection()
        try:
            if connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal":
                return
        except engine.dialect.dbapi.OperationalError as error:
            if time.monotonic() > ends_at:
                raise OperationalError("PRAGMA journal_mode=WAL", None, error) from error
        finally:
            connection.close()
        time.sleep(0.02)
