"""Asking in threads that may hang: each question has a deadline, and what fails is an answer too.

Threads of our own, not an executor: at its exit Python would wait for those of an executor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from framelane_celery.doctor.facts import NotAsked
from framelane_celery.errors import FramelaneError, clean_text

Answer = TypeVar("Answer")


class Question(Generic[Answer]):
    """One question, asked at once in a thread of its own."""

    def __init__(self, ask: Callable[[], Answer], timeout_s: float) -> None:
        self._ask = ask
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._answer: Answer | NotAsked | None = None
        self._thread = threading.Thread(target=self._run, name="framelane-doctor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._answer = attempt(self._ask)

    def answer(self) -> Answer | NotAsked:
        """Wait until it is answered, or its time is over."""
        self._thread.join(max(0.0, self._ends_at - time.monotonic()))
        if self._thread.is_alive() or self._answer is None:
            return NotAsked(f"no answer within {self._timeout_s:g} s")
        return self._answer


def attempt(ask: Callable[[], Answer]) -> Answer | NotAsked:
    """Ask, and take whatever goes wrong for an answer."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - a driver may raise anything, and what it says is what is wanted here
        return NotAsked(_told(error))


def _told(error: Exception) -> str:
    """Ours speak for themselves; of others the class tells what kind of trouble it is."""
    text = clean_text(str(error), 200)
    if not isinstance(error, FramelaneError):
        return f"{type(error).__name__}: {text}".rstrip(": ")
    return text.removeprefix("the room on Redis: ").removeprefix("the room in SQL: ")  # it may be another's store
