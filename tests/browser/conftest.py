"""The example site as its users see it: all of `run.py`, and Debian's Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.site import Site, running_site, started_site

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


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
    """Not for longer: while it is open, this thread has a loop, in which Django's ORM refuses to work."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("needs Chromium: on Debian, apt-get install chromium")
    assert chromium, "Chromium is missing: .ci/run installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


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
