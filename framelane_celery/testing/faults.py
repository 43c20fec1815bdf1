"""Misbehaviour on demand: what networks, proxies and overloaded services do to a request."""

from __future__ import annotations

import fnmatch
import random
import threading
from dataclasses import dataclass
from typing import Literal

Kind = Literal["answer_lost", "reset", "status", "html", "slow", "garbage", "cut"]
KINDS = ("answer_lost", "reset", "status", "html", "slow", "garbage", "cut")


@dataclass(frozen=True)
class Fault:
    """One rule of misbehaviour for requests that match.

    `answer_lost`  the request is carried out, then the connection closes without an answer
    `reset`        the connection is reset and nothing is carried out
    `status`       an error with `status`, as JSON (code `internal`) or, with `html`, as a proxy's page
    `html`         a page of HTML with `status` (200 unless set)
    `slow`         the answer comes `seconds` later (real ones, also under a virtual clock)
    `garbage`      a 200 whose body says it is JSON and is not
    `cut`          the connection is reset after `at_bytes` of the file: of an answer's, or of an upload's

    `status`, `html` and `garbage` come before the request is carried out unless `accepted` is set.
    `times` bounds how often it strikes, `after` lets that many matching requests pass first, `probability` is drawn
    from a generator of its own seeded by `seed`, `path` is a glob.
    """

    kind: Kind
    method: str = "*"
    path: str = "*"
    times: int | None = None
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    status: int | None = None
    html: bool = False
    seconds: float = 0.0
    accepted: bool = False
    at_bytes: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Fault.kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")

    def matches(self, method: str, path: str) -> bool:
        """Say whether this rule is about such a request."""
        return fnmatch.fnmatchcase(method, self.method.upper()) and fnmatch.fnmatchcase(path, self.path)


@dataclass
class _Armed:
    fault: Fault
    chance: random.Random
    seen: int = 0
    struck: int = 0

    def strikes(self) -> bool:
        self.seen += 1
        if self.seen <= self.fault.after or (self.fault.times is not None and self.struck >= self.fault.times):
            return False
        if self.chance.random() >= self.fault.probability:
            return False
        self.struck += 1
        return True


class Faults:
    """The rules in force. The first that strikes a request is the only one that does."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force."""
        with self._lock:
            self._armed.append(_Armed(fault, random.Random(fault.seed)))
        return fault

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._armed.clear()

    def struck(self, fault: Fault) -> int:
        """Say how often a rule has struck."""
        with self._lock:
            return sum(armed.struck for armed in self._armed if armed.fault is fault)

    def pick(self, method: str, path: str) -> Fault | None:
        """Choose what befalls one request."""
        with self._lock:
            for armed in self._armed:
                if armed.fault.matches(method, path) and armed.strikes():
                    return armed.fault
            return None
