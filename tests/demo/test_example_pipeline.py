"""examples/pipeline as its README says, on Redis and on RabbitMQ, under names of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import redis
import requests
from celery import Celery
from sqlalchemy import create_engine, text

from tests.demo.processes import process, said
from tests.worker.stacks import AMQP, POSTGRES, REDIS

pytestmark = [pytest.mark.worker, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pipeline"
BROKER, BACKEND = f"{REDIS}/10", f"{REDIS}/11"
PSYCOPG = POSTGRES.replace("postgresql://", "postgresql+psycopg://")

STACKS = {
    "redis": ("settings_redis", {"REDIS_URL": BROKER}),
    "rabbitmq, results and room on redis": ("settings_rabbitmq", {"AMQP_URL": AMQP, "RESULT_BACKEND": BACKEND}),
    "rabbitmq, results and room on postgresql": (
        "settings_rabbitmq",
        {"AMQP_URL": AMQP, "RESULT_BACKEND": f"db+{PSYCOPG}"},
    ),
}

OWN_NAMES = """
from {settings} import *

task_default_queue = "{name}"
result_expires = 300
framelane = {{**framelane, "namespace": "{name}"}}
"""


@pytest.fixture
def name() -> Iterator[str]:
    """The queue's and the namespace's name; nothing of it stays behind."""
    name = f"fl-example-{uuid4().hex[:10]}"
    yield name
    with suppress(Exception), Celery(broker=AMQP, set_as_current=False).connection_for_write() as connection:
        for queue in (name, f"{name}.retry"):
            connection.default_channel.queue_delete(queue)
            connection.default_channel.exchange_delete(queue)
    for url in (BROKER, BACKEND):
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"*{name}*", count=1000):
                client.delete(key)
    engine = create_engine(PSYCOPG)
    for table in ("framelane_records", "framelane_room"):
        with suppress(Exception), engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {table} WHERE namespace = :name"), {"name": name})
    engine.dispose()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """`framelane-celery serve`, and the environment that it prints."""
    log, env = tmp_path / "serve.log", {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    program = "from framelane_celery.cli import main; main()"
    arguments = ("serve", "--port", "0", "--job-seconds", "2")
    with process(sys.executable, "-c", program, *arguments, cwd=tmp_path, env=env, log=log):
        exported = said(log, r"export (FRAMELANE_API_KEY=\S+ FRAMELANE_BASE_URL=\S+)\n")[1]
        yield dict(pair.split("=", 1) for pair in exported.split())


@pytest.mark.parametrize("stack", STACKS)
def test_both_pipelines_run_to_their_end(stack: str, name: str, served: dict[str, str], tmp_path: Path) -> None:
    settings, urls = STACKS[stack]
    (tmp_path / "own_names.py").write_text(OWN_NAMES.format(settings=settings, name=name))
    env = {**os.environ, **urls, **served, "PIPELINE_SETTINGS": "own_names"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(EXAMPLE), str(ROOT)])
    worker_log = tmp_path / "worker.log"
    worker = ("celery", "-A", "celery_app", "worker", "-c", "1", "-n", f"{name}@test", "-l", "INFO")
    with process(sys.executable, "-m", *worker, cwd=tmp_path, env=env, log=worker_log):
        said(worker_log, r" ready\.")
        submit = [sys.executable, str(EXAMPLE / "submit.py"), "sneaker"]
        ran = subprocess.run(submit, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr + worker_log.read_text()[-3000:]
    assert "transcribe         PROGRESS" in ran.stdout
    assert "catalogue          SUCCESS" in ran.stdout
    published = tmp_path / "published"
    sizes = {f"sneaker-{size}.mp4" for size in ("wide", "square", "story", "thumbnail")}
    assert {path.name for path in published.iterdir()} == {
        *sizes,
        "sneaker.mp4",
        "sneaker.json",
        "sneaker.catalogue.json",
    }
    assert set(json.loads((published / "sneaker.catalogue.json").read_text())) == sizes
    counts = requests.get(f"{served['FRAMELANE_BASE_URL']}/_ledger?entries=0", timeout=30).json()["counts"]
    assert counts["jobs"] == counts["posts"] == 6


def test_its_readme_names_every_file() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    assert all(f"`{path.name}`" in readme for path in EXAMPLE.glob("*.py"))
