"""Every Python snippet of the README is run, in its order, with a worker, against the local server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from celery import Celery

import framelane_celery
from framelane_celery.settings import settings_of
from framelane_celery.testing import FramelaneServer
from tests.demo.processes import process, said
from tests.docs.pages import texts
from tests.worker.stacks import REDIS

ROOT = Path(__file__).parents[2]
PACKAGE = Path(framelane_celery.__file__).parent  # elsewhere, where the wheel is tested
README = (ROOT / "README.md").read_text()
SHOP, SHELL, TEASER, SETTINGS = texts("README.md", "python")  # a fifth one fails here
BROKER = f"{REDIS}/10"

OWN_NAMES = """
app.conf.update(task_default_queue="{name}", result_expires=300)
app.conf.framelane = {{"namespace": "{name}"}}
"""


@pytest.fixture
def name() -> Iterator[str]:
    """The queue's and the namespace's name; nothing of it stays behind."""
    name = f"fl-readme-{uuid4().hex[:10]}"
    yield name
    with redis.Redis.from_url(BROKER) as client:
        for key in client.scan_iter(f"*{name}*", count=1000):
            client.delete(key)


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer() as server:
        yield server


@pytest.mark.worker
@pytest.mark.timeout(400)
def test_the_example_and_the_task_of_ones_own_run(server: FramelaneServer, name: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.replace("redis://localhost:6379/0", BROKER) + OWN_NAMES.format(name=name))
    (tmp_path / "teaser.py").write_text("import shop\n" + TEASER)
    (tmp_path / "shell.py").write_text(SHELL)
    (tmp_path / "more.py").write_text("from teaser import teaser\nprint(teaser.delay('boot').get(timeout=30))")
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "FRAMELANE_API_KEY": server.api_key,
        "FRAMELANE_BASE_URL": server.base_url,
    }
    log = tmp_path / "worker.log"
    worker = ("celery", "-A", "shop", "worker", "-c", "1", "-n", f"{name}@test", "-l", "INFO", "-I", "teaser")
    with process(sys.executable, "-m", *worker, cwd=tmp_path, env=env, log=log):
        said(log, r" ready\.")
        printed = [
            subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
            for script in ("shell.py", "more.py")
        ]
    assert printed[0].stdout == "sneaker.json\n", printed[0].stderr + log.read_text()[-3000:]
    assert '"text"' in (tmp_path / "sneaker.json").read_text()
    assert re.fullmatch(r"{'product': 'boot', 'job': 'render_\w+', 'seconds': \d.*}\n", printed[1].stdout), printed[1]
    counts = server.ledger.counts()
    assert counts["jobs"] == counts["posts"] == 3


def test_the_settings_are_known_and_the_shown_values_are_the_defaults() -> None:
    with Celery("shop", broker="redis://localhost:6379/1", set_as_current=False) as app:
        by_default = settings_of(app)
        exec(SETTINGS, {"app": app})
        assert settings_of(app) == by_default
        assert len(app.conf.framelane) == 14


def test_the_commands_it_names_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\$ make (\w+)$", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
