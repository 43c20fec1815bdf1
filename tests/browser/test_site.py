"""What a visitor and the staff do on the example site, against a real worker and the local server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

ADMIN = "/admin/framelane"


def order(page: Any, title: str, ends: str = "well", seconds: int = 1) -> str:
    """Order a video, and wait for its page; the answer is the row's key. It takes as long as it is."""
    page.goto("/")
    page.fill("#id_title", title)
    page.fill("#id_seconds", str(seconds))
    page.check(f"input[name=ends][value='{ends}']")
    page.click("text=Make it")
    page.wait_for_url(re.compile(r"/videos/\d+/$"))
    return str(page.url.rstrip("/").rsplit("/", 1)[1])


# Notes each value of the bar, and each line of text, from before any script of the page runs; over pages too.
NOTING = """
const seen = JSON.parse(sessionStorage.seen || '{"percents": [], "texts": []}');
new MutationObserver(() => {
  const bar = document.querySelector(".framelane-progress progress");
  const line = document.querySelector("[data-framelane-text]");
  if (bar && bar.value !== seen.percents.at(-1)) { seen.percents.push(bar.value); }
  if (line && line.textContent !== seen.texts.at(-1)) { seen.texts.push(line.textContent); }
  sessionStorage.seen = JSON.stringify(seen);
}).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
"""


def test_a_video_is_ordered_its_progress_moves_and_there_it_is(page: Any, site: Site) -> None:
    page.add_init_script(NOTING)
    video = order(page, "Made to move", seconds=7)
    assert page.get_by_role("progressbar", name="Progress of your video").count() == 1
    assert page.locator("[role=status][aria-live=polite]").count() == 1
    page.wait_for_selector("text=Your video is ready.")
    assert page.get_by_role("status").inner_text() == "Your video is ready."
    seen = page.evaluate("JSON.parse(sessionStorage.seen)")
    assert len({percent for percent in seen["percents"] if 0 < percent < 100}) >= 2, seen
    assert seen["percents"] == sorted(seen["percents"])
    assert any(text.startswith("In progress: processing: ") for text in seen["texts"]), seen
    page.wait_for_function("document.querySelector('video').readyState >= 1")  # the browser has read the file
    assert page.evaluate("document.querySelector('video').videoWidth") == 16
    (job,) = site.jobs_of_video(video)
    assert page.inner_text("dl >> text=" + job) == job
    posted = [entry["body"] for entry in site.ledger()["entries"] if entry["job_id"] == job and entry["is_new_job"]]
    assert '"text":"Made to move"' in posted[0].replace('": "', '":"')


def test_a_failure_its_dead_letter_in_the_admin_a_replay_and_the_result(page: Any, staff_page: Any, site: Site) -> None:
    video = order(page, "Lost and found", ends="source_not_found")
    page.wait_for_selector("text=Failed (source_not_found)")
    page.click("text=See what has failed")
    page.wait_for_selector("text=Lost and found")
    letter = page.get_attribute("text=Its dead letter", "href")  # staff has logged in in the same browser
    page.click("text=Its dead letter")
    page.wait_for_selector("text=has failed; a replay runs it")
    assert "videos.tasks.make_video" in page.content()
    assert f'"args": [\n    {video}\n  ]' in page.inner_text("pre")
    page.click("button:has-text('Replay')")
    page.wait_for_selector("text=is replayed as")
    while "It was not made" in page.request.get(f"/videos/{video}/").text():  # until a worker turns to it
        page.wait_for_timeout(100)
    page.goto(f"/videos/{video}/", wait_until="commit")  # it loads itself anew when the task is over
    page.wait_for_selector("text=Your video is ready.")
    assert len(site.jobs_of_video(video)) == 2
    assert staff_page.goto(letter).status == 404  # it is none any more


def test_a_transaction_that_rolls_back_submits_nothing(page: Any, site: Site) -> None:
    before = site.ledger()["counts"]["posts"]
    page.goto("/")
    page.fill("#id_title", "Never mind")
    page.check("input[name=ends][value='rolled back']")
    page.click("text=Make it")
    page.wait_for_selector("text=The order was taken back")
    assert "Never mind" not in page.inner_text("main")
    order(page, "After all")  # by then a task of the other order would have been run: one worker, one queue
    page.wait_for_selector("text=Your video is ready.")
    ledger = site.ledger()
    assert ledger["counts"]["posts"] == before + 1
    assert not [entry for entry in ledger["entries"] if "Never mind" in entry["body"]]


def test_an_error_on_framelanes_side_is_tried_again_by_itself(page: Any, site: Site) -> None:
    video = order(page, "Second try", ends="internal")
    page.wait_for_selector("text=Your video is ready.")
    assert len(site.jobs_of_video(video)) == 2


def test_a_task_that_the_staff_cancels(page: Any, staff_page: Any, site: Site) -> None:
    video = order(page, "Too long", seconds=100)
    page.wait_for_selector("text=In progress")
    task_id = page.inner_text("dl code >> nth=0")
    staff_page.goto(f"{ADMIN}/waitingtask/{task_id}/change/")
    staff_page.click("button:has-text('Cancel')")
    staff_page.click("button:has-text('Yes, cancel')")
    staff_page.wait_for_selector("text=is cancelled")
    page.wait_for_selector("text=Cancelled")
    page.goto(f"/videos/{video}/")
    page.wait_for_selector("text=It was cancelled.")
    assert site.ledger()["counts"]["cancels"] >= 1
    page.goto(f"{site.flower}/task/{task_id}")
    assert "REVOKED" in page.inner_text("body")


def test_a_stranger_sees_nothing(page: Any, browser: Any, site: Site) -> None:
    video = order(page, "Mine")
    task_id = page.inner_text("dl code >> nth=0")
    stranger = browser.new_context(base_url=site.url)
    try:
        paths = (f"/videos/{video}/", f"/videos/{video}/file/", f"/framelane/status/{task_id}/?result=1")
        assert [stranger.request.get(path).status for path in paths] == [404, 404, 404]
        assert "Mine" not in stranger.request.get("/").text()
    finally:
        stranger.close()
