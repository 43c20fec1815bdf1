"""docs/accounts.md: its example, in a process of its own and in place, and what the page says of settings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from framelane_celery.accounts import Account
from framelane_celery.testing import FramelaneServer

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text()
EAGERLY = """
import json

app.conf.task_always_eager = app.conf.task_eager_propagates = True
promoted, joint = promo.delay("Hi").get(), order().get()
print(json.dumps([promoted.get("framelane_account"), joint.get("framelane_account"), joint["status"]]))
"""


def test_the_example_runs(tmp_path: Path) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "shop.py").write_text(snippet + EAGERLY)
    with FramelaneServer(api_keys=("fl_top", "fl_eu"), job_seconds=0) as server:
        env = {
            **os.environ,
            "FRAMELANE_BASE_URL": server.base_url,
            "FRAMELANE_API_KEY": "fl_top",
            "FRAMELANE_EU_KEY": "fl_eu",
            "FRAMELANE_EU_SECRET": "whsec_eu",
        }
        command = [sys.executable, "shop.py"]
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        assert server.ledger.counts()["jobs"] == 6
    assert json.loads(ran.stdout.splitlines()[-1]) == ["eu", None, "completed"]


def test_the_table_names_every_key_of_an_account() -> None:
    table = PAGE.split("| key | default | what |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE))
    named = {
        name for cell in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == set(Account.model_fields)
