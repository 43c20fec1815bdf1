"""What stands in code on the pages is true: each block is of one class, and each class is run or checked."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.docs import commands, stories
from tests.docs.pages import FOLLOWED, PAGES, ROOT, RUN_BY, blocks, texts

DATA = {
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "ini": lambda text: configparser.ConfigParser().read_string(text),
}

BUILT = {"{toctree}", "{eval-rst}"}
"""What Sphinx takes as instructions: `make docs` fails where they are wrong."""

QUOTED = {"docs/compositions.md", "docs/monitoring.md", "docs/testing.md", "docs/reference/cli.md"}
"""Pages whose blocks of text are compared with what is printed: by test_quotes.py, test_reference.py, or their own."""

STORIES = [page for page in PAGES if texts(page, "python") and page not in RUN_BY and page not in FOLLOWED]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_one_class(page: str) -> None:
    checked = {"python", "console", *DATA, *BUILT, *({"text"} if page in QUOTED else ())}
    unknown = [block for block in blocks(page) if block.language not in checked]
    assert page in RUN_BY or page in FOLLOWED or not unknown
    assert [block for block in unknown if not block.language] == []  # indented, or without a word: nobody could say


@pytest.mark.parametrize("page", PAGES)
def test_sybil_sees_every_block_of_python(page: str) -> None:
    document = Sybil([PythonCodeBlockParser()], path=str((ROOT / page).parent)).parse(ROOT / page)
    assert [str(example.parsed) for example in document.examples()] == texts(page, "python")


@pytest.mark.parametrize("page", STORIES)
def test_the_python_of_the_page_runs(page: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.docs.stories", page]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_story_has_its_page() -> None:
    assert stories.STORIES.keys() <= set(STORIES)


@pytest.mark.parametrize("page", RUN_BY)
def test_the_test_that_runs_a_page_names_it(page: str) -> None:
    assert texts(page, "python")
    assert Path(page).name in (ROOT / RUN_BY[page]).read_text()


def test_each_page_that_is_followed_is_named_where_it_is() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests" / "docs_followed").glob("*.py"))
    assert [page for page in FOLLOWED if Path(page).stem not in tests] == []


@pytest.mark.filterwarnings("ignore:The parameter -d is used more than once:UserWarning")  # Celery's own, by click 8.5
@pytest.mark.parametrize("page", [page for page in PAGES if page not in FOLLOWED])
def test_every_command_is_there_with_its_options(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in texts(page, "console"):
        shown = list(commands.commands(text))
        assert shown, f"no command in:\n{text}"
        for words in shown:
            commands.check(words, page)
    commands.check_inline(page)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in FOLLOWED])
def test_data_can_be_read(page: str) -> None:
    for block in blocks(page):
        if block.language in DATA:
            assert DATA[block.language](block.text) != "", block


@pytest.mark.filterwarnings("ignore:The parameter -d is used more than once:UserWarning")
@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "celery -A shop framelane nothing",
        "celery -A shop framelane waiting --nothing",
        "celery -A shop framelane dead replay --nothing",
        "celery -A shop worker --nothing",
        "framelane-celery serve --nothing",
        "pip install framelane-celery[nothing]",
        "python nothing.py",
        "python -m nothing",
        "nothing",
    ],
)
def test_a_command_that_is_not_there_is_told_of(line: str) -> None:
    (words,) = commands.commands(f"$ {line}")
    with pytest.raises((AssertionError, commands.click.UsageError)):
        commands.check(words, "README.md")
