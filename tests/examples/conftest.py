"""A project with a worker that runs, on each transport, for a whole module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from framelane_celery.testing import FramelaneServer
from tests.examples.project import TRANSPORTS, Project, project


@pytest.fixture(scope="module")
def server() -> Iterator[FramelaneServer]:
    """Without limits; a job takes half a second."""
    with FramelaneServer(job_seconds=0.5, renders_per_minute=None, tasks_per_minute=None) as running:
        yield running


@pytest.fixture(scope="module", params=TRANSPORTS)
def running(
    request: pytest.FixtureRequest, server: FramelaneServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    with project(request.param, tmp_path_factory.mktemp(request.param), server) as made, made.worker():
        yield made


@pytest.fixture
def pipelines(running: Project) -> Project:
    """The same, with nothing written in the server's ledger yet."""
    running.server.ledger.clear()
    return running
