"""docs/tutorial.md, followed literally from nothing: a new environment, a new project, each block in its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs_followed.pages import DOCS
from tests.docs_followed.reader import Reader, fresh_environ
from tests.room.test_servers import PrivateRedis, free_port

PAGE = DOCS / "tutorial.md"
BAR = "[data-framelane-text]"


@pytest.fixture
def site() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def reader(
    site: str, start_redis: Callable[..., PrivateRedis], wheel: dict[str, str], tmp_path: Path
) -> Iterator[Reader]:
    """This machine has other ports and another Redis than the page names; nothing else differs."""
    api = f"127.0.0.1:{free_port()}"
    instead = {
        "redis://localhost:6379/0": start_redis("--save", "").url,
        "framelane-celery serve": f"framelane-celery serve --port {api.rpartition(':')[2]}",
        "127.0.0.1:8765": api,
        "manage.py runserver": f"manage.py runserver {site}",
        "127.0.0.1:8000": site,
    }
    folder = tmp_path / "home"
    folder.mkdir()
    with Reader(PAGE, folder, fresh_environ(**wheel), instead) as reader:
        yield reader


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    """Whatever goes wrong in its pages' scripts fails the test."""
    context = browser.new_context(base_url=f"http://{site}")
    context.set_default_timeout(30_000)
    wrong: list[str] = []
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert not wrong


def order(page: Any, title: str) -> str:
    """Open the site, type a title, press Order; the address of the video's page."""
    page.goto("/")
    page.get_by_label("Title").fill(title)
    page.get_by_role("button", name="Order").click()
    page.wait_for_selector(f"h1:has-text('{title}')")
    return str(page.url)


def has_transcript(page: Any, address: str) -> None:
    """Load the page again, until the transcript is there."""
    end = time.monotonic() + 60
    while True:
        page.goto(address)
        if page.locator("p").count():
            assert len(page.locator("p").inner_text().split()) > 3
            return
        assert time.monotonic() < end, page.content()


@pytest.mark.worker
@pytest.mark.browser
@pytest.mark.timeout(900)
def test_it_works_at_the_first_try(reader: Reader, page: Any) -> None:
    reader.follow("A project")
    reader.project = reader.terminal("first").folder
    for section in ("Install", "Settings", "A view that orders a video", "Run it"):
        reader.follow(section)

    order(page, "Made to move")
    page.wait_for_selector(f"{BAR}:text-is('Done')")
    reader.follow("Order a video")

    reader.follow("Make it a pipeline")
    has_transcript(page, order(page, "Made to be heard"))

    reader.follow("Let it fail")
    failed = order(page, "Made to fail")
    page.wait_for_selector(f"{BAR}:text-is('Failed (unauthorized)')")
    page.goto("/admin/framelane/deadletter/")
    page.get_by_label("Username").fill("me")
    page.get_by_label("Password").fill("only-for-this-page")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("text=unauthorized")

    reader.follow("Replay it")
    page.locator("input[name=id]").check()
    page.get_by_role("button", name="Replay").click()
    page.wait_for_selector("text=is replayed as")
    has_transcript(page, failed)

    reader.follow("Ask the doctor")
    reader.pass_over("Against the real API")
    reader.pass_over("Read on")
    assert reader.is_through
