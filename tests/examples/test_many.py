"""examples/pipelines/many: a chord of 2,000, in a worker of two processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framelane_celery.testing import FramelaneServer
from tests.examples.project import commands, project

pytestmark = [pytest.mark.worker, pytest.mark.timeout(600)]

JOB_S = 10


@pytest.mark.parametrize(
    ("transport", "number"),
    [("redis", 2000), ("rabbitmq", 300), pytest.param("rabbitmq", 2000, marks=pytest.mark.slow)],
)
def test_a_chord_holds_no_worker_and_its_body_gets_all(transport: str, number: int, tmp_path: Path) -> None:
    [run] = commands("many")
    with (
        FramelaneServer(job_seconds=JOB_S, renders_per_minute=None) as server,
        project(transport, tmp_path, server) as made,
        made.worker(),
    ):
        said = made.run(*run[:-1], str(number), timeout_s=500)
    print(f"{transport}: {said}")
    match = re.search(rf"the body got {number} jobs after ([\d.]+) s", said)
    assert match, said
    assert float(match[1]) < number * JOB_S / 2 / 5  # a fifth of what two processes would take that hold their slots
    assert len(server.ledger.jobs_per_task()) == server.ledger.counts()["jobs"] == number
