"""docs/guides/sqs.md: its settings, on a transport that has what SQS has. SQS itself is not reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from framelane_celery.testing import FramelaneServer
from scripts.check_servers import SERVERS
from tests.demo.processes import process, said
from tests.docs_followed.pages import DOCS, ROOT, blocks_of
from tests.docs_followed.terminals import commands_in, is_shown
from tests.room.stores import own_schema
from tests.worker.stacks import wait_for

PAGE = DOCS / "guides" / "sqs.md"
[SETTINGS] = [block.text for block in blocks_of(PAGE) if block.edit and block.edit.path == "celeryconfig.py"]
CHECK = [block for block in blocks_of(PAGE) if block.section == "Check it"]
POSTGRES = next(server.url for server in SERVERS if server.name == "PostgreSQL")

SHOP = """
from celery import Celery
import framelane_celery as framelane
app = Celery("shop")
app.config_from_object("celeryconfig")
text = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}
"""

pytestmark = [pytest.mark.worker, pytest.mark.timeout(300)]


@pytest.fixture
def database() -> Iterator[str]:
    """A schema of the test's own."""
    with own_schema(POSTGRES, f"sqs_{uuid4().hex[:10]}") as url:
        yield url


def on_files(folder: Path) -> str:
    """The page's settings, with files for SQS."""
    head, options, *rest = [line for line in SETTINGS.splitlines() if line.startswith("broker_")]
    assert head == 'broker_url = "sqs://"'
    assert options.startswith("broker_transport_options = ")
    assert rest == []
    for name in ("messages", "control"):
        (folder / name).mkdir()
    messages, control = str(folder / "messages"), str(folder / "control")
    ours = {"data_folder_in": messages, "data_folder_out": messages, "control_folder": control, "polling_interval": 0.1}
    transport = 'broker_url = "filesystem://"\nbroker_transport = "tests.docs_followed.direct_only:Transport"'
    return SETTINGS.replace(head, transport).replace(options, f"broker_transport_options = {ours}")


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=1) as server:
        yield server


def test_jobs_retries_cancelling_and_the_doctor(tmp_path: Path, database: str, server: FramelaneServer) -> None:
    (tmp_path / "celeryconfig.py").write_text(on_files(tmp_path))
    (tmp_path / "shop.py").write_text(SHOP)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "SHOP_DATABASE_URL": database,
        "FRAMELANE_API_KEY": server.api_key,
        "FRAMELANE_BASE_URL": server.base_url,
    }

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        return done.stdout

    def python(code: str) -> str:
        return run("-c", f"from shop import *; {code}").strip()

    log = tmp_path / "worker.log"
    words = ("celery", "-A", "shop", "worker", "-c", "2", "-n", "worker@shop", "-l", "INFO")
    with process(sys.executable, "-m", *words, cwd=tmp_path, env=env, log=log):
        said(log, r" ready\.")
        said(log, r"watching, token")
        assert python("print(framelane.render.delay(text).get(timeout=60)['status'])") == "completed"

        server.fail_next("internal")
        assert python("print(framelane.render.delay(text).get(timeout=60)['status'])") == "completed"
        assert ".> shop-retry " in log.read_text()  # it serves that by itself
        assert server.ledger.counts()["jobs"] == 3

        server.job_seconds = 3600
        waiting = python("print(framelane.render.delay(text).id)")
        wait_for(lambda: server.ledger.counts()["jobs"] == 4, what="it is submitted")
        shown = run("-m", "celery", "-A", "shop", "framelane", "cancel", waiting, "--yes")
        assert "is cancelled" in shown
        state = f"import time; end = time.time() + 60; r = app.AsyncResult('{waiting}')\n"
        state += "while r.state != 'REVOKED' and time.time() < end: time.sleep(0.1)\nprint(r.state)"
        assert run("-c", f"from shop import *\n{state}").strip() == "REVOKED"

        for block in CHECK:
            for command in commands_in(block.text):
                printed = run("-m", *command.text.split())
                assert is_shown(command.shown, printed), printed
        findings = json.loads(run("-m", "celery", "-A", "shop", "framelane", "doctor", "--json"))
        [workers] = [one for one in findings if one["check"] == "workers"]
        assert (workers["level"], "not checked" in workers["what"]) == ("warning", True)


def test_every_queue_has_a_name_that_sqs_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its letters, by AWS's documentation: letters, digits, `-` and `_`, up to 80."""
    given: dict[str, object] = {}
    monkeypatch.setenv("SHOP_DATABASE_URL", "postgresql://localhost/shop")
    exec(SETTINGS, given)
    framelane = given["framelane"]
    assert isinstance(framelane, dict)
    names = [given["task_default_queue"], framelane["retry_queue"], framelane["dead_letter_queue"]]
    assert names == ["shop", "shop-retry", "shop-dead"]
    assert all(f"`{name}`" in PAGE.read_text() for name in names)
