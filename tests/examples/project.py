"""examples/pipelines as a project of a test's own: names, a folder, a worker, and the commands of its READMEs."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from sqlalchemy import create_engine, text

from framelane_celery.testing import FramelaneServer
from tests.demo.processes import process, said
from tests.worker.stacks import AMQP, POSTGRES, REDIS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "pipelines"
TRANSPORTS = {"redis": f"{REDIS}/10", "rabbitmq": AMQP}
RESULTS = f"{REDIS}/11"
PSYCOPG = POSTGRES.replace("postgresql://", "postgresql+psycopg://")

OWN_NAMES = """
from settings import *

task_default_queue = "{name}"
result_expires = 300
result_backend_transport_options = {{"global_keyprefix": "{name}"}}  # ids are the same in each test
rates = dict.fromkeys(("renders_per_minute", "media_tasks_per_minute", "reads_per_minute"), 100000)
framelane = {{**framelane, **rates, "namespace": "{name}", **{more}}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Project:
    """The examples, run in a folder, under names of their own."""

    def __init__(
        self, transport: str, folder: Path, server: FramelaneServer, results: str = RESULTS, **framelane: Any
    ) -> None:
        self.name = f"fl-pipelines-{uuid4().hex[:10]}"
        self.folder, self.server = folder, server
        (folder / "own_names.py").write_text(OWN_NAMES.format(name=self.name, more=framelane))
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(EXAMPLES), str(ROOT)]),
            "PIPELINES_SETTINGS": "own_names",
            "BROKER_URL": TRANSPORTS[transport],
            "RESULT_BACKEND": results,
            "MAIL_PORT": str(free_port()),
            "FRAMELANE_API_KEY": server.api_key,
            "FRAMELANE_BASE_URL": server.base_url,
        }

    @contextmanager
    def worker(self, log_name: str = "worker") -> Iterator[subprocess.Popen[bytes]]:
        """The worker of the README, in a process group of its own, ready."""
        log = self.folder / f"{log_name}.log"
        command = shlex.split("celery -A celery_app worker --concurrency 2 -l INFO --without-mingle -n")
        node = f"{log_name}@{self.name}"
        with process(sys.executable, "-m", *command, node, cwd=self.folder, env=self.env, log=log) as worker:
            said(log, r" ready\.")
            yield worker

    def python(self, *arguments: str) -> list[str]:
        return [sys.executable, *arguments]

    def run(self, *command: str, timeout_s: float = 110) -> str:
        """What a command prints. Fails if it fails."""
        done = subprocess.run(
            self.python(*command), cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout_s
        )
        logs = "".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout

    def clean(self) -> None:
        with suppress(Exception), Celery(broker=AMQP, set_as_current=False).connection_for_write() as connection:
            for queue in (self.name, f"{self.name}.retry", f"{self.name}.dead"):
                connection.default_channel.queue_delete(queue)
                connection.default_channel.exchange_delete(queue)
        for url in (TRANSPORTS["redis"], RESULTS):
            with redis.Redis.from_url(url) as client:
                for key in client.scan_iter(f"*{self.name}*", count=1000):
                    client.delete(key)
        engine = create_engine(PSYCOPG)
        for table in ("framelane_records", "framelane_room"):
            with suppress(Exception), engine.begin() as connection:
                connection.execute(text(f"DELETE FROM {table} WHERE namespace = :name"), {"name": self.name})
        engine.dispose()


@contextmanager
def project(transport: str, folder: Path, server: FramelaneServer, **framelane: Any) -> Iterator[Project]:
    """A project that leaves nothing behind."""
    made = Project(transport, folder, server, **framelane)
    try:
        yield made
    finally:
        made.clean()


def commands(pipeline: str) -> list[list[str]]:
    """The arguments of each `$ python …` that a README shows."""
    readme = (EXAMPLES / pipeline / "README.md").read_text()
    shown = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)
    return [shlex.split(line)[2:] for block in shown for line in block.splitlines() if line.startswith("$ python ")]


def bodies(server: FramelaneServer) -> list[dict[str, Any]]:
    """What was asked for, in its order."""
    return [json.loads(post.body) for post in server.ledger.posts() if post.is_new_job]
