"""What a reader's machine has: this checkout as a wheel, a Redis, free ports, a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import running_chromium
from tests.docs_followed.reader import build_wheel
from tests.room.test_servers import start_redis  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables by which pip installs this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def browser() -> Iterator[Any]:
    with running_chromium() as browser:
        yield browser
