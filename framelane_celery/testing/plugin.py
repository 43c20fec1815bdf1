"""A pytest plugin: a local Framelane server for each test that asks for one.

It is registered by the entry point `framelane_celery` of `pytest11` and is read by every pytest run in an environment
that has the package, so it imports nothing of ours before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from framelane_celery.testing import FramelaneServer


@pytest.fixture
def framelane_server() -> Iterator[FramelaneServer]:
    """A running FramelaneServer of this test's own; its jobs take 0.2 seconds and complete."""
    from framelane_celery.testing import FramelaneServer

    with FramelaneServer() as server:
        yield server


@pytest.fixture
def framelane_settings(framelane_server: FramelaneServer) -> dict[str, str]:
    """Settings for `app.conf.framelane` that point at `framelane_server`."""
    return {"api_key": framelane_server.api_key, "base_url": framelane_server.base_url, "namespace": "framelane-tests"}
