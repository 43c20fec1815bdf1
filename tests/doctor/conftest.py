"""Apps whose deployments are sick in one way, and what `doctor` and `health` print about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from celery import Celery
from click.testing import CliRunner
from kombu import pools

from framelane_celery.cli.commands import framelane
from framelane_celery.doctor import visit
from framelane_celery.testing import FramelaneServer
from tests.room.test_servers import PrivateRedis

KEY = "fl_test_s3cretkey"
PASSWORD = "hunter2pw"
DEAD_PORT = 1
"""Nothing listens there."""


class Told(NamedTuple):
    """What a command printed."""

    exit_code: int
    text: str

    def findings(self, check: str | None = None) -> list[tuple[str, str]]:
        """Level and text, of `doctor --json`."""
        return [(f["level"], f["what"]) for f in json.loads(self.text) if check in (None, f["check"])]


@pytest.fixture(scope="session", autouse=True)
def _close_kombus_pools() -> Iterator[None]:
    yield
    pools.reset()


@pytest.fixture(autouse=True)
def _hurry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there to answer, so nobody is waited for."""
    if request.node.get_closest_marker("worker") is None:
        monkeypatch.setattr(visit, "INSPECT_S", 0.1)


@pytest.fixture
def unique() -> str:
    return uuid4().hex[:10]


@pytest.fixture(scope="module")
def api() -> Iterator[FramelaneServer]:
    with FramelaneServer(api_keys=(KEY,)) as server:
        yield server


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., PrivateRedis]]:
    """Servers of the test's own."""
    servers: list[PrivateRedis] = []

    def start(*options: str) -> PrivateRedis:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(PrivateRedis(folder, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def make_app(unique: str, api: FramelaneServer, tmp_path: Path) -> Iterator[Callable[..., Celery]]:
    """An app whose room is a file of the test's own, and whose broker is in memory, unless told otherwise."""
    apps: list[Celery] = []

    def make(framelane: dict[str, Any] | None = None, **conf: Any) -> Celery:
        app = Celery(f"doctor-{unique}", set_as_current=False)
        app.conf.update(
            {
                "broker_url": "memory://",
                "result_backend": f"db+sqlite:///{tmp_path}/results.db",
                "task_default_queue": f"fl-doctor-{unique}",
                **conf,
            }
        )
        room = f"sqlite:///{tmp_path}/room.db"
        app.conf.framelane = {"api_key": KEY, "base_url": api.base_url, "room_url": room, **(framelane or {})}
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def tell() -> Callable[..., Told]:
    """Run a command, as `celery -A proj framelane …` does. Whatever it prints, no secret is in it."""

    def run(app: Celery, *arguments: str) -> Told:
        answer = CliRunner().invoke(framelane, list(arguments), obj=SimpleNamespace(app=app, no_color=True))
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
        for secret in (KEY, PASSWORD):
            assert secret not in answer.output
        return Told(answer.exit_code, answer.output)

    return run
