"""A pytest plugin: a local Framelane server for each test that asks for one, and settings that lead to it.

A module outside the package, which imports it only when a fixture is used: pytest reads the plugins of everything that
is installed, in whatever project, and importing `framelane_celery` registers its tasks with all Celery apps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from framelane_celery.testing import FramelaneServer

UNPACED = 1_000_000
"""Per minute: a test waits for no limit that it did not set."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "framelane_server(**options): how this test's framelane_server is made, as FramelaneServer(**options)",
    )


@pytest.fixture
def framelane_server(request: pytest.FixtureRequest) -> Iterator[FramelaneServer]:
    """A running FramelaneServer of this test's own, without limits; its clock moves when the test says so.

    A job takes `job_seconds` on that clock, and completes: 0 unless the test sets it, so that jobs end at once.
    """
    from framelane_celery.testing import FramelaneServer

    options: dict[str, Any] = {
        "virtual_time": True, "job_seconds": 0, "renders_per_minute": None, "tasks_per_minute": None,
    }  # fmt: skip
    for marker in reversed(list(request.node.iter_markers("framelane_server"))):  # the nearest one last
        options.update(marker.kwargs)
    with FramelaneServer(**options) as server:
        yield server


@pytest.fixture
def framelane_settings(framelane_server: FramelaneServer, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings for `app.conf.framelane` that lead to `framelane_server`, with a room (SQLite) of this test's own.

    What waits in that room goes by the server's clock too: `advance` brings the ends of backoffs, holds and deadlines.
    """
    from framelane_celery.testing.room_clock import moved

    room_file = tmp_path / "framelane-room.sqlite"
    with moved(room_file, lambda: framelane_server.clock.ahead_s):
        yield {
            "api_key": framelane_server.api_key,
            "base_url": framelane_server.base_url,
            "webhook_secrets": [framelane_server.webhook_secret],
            "namespace": "framelane-tests",
            "room_url": f"sqlite:///{room_file}",
            "renders_per_minute": UNPACED,
            "media_tasks_per_minute": UNPACED,
            "reads_per_minute": UNPACED,
        }


@pytest.fixture
def framelane_celery_config(framelane_settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The configuration of an app whose worker runs in a thread of the test, as Celery's `celery_worker` does.

    Messages and results stay in memory, in a queue of this test's own: no test sees what another one left.
    """
    return {
        "broker_url": "memory://",
        "broker_transport_options": {"polling_interval": 0.01},
        "result_backend": "cache+memory://",
        "task_default_queue": str(tmp_path),
        "framelane": framelane_settings,
    }
