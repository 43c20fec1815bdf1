"""Our own client of Redis, and a command of it in two halves: sent now, its answer read later."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from framelane_celery.errors import SettingsError

try:
    from redis import ConnectionPool, Redis
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import (
        ConnectionError,
        NoScriptError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TimeoutError,
    )
    from redis.retry import Retry
    from redis.sentinel import Sentinel
except ImportError as error:
    raise SettingsError("room_url: a room on Redis needs redis-py: pip install 'framelane-celery[redis]'") from error

__all__ = ["REPEATED", "ReadOnlyError", "RedisError", "Sent", "client_of"]

_TIMEOUT_S: Final = 5.0

_ASKED: Final = signature(ConnectionPool.get_connection).parameters["command_name"].default is Parameter.empty
REPEATED: Final = (ConnectionError, TimeoutError, NoScriptError, OSError)
"""After which a command is sent once more: nobody knows whether it has arrived, or the server has lost its script."""

_FOR_THE_POOL: Final = ("EVALSHA",) if _ASKED else ()
"""redis-py before 5.3 wants to hear a command's name, to no end; later ones warn of whoever says it."""


def client_of(url: str, options: Mapping[str, Any]) -> Redis:
    settings: dict[str, Any] = {
        "socket_timeout": _TIMEOUT_S,
        "socket_connect_timeout": _TIMEOUT_S,
        "health_check_interval": 30,
        # redis-py 8 has 100, and raises where a process has more threads than that; a limit in the URL counts.
        "max_connections": 2**31,
        # Once more at once, for connections that the server has closed; a write that is sent twice counts once.
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.05), 1),
        "retry_on_error": [ConnectionError, TimeoutError],  # redis-py 5 asks for it
        "protocol": 2,
    }
    try:
        if url.startswith("sentinel:"):
            return _sentinel_client(url, options, settings | ({"ssl": True, **tls} if (tls := _tls(options)) else {}))
        if url.startswith("rediss:"):
            settings |= _tls(options)
        return Redis.from_url(_with_celery_flags(url), **settings)
    except (ValueError, RedisError) as error:
        raise SettingsError(f"room_url: not a usable Redis URL ({type(error).__name__})") from None


def _tls(options: Mapping[str, Any]) -> dict[str, Any]:
    """Redis' part of ``broker_use_ssl``; RabbitMQ's names have no ``ssl_`` in front."""
    flags = options.get("ssl")
    return {n: value for n, value in flags.items() if n.startswith("ssl_")} if isinstance(flags, Mapping) else {}


def _with_celery_flags(url: str) -> str:
    """Celery writes ``ssl_cert_reqs=CERT_REQUIRED``, redis-py ``required``."""
    parts = urlsplit(url)
    query = [
        (name, value.removeprefix("CERT_").lower() if name == "ssl_cert_reqs" else value)
        for name, value in parse_qsl(parts.query)
    ]
    return parts._replace(query=urlencode(query)).geturl()


def _sentinel_client(url: str, options: Mapping[str, Any], settings: dict[str, Any]) -> Redis:
    """Celery's form of several Sentinels; user and password in it are the master's, as kombu has it.

    Source: kombu/transport/redis.py, SentinelChannel.
    """
    parts = [urlsplit(part if "://" in part else f"sentinel://{part}") for part in url.split(";") if part]
    query = {name: value for part in parts for name, value in parse_qsl(part.query)}
    master_name = query.get("master_name") or options.get("master_name")
    if not master_name:
        raise SettingsError(
            "room_url: Sentinel needs the master's name:"
            " broker_transport_options = {'master_name': …}, or ?master_name=… in the URL"
        )
    for name in ("username", "password"):
        value = next((value for part in parts if (value := getattr(part, name))), None)
        settings |= {name: unquote(value)} if value else {}
    database = next((part.path.strip("/") for part in parts if part.path.strip("/")), "0")
    sentinels = [(part.hostname or "localhost", part.port or 26379) for part in parts]
    timeouts = {name: settings[name] for name in ("socket_timeout", "socket_connect_timeout")}
    make_sentinel: Any = Sentinel  # redis-py leaves it untyped
    sentinel = make_sentinel(sentinels, sentinel_kwargs=timeouts | dict(options.get("sentinel_kwargs") or {}))
    master: Redis = sentinel.master_for(str(master_name), db=int(database), **settings)
    return master


class Sent:
    """A command on a connection of its own, out of the client's pool, until its answer is read or given up.

    Whoever makes one gives it up at the end, whatever happens.
    Source: redis-py's ``Redis.execute_command``, which does both halves at once.
    """

    def __init__(self, client: Any) -> None:  # redis-py leaves connections untyped
        self._pool = client.connection_pool
        self._connection: Any = None

    def send(self, *command: Any) -> None:
        """Raises what the pool raises, which has tried again by itself; what goes wrong later is raised by `answer`."""
        self._connection = self._pool.get_connection(*_FOR_THE_POOL)
        try:
            self._connection.send_command(*command)
        except (RedisError, OSError):
            self.give_up()

    def answer(self) -> Any:
        """Read it, once. Raises: RedisError, OSError."""
        if self._connection is None:
            raise ConnectionError("not sent")
        try:
            answer = self._connection.read_response()
        except ResponseError:  # an answer, too
            self._give_back()
            raise
        except BaseException:
            self.give_up()
            raise
        self._give_back()
        return answer

    def give_up(self) -> None:
        """Close the connection, unless the answer has been read: whoever gets it next must not get that."""
        if self._connection is not None:
            self._connection.disconnect()
            self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        self._pool.release(connection)
