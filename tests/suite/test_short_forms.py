"""The short form of each fault that no other test is the short form of: README.md says which those are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attack import Scene
from tests.suite.conftest import Short
from tests.suite.faults import FAULTS
from tests.suite.frame import play
from tests.suite.ledger import Ledger

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

HERE = ("d", "e-cut", "e-hole", "g", "h", "i", "j", "k", "l")


def _play(name: str, transport: str, folder: Path) -> Ledger:
    return play(name, FAULTS[name], transport, "short", folder / "out.json")


def _short(name: str, transport: str) -> Short:
    return Short(Scene(f"{name} on {transport}", _play, (name, transport)))


SHORTS = [
    pytest.param(_short(name, transport), id=f"{name}, {transport}", marks=marks)
    for transport, marks in (("redis", []), ("rabbitmq", [pytest.mark.slow]))
    for name in HERE
]


@pytest.mark.parametrize("short", SHORTS)
def test_a_fault_loses_nothing_pays_nothing_twice_and_runs_nothing_twice(stage: Any, short: Short) -> None:
    ledger: Ledger = stage.outcome(short.scene)
    assert ledger.verdict == "pass", json.dumps(ledger.show())
