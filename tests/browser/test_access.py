"""The pages for everybody: with a keyboard alone, for a screen reader (axe-core), and without secrets."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.browser.site import Site
from tests.browser.test_site import ADMIN, order

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  return [one.id || one.innerText || one.value, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""


def focused(page: Any) -> str:
    """What has the focus; and it can be seen."""
    name, is_visible = page.evaluate(FOCUS)
    assert is_visible, f"nobody sees that {name!r} has the focus"
    return str(name)


def tab_to(page: Any, name: str, most: int = 30) -> list[str]:
    """Press Tab until that is reached; the answer is what was passed."""
    passed: list[str] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        passed.append(focused(page))
        if passed[-1] == name:
            return passed
    raise AssertionError(f"{name!r} is not reached: {passed}")


def test_a_video_with_nothing_but_a_keyboard(page: Any) -> None:
    page.goto("/")
    order_of_tabs = tab_to(page, "Make it")
    assert order_of_tabs == [
        "To the content", "Make a video", "Failures", "Staff",
        "id_title", "id_background", "id_seconds", "id_ends_0", "Make it",
    ]  # fmt: skip
    page.reload()
    tab_to(page, "id_title")
    page.keyboard.type("By hand")
    tab_to(page, "id_seconds")
    page.keyboard.press("Control+A")
    page.keyboard.type("1")
    tab_to(page, "id_ends_0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")  # not, until somebody replays it
    assert page.is_checked("input[name=ends][value=source_not_found]")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Failed (source_not_found)")
    tab_to(page, "See what has failed")
    page.keyboard.press("Enter")
    page.wait_for_url("**/failures/")
    tab_to(page, "Try again")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Your video is ready.")
    page.keyboard.press("Tab")
    assert focused(page) == "To the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_a_form_that_is_wrong_says_where(page: Any) -> None:
    page.goto("/")
    page.fill("#id_seconds", "1000")
    page.click("text=Make it")
    page.wait_for_selector("[role=alert]")
    assert page.title().startswith("Error: ")
    for field in ("#id_title", "#id_seconds"):
        assert page.get_attribute(field, "aria-invalid") == "true"
        told_by = page.get_attribute(field, "aria-describedby")
        assert page.inner_text(f"#{told_by}")


def walk(page: Any, staff_page: Any) -> list[tuple[str, Any]]:
    """Every page of the site and of ours in the admin, as (name, page), each shown when it is asked for."""
    video = order(page, "Found <b>everywhere</b>", ends="source_not_found")
    page.wait_for_selector("text=Failed (source_not_found)")
    page.goto("/failures/")
    letter = page.get_attribute("text=Its dead letter", "href")
    waiting = order(page, "Goes on", seconds=100)
    page.wait_for_selector("text=In progress")
    task_id = page.inner_text("dl code >> nth=0")
    yield from shown(page, f"/videos/{waiting}/", "/", "/failures/", f"/videos/{video}/")
    paths = ("waitingtask/", "deadletter/", "heldaccount/", f"waitingtask/{task_id}/change/")
    yield from shown(staff_page, *(f"{ADMIN}/{path}" for path in paths), letter)
    staff_page.click("button:has-text('Discard')")
    staff_page.wait_for_selector("button:has-text('Yes, discard')")
    yield "discard: are you sure?", staff_page
    staff_page.goto(f"{ADMIN}/waitingtask/{task_id}/change/")
    staff_page.click("button:has-text('Cancel')")
    staff_page.click("button:has-text('Yes, cancel')")
    staff_page.wait_for_selector("text=is cancelled")
    yield "a message in the admin", staff_page


def shown(page: Any, *paths: str) -> Any:
    for path in paths:
        answer = page.goto(path)
        assert answer.status == 200, path
        yield path, page


def test_axe_finds_nothing_and_no_page_has_a_secret(page: Any, staff_page: Any, site: Site) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe, found, names = Axe(), {}, []
    for name, one in walk(page, staff_page):
        names.append(name)
        for width in (390, 1280) if name in ("/", f"{ADMIN}/deadletter/") else (390,):
            one.set_viewport_size({"width": width, "height": 900})
            for rule in axe.run(one).response["violations"]:
                found[f"{name} at {width} px: {rule['id']}"] = [node["html"][:200] for node in rule["nodes"]]
        html = one.content()
        assert "fl_test_key" not in html, name
        assert not re.search(r"signature=|whsec_", html), name
        assert "<b>everywhere" not in html, name
    assert len(names) == 11
    assert not found, json.dumps(found, indent=1)
