"""The real command, in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from celery import Celery

from framelane_celery.dead_letters import letters
from framelane_celery.room import Room
from tests.cli.rooms import ID

ROOT = Path(__file__).parents[2]
PROJECT = """
from celery import Celery
app = Celery("shop", broker="amqp://guest@127.0.0.1:1//")
app.conf.framelane = {"room_url": "sqlite:///room.db", "api_key": "fl_test_key"}
"""


def celery(folder: Path, *words: str, app: str = "shop") -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(PROJECT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", "celery", "-A", app, *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.celery55
def test_the_command_needs_no_broker(app: Celery, room: Room, tmp_path: Path) -> None:
    ran = celery(tmp_path, "framelane", "waiting", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(json.loads(ran.stdout)) == 11
    ran = celery(tmp_path, "framelane", "dead", "replay", "--all", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert "3 letters replayed" in ran.stdout


@pytest.mark.celery55
def test_its_exit_codes(tmp_path: Path) -> None:
    wrong_id = celery(tmp_path, "framelane", "progress", ID)
    assert (wrong_id.returncode, wrong_id.stdout) == (1, "")
    assert len(wrong_id.stderr.splitlines()) == 1
    assert celery(tmp_path, "framelane", "dead", "replay").returncode == 2
    assert celery(tmp_path, "framelane", "no-such").returncode == 2


def test_without_an_app_the_error_says_how_to_name_one(tmp_path: Path) -> None:
    """Celery takes an empty app of its own then, whose settings nobody has written."""
    nobodys = {name: value for name, value in os.environ.items() if not name.startswith("FRAMELANE_")}
    env = {**nobodys, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    (tmp_path / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")

    def error(*named: str) -> str:
        command = [sys.executable, "-m", "celery", *named, "framelane", "waiting"]
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stdout) == (1, "")
        return ran.stderr

    assert error().startswith("Error: no app was named (celery -A PROJECT framelane …): room_url: ")
    assert error("-A", "bare").startswith("Error: room_url: ")


@pytest.mark.celery55
def test_preload_options_of_the_project_bear_with_it(tmp_path: Path) -> None:
    (tmp_path / "with_options.py").write_text(
        "from shop import app\nfrom celery.bin.base import CeleryOption\n"
        "app.user_options['preload'].add(CeleryOption(('--stage',), default='live'))\n"
    )
    ran = celery(tmp_path, "framelane", "waiting", app="with_options")
    assert ran.stdout == "Nothing waits.\n", ran.stderr


@pytest.mark.celery55
def test_it_is_not_imported_for_a_project_that_does_not_use_it(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "from celery import Celery\nfrom celery.bin.celery import celery\nimport sys\n"
        "app = Celery('other', broker='amqp://guest@127.0.0.1:1//')\napp.finalize(auto=True)\n"
        "assert 'framelane' in celery.commands\n"
        "print([name for name in sys.modules if name.startswith('framelane_celery.')], "
        "[name for name in app.tasks if name.startswith('framelane')], app.steps['worker'])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "other.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "[] [] set()\n", ran.stderr


def in_a_terminal(folder: Path, *words: str, columns: int, answer: bytes) -> tuple[int, str]:
    """The command in a terminal of that width, where somebody answers its question."""
    (folder / "shop.py").write_text(PROJECT)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "TERM": "xterm"}
    env.pop("COLUMNS", None)
    command = [sys.executable, "-m", "celery", "-A", "shop", "framelane", *words]
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer)
    said = b""
    with suppress(OSError):  # how Linux says that the other side has closed
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    return process.wait(60), said.decode()


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 4), (b"y\n", 0, 0)])
def test_in_a_terminal_it_asks(app: Celery, room: Room, tmp_path: Path, answer: bytes, code: int, left: int) -> None:
    exit_code, said = in_a_terminal(tmp_path, "dead", "discard", "--all", columns=80, answer=answer)
    assert exit_code == code, said
    assert "Discard 4 letters for good? [y/N]" in said
    assert len(list(letters(room))) == left


@pytest.mark.parametrize("columns", [40, 80, 140, 200])
def test_no_terminal_is_too_narrow_for_an_id(app: Celery, room: Room, tmp_path: Path, columns: int) -> None:
    _, said = in_a_terminal(tmp_path, "waiting", columns=columns, answer=b"")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in said.splitlines()]
    assert sum(f"{ID}{number}" in line for number in "123456789ab" for line in lines) >= 11
    assert all(len(line) <= columns or line.startswith("11 tasks:") for line in lines)
    assert "\x1b[1m" in said
