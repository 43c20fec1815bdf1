"""docs/guides/redis.md and rabbitmq.md, followed literally: their files, their services, their commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
import requests

from framelane_celery.testing import FramelaneServer
from scripts.check_servers import SERVERS
from tests.docs_followed.pages import DOCS
from tests.docs_followed.reader import Reader, fresh_environ
from tests.docs_followed.services import Services, Unit
from tests.room.stores import own_schema
from tests.room.test_servers import free_port
from tests.worker.stacks import wait_for

URLS = {server.name: server.url for server in SERVERS}
GUIDES = DOCS / "guides"
DATABASE_URL = "postgresql+psycopg://shop:only-for-this-page@localhost/shop"
JOB_S = 4.0
"""Longer than a restart takes, so that jobs are waited for meanwhile."""

pytestmark = [pytest.mark.worker, pytest.mark.timeout(900)]


@pytest.fixture
def api() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=JOB_S) as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """In place of the machine's `/`."""
    for folder in ("srv/shop", "etc/shop", "etc/systemd/system", "etc/redis", "var/redis"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def in_place(root: Path, api: FramelaneServer) -> dict[str, str]:
    """What is elsewhere here. The key is the local server's, so its address is named beside it."""
    return {
        "/srv/shop": f"{root}/srv/shop",
        "/etc/": f"{root}/etc/",
        "FRAMELANE_API_KEY=fl_live_…": f"FRAMELANE_API_KEY={api.api_key}\nFRAMELANE_BASE_URL={api.base_url}",
    }


def unit_of(root: Path, environ: Mapping[str, str], name: str) -> Unit:
    """What the page has put into systemd's folder."""
    return Unit(root / f"etc/systemd/system/{name}.service", environ, root / f"{name}.log")


class RedisServer:
    """A Redis of the test's own, whose configuration is the page's."""

    def __init__(self, conf: Path, port: int) -> None:
        self._conf, self._port = conf, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(["redis-server", str(self._conf)], stdout=subprocess.DEVNULL)
        with redis.Redis(port=self._port) as client:
            wait_for(lambda: self._answers(client), what="Redis answers")

    def _answers(self, client: redis.Redis) -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        except redis.BusyLoadingError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)


def follow(reader: Reader, services: Services, api: FramelaneServer, jobs: int) -> None:
    """To the end; and what the page claims of jobs."""
    reader.others = {"sudo systemctl ": services.systemctl, "sudo journalctl ": services.journalctl}
    for section in ("The server", "The project", "The worker", "Check it"):
        reader.follow(section)
    reader.pass_over("What a restart does")
    assert reader.is_through
    counts = requests.get(f"{api.base_url}/_ledger?entries=0", timeout=30).json()["counts"]
    assert counts["jobs"] == jobs


def test_on_redis(root: Path, api: FramelaneServer, wheel: dict[str, str]) -> None:
    port = free_port()
    conf = root / "etc/redis/redis.conf"
    conf.write_text(f"port {port}\nbind 127.0.0.1\ndir {root}/var/redis\n")  # what Debian's has, and the page leaves
    environ = fresh_environ(**wheel)
    services = Services(partial(unit_of, root, environ), redis_server=RedisServer(conf, port))
    instead = {**in_place(root, api), "redis://localhost:6379/0": f"redis://127.0.0.1:{port}/0"}
    try:
        with Reader(GUIDES / "redis.md", root, environ, instead) as reader:
            follow(reader, services, api, jobs=2)
    finally:
        services.stop_all()


@pytest.fixture
def rabbitmq() -> Iterator[str]:
    """The name of a virtual host, a user and a database's schema of the test's own, which the page's commands make."""
    if shutil.which("rabbitmqctl", path=f"{os.environ['PATH']}:/usr/sbin") is None or os.geteuid() != 0:
        pytest.skip("rabbitmqctl is missing, or may not be used: be root on RabbitMQ's own host")
    name = f"shop-{uuid4().hex[:8]}"
    yield name
    for what in ("delete_vhost", "delete_user"):
        subprocess.run(["rabbitmqctl", what, name], check=True, capture_output=True, timeout=60, env=fresh_environ())


@pytest.fixture
def database(rabbitmq: str) -> Iterator[str]:
    """A schema of that name, as the database that the page's SQL makes; its URL."""
    with own_schema(URLS["PostgreSQL"], rabbitmq.replace("-", "_")) as url:
        yield url


def makes_what_the_worker_uses(statements: str) -> None:
    """Not run, for a test's user may make no roles: held against the URL that the page gives the worker."""
    url = urlsplit(DATABASE_URL)
    assert statements.splitlines() == [
        f"CREATE ROLE {url.username} LOGIN PASSWORD '{url.password}';",
        f"CREATE DATABASE {url.path[1:]} OWNER {url.username};",
    ]


def test_on_rabbitmq(root: Path, api: FramelaneServer, wheel: dict[str, str], rabbitmq: str, database: str) -> None:
    environ = fresh_environ(**wheel)
    services = Services(partial(unit_of, root, environ))
    server = urlsplit(URLS["RabbitMQ"])
    instead = {
        **in_place(root, api),
        "add_vhost shop": f"add_vhost {rabbitmq}",
        "add_user shop": f"add_user {rabbitmq}",
        "-p shop shop ": f"-p {rabbitmq} {rabbitmq} ",
        "-p shop ": f"-p {rabbitmq} ",
        "amqp://shop:only-for-this-page@localhost:5672/shop": (
            f"amqp://{rabbitmq}:only-for-this-page@{server.hostname}:{server.port or 5672}/{rabbitmq}"
        ),
        DATABASE_URL: database,
        "sudo rabbitmqctl": "rabbitmqctl",
    }
    try:
        with Reader(GUIDES / "rabbitmq.md", root, environ, instead) as reader:
            reader.languages["sql"] = makes_what_the_worker_uses
            follow(reader, services, api, jobs=4)
    finally:
        services.stop_all()
