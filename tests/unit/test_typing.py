"""A user's file through mypy, with pydantic's plugin and without, and through pyright: what they refuse is what is
marked, and nothing else. So what editors complete and underline is what is documented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "typing" / "shop.py"

pytestmark = pytest.mark.timeout(400)  # mypy's first run reads all that pydantic is made of


def marked() -> dict[int, set[str]]:
    """The lines that are wrong on purpose, and mypy's codes for them."""
    return {
        at: set(codes.split())
        for at, line in enumerate(FILE.read_text().splitlines(), 1)
        for codes in re.findall(r"# E: (.*)", line)
    }


@pytest.mark.parametrize(
    "plugin", ["", "plugins = pydantic.mypy\n[pydantic-mypy]\ninit_typed = true\n"], ids=["", "plugin"]
)
def test_mypy_refuses_what_is_marked(tmp_path: Path, plugin: str) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\ndisallow_subclassing_any = false\nfollow_imports = silent\n{plugin}")
    cache = ROOT / ".mypy_cache" / f"user{len(plugin)}"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache, "--no-error-summary", FILE],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert not done.stderr, done.stderr
    found = {(int(line), code) for line, code in re.findall(r"shop\.py:(\d+): error: .*\[([\w-]+)\]", done.stdout)}
    wanted = marked()
    assert {at for at, _ in found} == wanted.keys(), done.stdout
    assert all(code in wanted[at] for at, code in found), done.stdout
    assert len(wanted) > 20


def test_pyright_refuses_what_is_marked(tmp_path: Path) -> None:
    """As basedpyright, in pyright's strict mode: its wheel brings Node along, where pyright's downloads it when run."""
    strict = {"typeCheckingMode": "strict", "pythonVersion": "3.10", "include": [str(FILE)], "extraPaths": [str(ROOT)]}
    told = check_with_pyright(tmp_path, strict)
    errors = {one["range"]["start"]["line"] + 1 for one in told["generalDiagnostics"] if one["severity"] == "error"}
    assert errors == marked().keys(), json.dumps(told["generalDiagnostics"], indent=1)
    assert told["summary"]["filesAnalyzed"] == 1


def check_with_pyright(folder: Path, config: dict[str, Any]) -> Any:
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "basedpyright", "-p", folder, "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    return json.loads(done.stdout)
