"""What a reader's machine has: this checkout as a wheel, a Redis, free ports, a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import FLAGS
from tests.docs_followed.reader import build_wheel
from tests.room.test_servers import start_redis  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables by which pip installs this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("needs Chromium: on Debian, apt-get install chromium")
    assert chromium, "Chromium is missing: .ci/run installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()
