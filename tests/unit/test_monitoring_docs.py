"""docs/monitoring.md: its snippets run, one after the other; its table holds every alert."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from framelane_celery import metrics
from tests.docs.pages import texts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()

AFTER = """
app.conf.update(broker_url="memory://", result_backend="cache+memory://")
app.conf.framelane = {**app.conf.framelane, "room_url": f"sqlite:///{sys.argv[1]}/room.sqlite"}
from prometheus_client import generate_latest
from framelane_celery.records import Record
from framelane_celery.room import move, room_of
from framelane_celery.settings import settings_of
assert settings_of(app).metrics_port == 9108
assert b"framelane_watcher_leads" in generate_latest(registry)

set_up_traces()
assert type(trace.get_tracer_provider()) is TracerProvider

logger, stream = logging.getLogger("framelane_celery.transitions"), io.StringIO()
handler = logging.StreamHandler(stream)
handler.setFormatter(JsonLines())
logger.addHandler(handler)
logger.setLevel(logging.INFO)
from framelane_celery.monitoring import told
told("shop", None, Record(id="t1", task="framelane.render", call="", digest="", job_id="render_1"), 1.0)
line = json.loads(stream.getvalue())
assert (line["task_id"], line["job_id"], line["until"]) == ("t1", "render_1", "start"), line

assert progress("nobody")["state"] == "PENDING"
"""


def test_the_snippets_run(tmp_path: Path) -> None:
    found = texts("docs/monitoring.md", "python")
    assert len(found) == 7
    # Celery's client is opened by the first use, so the collector's room is given before it is asked.
    code = "import io, sys\n" + "\n".join(found) + AFTER
    code = code.replace(
        "registry = CollectorRegistry()",
        'app.conf.framelane["room_url"] = f"sqlite:///{sys.argv[1]}/room.sqlite"\nregistry = CollectorRegistry()',
    )
    script = tmp_path / "page.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_prometheus_reads_the_scrape_configuration(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing; on Debian it comes with the package prometheus")
    [text] = texts("docs/monitoring.md", "yaml")
    (tmp_path / "prometheus.yml").write_text(text)
    command = ["promtool", "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_alert_is_in_the_table() -> None:
    told = re.findall(r"(?m)^\| `(Framelane\w+)` \|", PAGE)
    assert told == re.findall(r"- alert: (\w+)", metrics.alert_rules())
