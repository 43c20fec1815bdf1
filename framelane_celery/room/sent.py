"""A command of Redis in two halves: it is sent now, and its answer is read later."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any, Final

from redis import ConnectionPool
from redis.exceptions import ConnectionError, RedisError

_ASKS_FOR_COMMAND: Final = (
    signature(ConnectionPool.get_connection).parameters["command_name"].default is Parameter.empty
)
_FOR_THE_POOL: Final = ("EVALSHA",) if _ASKS_FOR_COMMAND else ()
"""redis-py before 5.3 wants to hear a command's name, to no end; later ones warn of whoever says it."""


class Sent:
    """A command on a connection of its own, out of the client's pool, until its answer is read or given up.

    Raises what the pool raises, which has tried again by itself. What goes wrong later is raised by `answer`.
    Source: redis-py's ``Redis.execute_command``, which does both halves at once.
    """

    def __init__(self, client: Any, *command: Any) -> None:  # redis-py leaves connections untyped
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection(*_FOR_THE_POOL)
        try:
            self._connection.send_command(*command)
        except BaseException as error:
            self.give_up()
            if not isinstance(error, (RedisError, OSError)):
                raise

    def answer(self) -> Any:
        """Read it, once. Raises: RedisError, OSError."""
        if self._connection is None:
            raise ConnectionError("not sent")
        try:
            answer = self._connection.read_response()
        except BaseException:
            self.give_up()
            raise
        connection, self._connection = self._connection, None
        self._pool.release(connection)
        return answer

    def give_up(self) -> None:
        """Close the connection, unless the answer has been read: whoever gets it next must not get that."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)
