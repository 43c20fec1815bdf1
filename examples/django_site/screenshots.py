"""Pictures of each page, at phone and desktop width: `python screenshots.py FOLDER`, with the site's own `run.py`.

Needs Chromium (Debian: apt-get install chromium) and the package playwright.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.absolute()
WIDTHS_PX = {"phone": 390, "desktop": 1280}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--hide-scrollbars")
ADMIN = "/admin/framelane"


def main(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, site_in(data) as said, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        context = chromium.new_context(base_url=found(r"The site +(http\S+)/\n", said))
        context.set_default_timeout(60_000)
        page = context.new_page()
        camera = Camera(page, folder)
        log_in(page, found(r"password: (\S+)", said))
        walk(page, camera)
        flower(page, camera, found(r"Flower +(\S+)/tasks", said))
        chromium.close()


@contextmanager
def site_in(data: str) -> Iterator[str]:
    command = [sys.executable, "-u", str(HERE / "run.py"), "--port", "0", "--flower-port", "0", "--folder", data]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Stop all"):
            break
    try:
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def found(pattern: str, said: str) -> str:
    match = re.search(pattern, said)
    assert match, said
    return match[1]


class Camera:
    """Takes a page at each width."""

    def __init__(self, page: Any, folder: Path) -> None:
        self._page, self._folder = page, folder

    def take(self, name: str, *, most_px: int = 1400) -> None:
        for label, width in WIDTHS_PX.items():
            self._page.set_viewport_size({"width": width, "height": 700})
            self._page.wait_for_timeout(150)  # transitions of the pages' own
            height = min(most_px, self._page.evaluate("document.documentElement.scrollHeight"))
            clip = {"x": 0, "y": 0, "width": width, "height": height}
            path = self._folder / f"{name}-{label}.png"
            self._page.screenshot(path=path, full_page=True, clip=clip)
            overflow = self._page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            print(f"{path.name}: {path.stat().st_size // 1024} kB" + (f", {overflow} px too wide" * (overflow > 0)))


def log_in(page: Any, password: str) -> None:
    page.goto("/admin/")
    page.fill("#id_username", "staff")
    page.fill("#id_password", password)
    page.press("#id_password", "Enter")
    page.wait_for_selector("text=Log out")


def order(page: Any, title: str, ends: str = "well", seconds: int = 4) -> None:
    page.goto("/")
    page.fill("#id_title", title)
    page.fill("#id_seconds", str(seconds))
    page.check(f"input[name=ends][value='{ends}']")
    page.click("text=Make it")
    page.wait_for_url(re.compile(r"/videos/\d+/$"))


def walk(page: Any, camera: Camera) -> None:
    for title in ("No such clip", "A clip that is not there"):
        order(page, title, "source_not_found", 1)
        page.wait_for_selector("text=Failed (source_not_found)")
    order(page, "Made to move", seconds=1)
    page.wait_for_selector("text=Your video is ready.")
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    camera.take("result")
    order(page, "Tried again", "internal", 2)
    page.wait_for_selector("text=Your video is ready.")
    for number in range(1, 4):
        order(page, f"A long one, number {number}", seconds=20)
    page.wait_for_function("document.querySelector('progress').value > 10")
    camera.take("progress")
    page.goto("/")
    camera.take("form")
    page.click("text=Make it")
    page.wait_for_selector("[role=alert]")
    camera.take("form-error")
    page.goto("/failures/")
    camera.take("failures")
    letter = page.get_attribute("text=Its dead letter >> nth=0", "href")
    for name, path in {
        "admin-index": "/admin/", "admin-waiting": f"{ADMIN}/waitingtask/", "admin-letters": f"{ADMIN}/deadletter/",
        "admin-letter": letter, "admin-holds": f"{ADMIN}/heldaccount/",
    }.items():  # fmt: skip
        page.goto(path)
        camera.take(name)
    page.goto(f"{ADMIN}/waitingtask/")
    page.click("#content-main th a >> nth=0")
    page.wait_for_selector("text=Wakes it")
    camera.take("admin-waiting-one")
    page.click("button:has-text('Cancel')")
    page.click("button:has-text('Yes, cancel')")
    page.wait_for_selector("text=is cancelled")
    page.goto(letter)
    page.click("button:has-text('Discard')")
    page.wait_for_selector("button:has-text('Yes, discard')")
    camera.take("admin-confirm")


def flower(page: Any, camera: Camera, flower_at: str) -> None:
    page.set_viewport_size({"width": WIDTHS_PX["desktop"], "height": 700})
    page.goto(f"{flower_at}/tasks")
    page.wait_for_selector("text=PROGRESS")
    page.wait_for_selector("text=REVOKED")
    camera.take("flower-tasks")
    page.goto(f"{flower_at}/task/{task_in_progress(page)}")
    page.wait_for_selector("text=make_video")
    camera.take("flower-task")
    page.goto(f"{flower_at}/workers")
    page.wait_for_selector("text=worker@site")
    camera.take("flower-workers")


def task_in_progress(page: Any) -> str:
    """The id of one that waits, from Flower's list."""
    row = page.locator("tr", has_text="PROGRESS").first.inner_text()
    match = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", row)
    assert match, row
    return match[0]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"))
