"""The progress bar: its markup, and what its script does."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.template import Context, Template

import framelane_celery

SCRIPT = Path(framelane_celery.__file__).parent / "django" / "static" / "framelane" / "progress.js"


def rendered(task_id: Any, options: str = "") -> str:
    source = "{% load framelane %}{% framelane_progress task_id " + options + " %}"
    return Template(source).render(Context({"task_id": task_id}))


class Tags(HTMLParser):
    """The tags of a fragment, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str | None]] = {}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_markup_is_for_everybody() -> None:
    tags = Tags(rendered("t-1", 'label="Your video"')).found
    assert tags["progress"] == {"max": "100", "value": "0", "aria-label": "Your video"}
    assert (tags["span"]["role"], tags["span"]["aria-live"]) == ("status", "polite")
    assert tags["div"]["data-framelane-status"] == "/framelane/status/t-1/"


def test_nothing_is_inline_so_that_a_strict_policy_lets_it_pass() -> None:
    tags = Tags(rendered("t-1"))
    assert tags.text.strip() == ""
    assert tags.found["script"]["src"] == "/static/framelane/progress.js"
    assert not [name for attributes in tags.found.values() for name in attributes if re.match("on|style", name)]
    assert "script" not in Tags(rendered("t-1", "script=False")).found
    assert not re.search(r"\beval\b|innerHTML|new Function|\.style\b", SCRIPT.read_text())


def test_an_id_cannot_leave_its_attribute() -> None:
    assert '"><b' not in rendered('x"><b>')
    tags = Tags(rendered('x"><b a="/ü', "label=task_id")).found
    assert "b" not in tags
    assert tags["progress"]["aria-label"] == 'x"><b a="/ü'


def test_the_script_is_found_and_short() -> None:
    assert finders.find("framelane/progress.js") == str(SCRIPT)
    assert len(SCRIPT.read_text().splitlines()) < 100


# --- the script --------------------------------------------------------------------------------------------------


def status(state: str, percent: int = 0, **more: Any) -> dict[str, Any]:
    over = state in ("SUCCESS", "FAILURE", "REVOKED")
    return {"state": state, "percent": percent, "description": None, "code": None, "is_over": over, **more}


def follow(*answers: Any) -> dict[str, Any]:
    """Run the script on these answers; the last one is given again and again."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    page = Path(__file__).with_name("browser.js")
    done = subprocess.run(
        [node, str(page), str(SCRIPT), json.dumps(answers)], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_it_follows_a_task_to_its_end_and_stops() -> None:
    encoding = status("PROGRESS", 40, description="processing: encoding")
    page = follow(status("PENDING"), encoding, {**encoding, "percent": 80}, status("SUCCESS", 100))
    assert [(one["percent"], one["text"]) for one in page["seen"]] == [
        (0, "Waiting for a worker"),
        (40, "In progress: processing: encoding"),
        (80, "In progress: processing: encoding"),
        (100, "Done"),
    ]
    assert page["spoken"] == 3  # not of each percent: a screen reader would talk without end
    assert (page["classes"], page["events"]) == (["framelane-done"], [["framelane:end", True, "SUCCESS"]])
    assert (len(page["asked"]), page["waits"]) == (4, 0)


def test_it_shows_a_failures_code() -> None:
    page = follow(status("FAILURE", code="source_not_found"))
    assert page["seen"][-1]["text"] == "Failed (source_not_found)"
    assert (page["classes"], len(page["asked"])) == (["framelane-failed"], 1)


def test_it_asks_less_often_while_nothing_changes() -> None:
    asked = follow(status("PROGRESS", 10))["asked"]
    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(asked)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 2000
    assert gaps[-1] == 15000
    assert len(asked) < 60  # of 600 made-up seconds


def test_what_is_not_there_yet_may_come_and_what_never_comes_is_given_up() -> None:
    assert follow(404, 404, status("SUCCESS", 100))["classes"] == ["framelane-done"]
    page = follow(404)
    assert (page["seen"][-1]["text"], len(page["asked"]), page["waits"]) == ("Not found", 5, 0)


@pytest.mark.parametrize(("answer", "text"), [(None, "No answer (offline)"), (503, "No answer (503)")])
def test_a_server_that_is_away_is_waited_for_but_not_for_ever(answer: Any, text: str) -> None:
    assert follow(answer, answer, answer, status("SUCCESS", 100))["classes"] == ["framelane-done"]
    page = follow(answer)
    assert (page["seen"][-1]["text"], len(page["asked"]), page["waits"]) == (text, 20, 0)
