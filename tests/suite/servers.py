"""Servers of our own, on ports of their own, which may be killed and emptied. What they were told is on disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import kombu
import redis

from tests.worker.stacks import wait_for

START_S = 120.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class OwnServer:
    """A process that is killed and started again on the same data. Use it as a context manager."""

    url: str

    def __init__(self, folder: Path, command: list[str], env: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._command, self._env = folder, command, env
        self._process: subprocess.Popen[bytes] | None = None

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with (self._folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, **self._env},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        wait_for(self.answers, START_S, f"{self._command[0]} answers", every_s=0.1)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def __enter__(self) -> OwnServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class OwnRedis(OwnServer):
    """Every write is on disk before it is answered."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "yes", "appendfsync": "always"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        super().__init__(folder, ["redis-server", *words], {})

    def answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def empty(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushdb()


class OwnRabbit(OwnServer):
    """A node of its own, beside whatever runs already; its queues and messages are kept."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plugins").write_text("[].\n")
        env = {
            "HOME": str(folder),  # of the cookie
            "RABBITMQ_NODENAME": f"suite{port}@localhost",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }
        super().__init__(folder, [_rabbitmq_server()], env)

    def answers(self) -> bool:
        connection = kombu.Connection(self.url, connect_timeout=1)
        try:
            connection.connect()
        except (OSError, *connection.connection_errors):
            return False
        connection.release()
        return True


def _rabbitmq_server() -> str:
    """Debian's own script beside the one on the PATH changes user; the one behind it does not."""
    behind = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return str(behind) if behind.exists() else "rabbitmq-server"


def make_broker(transport: str, folder: Path) -> OwnServer:
    make: Callable[[Path], OwnServer] = OwnRedis if transport == "redis" else OwnRabbit
    return make(folder / "broker")
