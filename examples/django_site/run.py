"""The whole site in one terminal: web server, worker, a local stand-in for Framelane's API, Flower. Ctrl-C ends all.

Everything is kept in one folder, which is made anew each time and removed at the end. `--help` lists the options.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from parts import HERE, Part, Trouble, free_port, run

if TYPE_CHECKING:
    from framelane_celery.testing import FramelaneServer

NEEDED = ("django", "flower", "sqlalchemy", "werkzeug")
STAFF = "staff"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help="of the site; the first free one from 8000 on if it is left out")
    parser.add_argument("--flower-port", type=int, help="the first free one from 5555 on if it is left out")
    parser.add_argument("--no-flower", action="store_true")
    parser.add_argument("--pace", type=float, default=2.0, help="seconds of work for each second of video")
    parser.add_argument("--folder", type=Path, help="keep everything here, and leave it there at the end")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} missing: pip install 'framelane-celery[django,demo]' flower", file=sys.stderr)
        return 1
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: told.set())
    try:
        with ExitStack() as stack:
            parts = start(options, stack, told)
            while not told.wait(0.2):
                for part in parts:
                    part.check()
            print("\nstopping …", flush=True)
            for part in parts:
                part.let_go()
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    print("Stopped: site, worker, server and Flower are gone.")
    return 0


def start(options: argparse.Namespace, stack: ExitStack, told: threading.Event) -> list[Part]:
    """Start the parts, and say where they are once all of them answer. The stack ends them."""
    from local_server import local_server  # once it is known that what it needs is there

    folder = stack.enter_context(kept_in(options.folder))
    port = free_port(options.port, 8000, "--port")
    flower_port = None if options.no_flower else free_port(options.flower_port, 5555, "--flower-port")
    server = stack.enter_context(local_server(options.pace, port))
    password = prepare(folder, server)
    parts = parts_of(folder, port, flower_port)
    for some in (parts[:1], parts[1:]):  # the worker makes what the others find
        for part in some:
            stack.enter_context(part)
        for part in some:
            part.wait_until_ready(told)
    if not told.is_set():
        announce(port, flower_port, server, password, folder)
    return parts


def parts_of(folder: Path, port: int, flower_port: int | None) -> list[Part]:
    site = Part("site", folder, sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    parts = [
        Part("worker", folder, *worker_command()).ready_when_logged("worker@site ready."),
        site.ready_at(f"http://127.0.0.1:{port}/"),
    ]
    if flower_port is not None:
        flower = Part("Flower", folder, *flower_command(flower_port, folder))
        parts.append(flower.ready_at(f"http://127.0.0.1:{flower_port}/workers"))
    return parts


@contextmanager
def kept_in(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="framelane-site-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def prepare(folder: Path, server: FramelaneServer) -> str:
    """The environment of all parts, the database, and a member of staff, whose password is the answer."""
    for name in ("messages", "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("CELERY_", "FRAMELANE_", "DJANGO_", "FLOWER_"))]:
        del os.environ[name]  # CELERY_BROKER_URL would win over the settings: a demo must not reach a real broker
    password = secrets.token_urlsafe(9)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="videosite.settings",
        FRAMELANE_API_KEY=server.api_key,
        FRAMELANE_BASE_URL=server.base_url,
        FRAMELANE_WEBHOOK_SECRET=server.webhook_secret,
        SITE_FOLDER=str(folder),
        SITE_SECRET_KEY=secrets.token_urlsafe(32),
        TMPDIR=str(folder),
    )
    run("prepare.py", STAFF, SITE_STAFF_PASSWORD=password)
    return password


def worker_command() -> list[str]:
    alone = ("--without-mingle", "--without-gossip")  # they greet other workers, and there are none
    return [
        *(sys.executable, "-m", "celery", "-A", "videosite", "worker"),
        *("--hostname", "worker@site", "--concurrency", "2", "--events", "--loglevel", "INFO", *alone),
    ]


def flower_command(port: int, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "-A", "videosite", "flower"),
        *("--address=127.0.0.1", f"--port={port}", f"--db={folder}/flower", f"--conf={HERE}/flowerconfig.py"),
    ]


def announce(port: int, flower_port: int | None, server: FramelaneServer, password: str, folder: Path) -> None:
    site = f"http://127.0.0.1:{port}"
    print(f"The site         {site}/")
    print(f"Failures         {site}/failures/")
    print(f"Staff pages      {site}/admin/   user: {STAFF}   password: {password}")
    if flower_port is not None:
        print(f"Flower           http://127.0.0.1:{flower_port}/tasks")
    print(f"Framelane's API  {server.base_url}, a local stand-in; what crossed it: {server.base_url}/_ledger")
    print(f"Logs             {folder}/*.log")
    print("Stop all: Ctrl-C", flush=True)


if __name__ == "__main__":
    sys.exit(main())
