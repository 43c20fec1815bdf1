"""Workers that something starts again when they have ended, as systemd or Kubernetes would."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType

from tests.worker.stacks import Stack, Worker, wait_for

EVERY_S = 0.2
_LEADS = re.compile(r"watching, token (\d+)")


class Kept:
    """One worker and its successors; each has the same node name and a log of its own."""

    def __init__(self, stack: Stack, name: str, options: tuple[str, ...], env: dict[str, str]) -> None:
        self.name, self.starts = name, 0
        self.killed: set[int] = set()
        self._stack, self._options, self._env = stack, options, env
        self.worker: Worker | None = None
        self.lock = threading.Lock()

    def start(self) -> None:
        """Start it, if it does not run. Raises AssertionError, if it ended at once."""
        with self.lock:
            process = None if self.worker is None else self.worker.process
            if process is not None and process.poll() is None:
                return
            self.starts += 1
            made = Worker(self._stack, self.name, self._options, sys.executable, self._env, self._stack.queue)
            made.log_file = self._stack.folder / f"{self.name}-{self.starts}.log"
            self.worker = made
            made.start()

    @property
    def is_up(self) -> bool:
        """It has started, and nobody is starting it again."""
        process = None if self.worker is None else self.worker.process
        return not self.lock.locked() and process is not None and process.poll() is None

    @property
    def node(self) -> str:
        return f"{self.name}@{self._stack.queue}"

    @property
    def pid(self) -> int:
        assert self.worker is not None
        return self.worker.pid

    def pids(self) -> set[int]:
        assert self.worker is not None
        with suppress(FileNotFoundError):
            return {self.worker.pid, *self.worker.children()}
        return {self.worker.pid}

    def kill(self) -> None:
        """SIGKILL the process group."""
        assert self.worker is not None
        self.killed |= self.pids()
        self.worker.kill()

    def token(self) -> int:
        """The last token under which it watched; 0: it never did."""
        assert self.worker is not None
        return max((int(token) for token in _LEADS.findall(self.worker.log)), default=0)


class Crew:
    """The workers of one stack, kept alive. Use it as a context manager."""

    def __init__(self, stack: Stack, count: int = 2, *options: str, name: str = "w", **env: str) -> None:
        self.workers = [Kept(stack, f"{name}{number + 1}", options or ("-c", "2"), env) for number in range(count)]
        self.ended_by_themselves = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Crew:
        starting = [threading.Thread(target=self._start, args=(worker,)) for worker in self.workers]
        for one in starting:
            one.start()
        for one in starting:
            one.join()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(150)
        for kept in self.workers:
            if kept.worker is not None:
                with suppress(ProcessLookupError):
                    os.killpg(kept.worker.pid, signal.SIGCONT)
                kept.worker.kill()

    def _keep(self) -> None:
        while not self._stopping.wait(EVERY_S):
            for kept in self.workers:
                if not kept.is_up and not kept.lock.locked():
                    threading.Thread(target=self._again, args=(kept,), daemon=True).start()

    def _again(self, kept: Kept) -> None:
        if kept.worker is not None and kept.worker.process is not None and kept.worker.pid not in kept.killed:
            self.ended_by_themselves += 1
        self._start(kept)

    @staticmethod
    def _start(kept: Kept) -> None:
        with suppress(AssertionError):  # it ended at once: its broker is away. `_keep` tries again.
            kept.start()

    @property
    def killed(self) -> set[int]:
        return set().union(*(kept.killed for kept in self.workers))

    def up(self) -> list[Kept]:
        return [kept for kept in self.workers if kept.is_up]

    def leader(self, timeout_s: float = 60) -> Kept:
        """The worker that watches: who got the highest token last."""

        def found() -> Kept | None:
            up = [kept for kept in self.up() if kept.token()]
            return max(up, key=Kept.token) if up else None

        return wait_for(found, timeout_s, "somebody leads")
