"""Say plainly which of the test suite's servers cannot be used, and how to get them; exit 1 if any.

`make test` runs it first, so that no test is skipped for want of a server. The addresses and their defaults stand here
only: tests ask SERVERS for them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S = 3


class Server(NamedTuple):
    name: str
    variable: str
    default_url: str
    packages: str
    start: str
    example_url: str
    connect: Callable[[str], None]
    user: str | None = None

    @property
    def url(self) -> str:
        return os.environ.get(self.variable) or self.default_url


def connect_redis(url: str) -> None:
    import redis

    with redis.Redis.from_url(url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S) as client:
        client.ping()


def connect_rabbitmq(url: str) -> None:
    import kombu

    with kombu.Connection(url, connect_timeout=TIMEOUT_S) as connection:
        connection.connect()


def connect_postgresql(url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": TIMEOUT_S})
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TEMPORARY TABLE framelane_may_create (id integer)"))
    finally:
        engine.dispose()


SERVERS = (
    Server(
        name="Redis",
        variable="FRAMELANE_TEST_REDIS_URL",
        default_url="redis://127.0.0.1:6379/0",
        packages="redis-server",
        start="redis-server --daemonize yes --bind 127.0.0.1",
        example_url="redis://:password@host:6379/0",
        connect=connect_redis,
    ),
    Server(
        name="RabbitMQ",
        variable="FRAMELANE_TEST_AMQP_URL",
        default_url="amqp://guest:guest@127.0.0.1:5672//",
        packages="rabbitmq-server",
        start="service rabbitmq-server start",
        example_url="amqp://user:password@host:5672//",
        connect=connect_rabbitmq,
    ),
    Server(
        name="PostgreSQL",
        variable="FRAMELANE_TEST_POSTGRES_URL",
        default_url="postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
        packages="postgresql",
        start="service postgresql start",
        example_url="postgresql+psycopg://user:password@host:5432/database",
        connect=connect_postgresql,
        user="""sudo -u postgres psql -c "CREATE ROLE fl LOGIN PASSWORD 'fl'" -c "CREATE DATABASE fl OWNER fl\"""",
    ),
)


def reason_unusable(server: Server) -> str | None:
    """Connect, and say in one line why that failed."""
    try:
        server.connect(server.url)
    except Exception as error:  # noqa: BLE001 - whatever a client library raises is the answer
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return None


def without_password(url: str) -> str:
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def advice(server: Server, reason: str) -> str:
    user = f"    if it asks for a password:      {server.user}\n" if server.user else ""
    return (
        f"{server.name} cannot be used at {without_password(server.url)}\n"
        f"    {reason}\n"
        f"    to get it on Debian or Ubuntu:  apt-get install {server.packages}\n"
        f"    to start it:                    {server.start}\n"
        f"{user}"
        f"    to use this or another one:     export {server.variable}={server.example_url}\n"
    )


def main() -> int:
    missing = 0
    for server in SERVERS:
        reason = reason_unusable(server)
        if reason is None:
            continue
        missing += 1
        print(advice(server, reason), file=sys.stderr)
    if shutil.which("redis-server") is None:
        missing += 1
        print(
            "redis-server is not on the PATH; some tests start one of their own, to stop it and to fill it up\n"
            "    to get it on Debian or Ubuntu:  apt-get install redis-server\n",
            file=sys.stderr,
        )
    if missing:
        print(f"Tests need all of these; {missing} cannot be used. Nothing was run.", file=sys.stderr)
        return 1
    print("Redis, RabbitMQ and PostgreSQL answer.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
