"""The suite judges rightly: what counts as run twice, what passes, and what is left out when a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.suite.frame import Fault, play
from tests.suite.ground import run_twice
from tests.suite.ledger import Ledger

GOOD: dict[str, int] = {"attempted": 10, "accepted": 10, "paid": 10, "faults_planned": 10, "faults_hit": 8}


def ends(*pids: int) -> list[dict[str, Any]]:
    return [{"event": "after_return", "id": "t", "pid": pid, "at": float(at)} for at, pid in enumerate(pids)]


@pytest.mark.parametrize(
    ("pids", "killed", "done_at", "unwritten", "is_twice"),
    [
        ((1,), set(), 0.1, 0, False),
        ((1, 2), set(), 1.1, 0, True),
        ((1, 2), {1}, 1.1, 0, False),
        ((1, 2), set(), 1.1, 1, False),
        ((1, 2), {1}, 0.1, 0, True),
        ((1, 2, 3), {1}, 2.1, 0, True),
    ],
    ids=["once", "twice", "the first was killed", "the room was away", "after it was done", "twice after a kill"],
)
def test_run_twice(pids: tuple[int, ...], killed: set[int], done_at: float, unwritten: int, is_twice: bool) -> None:
    found = run_twice(ends(*pids), killed, lambda task_id: done_at, {"t": unwritten})
    assert found == (["t"] if is_twice else [])


@pytest.mark.parametrize(
    "change",
    [{"lost": 1}, {"duplicated": 1}, {"run_twice": 1}, {"faults_hit": 7}, {"accepted": 0}, {"broken": ["a promise"]}],
)
def test_a_verdict_needs_all(change: Mapping[str, Any]) -> None:
    assert Ledger(**GOOD).verdict == "pass"
    assert Ledger(**{**GOOD, **change}).verdict == "fail"


def test_a_run_that_goes_on_plays_what_is_missing_and_nothing_again(tmp_path: Path) -> None:
    played: list[str] = []

    def round_(label: str) -> Callable[[str, Path], Ledger]:
        def play_it(transport: str, folder: Path) -> Ledger:
            played.append(label)
            if label == "third":
                raise RuntimeError("broke")
            return Ledger(**GOOD)

        return play_it

    out = tmp_path / "out.json"
    two = Fault("two", lambda form: {label: round_(label) for label in ("first", "second")})
    three = Fault("three", lambda form: {label: round_(label) for label in ("first", "second", "third")})
    assert play("x", two, "redis", "full", out).verdict == "pass"
    whole = play("x", three, "redis", "full", out, is_resumed=True)
    assert played == ["first", "second", "third"]
    assert (whole.accepted, whole.verdict) == (20, "fail")
    assert whole.broken == ["third: broke off: RuntimeError: broke"]
    written = json.loads(out.read_text())
    assert (written["verdict"], list(written["rounds"]), written["hit_share"]) == (
        "fail",
        ["first", "second", "third"],
        0.8,
    )
