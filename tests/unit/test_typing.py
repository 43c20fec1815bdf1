"""A user's file through mypy, with pydantic's plugin and without: what editors complete is what is documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "typing" / "shop.py"


@pytest.mark.timeout(400)  # mypy's first run reads all that pydantic is made of
@pytest.mark.parametrize(
    "plugin", ["", "plugins = pydantic.mypy\n[pydantic-mypy]\ninit_typed = true\n"], ids=["", "plugin"]
)
def test_a_users_file_is_typed_strictly(tmp_path: Path, plugin: str) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nfollow_imports = silent\n{plugin}")
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
    wanted = {
        at: set(marked.split())
        for at, line in enumerate(FILE.read_text().splitlines(), 1)
        for marked in re.findall(r"# E: (.*)", line)
    }
    assert {at for at, _ in found} == wanted.keys(), done.stdout
    assert all(code in wanted[at] for at, code in found), done.stdout
    assert len(wanted) > 15
