"""docs/compositions.md: its snippets in their order, in a process of their own, and the messages they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.docs.pages import blocks, texts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compositions.md").read_text()

STORY = """
import json, sys
import django
from celery import Celery
from django.conf import settings
from pydantic import ValidationError
from framelane_celery import InvalidArguments
from framelane_celery.models import invalid_arguments
settings.configure()
django.setup()
app = Celery("page", broker="memory://", backend="cache+memory://")
names, raised = {}, []
for source in json.load(sys.stdin):
    try:
        exec(source, names)
        raised.append("")
    except InvalidArguments as error:
        raised.append(str(error))
    except ValidationError as error:
        raised.append(str(invalid_arguments(error)))
forms = [
    names["CompositionForm"]({"composition": json.dumps({"elements": [{"type": "text", "text": "x", "duration": 0}]})}),
    names["CompositionForm"]({"composition": '{"width": 1080, "height": 1920}'}),
    names["TitleForm"]({"text": "x", "duration": 3, "font_weight": 50, "text_align": "left"}),
    names["TitleForm"]({"text": "x", "duration": 3, "font_weight": 500, "text_align": "left"}),
]
checked = [form.errors.get_json_data() for form in forms]
print(json.dumps([raised, checked, forms[1].cleaned_data, forms[3].element().model_dump(exclude_unset=True)]))
"""


def run(arguments: list[str], input: str = "") -> str:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, env=environ, input=input, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_snippets_do_what_the_page_says() -> None:
    sources = texts("docs/compositions.md", "python")
    pairs = pairwise(blocks("docs/compositions.md"))
    printed = {block.text: after.text.strip() for block, after in pairs if after.language == "text"}
    raised, checked, composition, title = json.loads(run([sys.executable, "-c", STORY], input=json.dumps(sources)))
    assert len(printed) == 2
    assert raised == [printed.get(source, "") for source in sources]
    assert checked[0]["composition"][0]["message"] == "RenderRequest: elements[0].duration: must be greater than 0"
    assert composition == {"composition": {"width": 1080, "height": 1920}}
    assert (checked[1], checked[2].keys(), checked[3]) == ({}, {"font_weight"}, {})
    assert title == {"type": "text", "text": "x", "duration": 3, "font_weight": 500, "text_align": "left"}


def test_the_command_writes_the_schema() -> None:
    (code,) = re.findall(r'\$ python -c "(.*)" > render.schema.json', PAGE)
    schema = json.loads(run([sys.executable, "-c", code]))
    assert {"VideoElement", "TextElement"} <= schema["$defs"].keys()


def test_the_settings_are_what_the_tests_use() -> None:
    (settings,) = texts("docs/compositions.md", "json")
    assert json.loads(settings)["json.schemas"][0]["url"] == "./render.schema.json"
    assert "init_typed = true" in PAGE
    assert "init_typed = true" in (ROOT / "tests" / "unit" / "test_typing.py").read_text()
