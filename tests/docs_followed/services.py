"""systemd as far as the guides use it: `sudo systemctl restart …`, with units that are files of the page."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tests.docs_followed.terminals import Command, is_shown
from tests.worker.stacks import wait_for

STOP_S = 60.0
READY_S = 90.0


class Service(Protocol):
    """Something that is started and stopped."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


def unit_in(path: Path) -> configparser.ConfigParser:
    """A unit file as systemd reads it: names have case, and no value is interpolated."""
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    return unit


def environment_in(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


class Unit:
    """A service whose file the page has had the reader write; its own process, group and log."""

    def __init__(self, path: Path, environ: Mapping[str, str], log: Path) -> None:
        self._path, self._environ, self.log = path, dict(environ), log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        service = unit_in(self._path)["Service"]
        environ = {**self._environ, **environment_in(Path(service["EnvironmentFile"]))}
        command = shlex.split(service["ExecStart"].replace("%%", "%"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=service["WorkingDirectory"], env=environ, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        """KillMode=mixed: SIGTERM to the main process; what is left when it has ended is killed."""
        if self._process is None:
            return
        assert unit_in(self._path)["Service"]["KillMode"] == "mixed"
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


class Services:
    """Obeys `systemctl daemon-reload`, `enable --now` and `restart`, and `journalctl` of a unit."""

    def __init__(self, find: Callable[[str], Unit], **known: Service) -> None:
        self._find = find
        self._services: dict[str, Service] = {name.replace("_", "-"): service for name, service in known.items()}

    def systemctl(self, command: Command) -> None:
        _, _, verb, *words = shlex.split(command.text)
        names = [word for word in words if not word.startswith("--")]
        assert (verb, bool(names)) in (("daemon-reload", False), ("enable", True), ("restart", True)), command.text
        for name in names:
            if name not in self._services:
                self._services[name] = self._find(name)
            self._services[name].stop()
        for name in names:
            self._services[name].start()

    def journalctl(self, command: Command) -> None:
        """A reader types it again until it shows what the page shows."""
        unit = self._services[shlex.split(command.text)[-1]]
        assert isinstance(unit, Unit)
        wait_for(lambda: is_shown(command.shown, unit.log.read_text()), READY_S, f"{command} in {unit.log.read_text()}")

    def stop_all(self) -> None:
        for service in self._services.values():
            service.stop()
