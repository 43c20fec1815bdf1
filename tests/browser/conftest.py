"""The example site as its users see it: all of `run.py`, and Debian's Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import running_chromium
from tests.browser.site import Site, running_site, started_site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A site for a test that ends it."""
    with started_site(tmp_path) as site:
        yield site


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Not for longer than these tests: see there."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def staff(browser: Any, site: Site) -> Any:
    """The cookies of a member of staff who has logged in."""
    context = browser.new_context(base_url=site.url)
    page = context.new_page()
    page.goto("/admin/")
    page.fill("#id_username", "staff")
    page.fill("#id_password", site.password)
    page.press("#id_password", "Enter")
    page.wait_for_selector("text=Log out")
    cookies = context.cookies()
    context.close()
    return cookies


@pytest.fixture
def context(browser: Any, site: Site) -> Iterator[Any]:
    """A visitor: a session of its own. Whatever goes wrong in its pages' scripts fails the test."""
    context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    wrong: list[str] = []
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    yield context
    context.close()
    assert not wrong


@pytest.fixture
def page(context: Any) -> Any:
    return context.new_page()


@pytest.fixture
def staff_page(context: Any, staff: Any) -> Any:
    """A page of a visitor who is of the staff."""
    context.add_cookies(staff)
    return context.new_page()
