"""The reader itself: a page with something wrong in it fails, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs_followed.pages import blocks_of
from tests.docs_followed.reader import Reader, fresh_environ
from tests.docs_followed.services import environment_in, unit_in
from tests.docs_followed.terminals import Command, commands_in, is_shown

FINE = """
# A page

## Begin

`shop/a.py`, a new file:

```python
print("one")
```

`shop/a.py`, at the end (of it):

```python
print("two")
```

In the second terminal:

```console
$ export WORD=kept
$ cd shop
$ python3 a.py
one
…
```

Still in the second terminal:

```console
$ echo $WORD
kept
```
"""

WRONG = {
    "a command that fails": ("python3 a.py", "python3 b.py"),
    "what is shown": ("\none\n", "\none more\n"),
    "its order": ("one\n…\n", "two\none\n"),
    "a new file that is there": ("at the end (of it)", "a new file"),
    "an edit of a file that is not there": ("`shop/a.py`, a new file", "`shop/a.py`, at the end"),
    "code": ('print("one")', 'print("one"'),
    "the terminal": ("Still in the second", "Still in the first"),
    "a block without a place": ("`shop/a.py`, a new file:", "Some code:"),
    "the section": ("## Begin", "## Start"),
}


def follow(text: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    page = folder / "page.md"
    page.write_text(text)
    with Reader(page, folder, fresh_environ(), {}) as reader:
        reader.follow("Begin")
        assert reader.is_through


def test_a_page_that_is_right(tmp_path: Path) -> None:
    follow(FINE, tmp_path)
    assert (tmp_path / "shop" / "a.py").read_text() == 'print("one")\n\nprint("two")\n'


@pytest.mark.parametrize("name", WRONG)
def test_a_page_that_is_wrong(name: str, tmp_path: Path) -> None:
    right, wrong = WRONG[name]
    assert right in FINE
    with pytest.raises(AssertionError):
        follow(FINE.replace(right, wrong), tmp_path)


def test_what_this_machine_has_instead_has_to_be_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(FINE)
    with pytest.raises(AssertionError, match="redis"):
        Reader(page, tmp_path, {}, {"redis://localhost": "redis://elsewhere"})


def test_a_program_that_stays_is_seen_and_stopped(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("## Serve\n\n```console\n$ framelane-celery serve\nready\n^C\n$ echo ended\nended\n```\n")
    program = tmp_path / "framelane-celery"
    program.write_text("#!/bin/sh\necho ready\nexec sleep 600\n")
    program.chmod(0o755)
    environ = fresh_environ()
    with Reader(page, tmp_path, {**environ, "PATH": f"{tmp_path}:{environ['PATH']}"}, {}) as reader:
        reader.follow("Serve")
    program.write_text("#!/bin/sh\necho not quite\n")
    with (
        Reader(page, tmp_path, {**environ, "PATH": f"{tmp_path}:{environ['PATH']}"}, {}) as reader,
        pytest.raises(AssertionError, match="not quite"),
    ):
        reader.follow("Serve")


def test_what_is_shown() -> None:
    log = "first\n[12:00] task[ab-1]: start -> running\nlast\n"
    assert is_shown(("[…] task[…]: start -> running", "…", "last"), log)
    assert not is_shown(("last", "first"), log)
    assert not is_shown(("task",), log)  # a whole line, unless it says otherwise
    assert is_shown((), "")


def test_commands_and_what_follows_them() -> None:
    assert list(commands_in("$ a\n1\n2\n^C\n$ b\n")) == [Command("a", ("1", "2")), Command("^C", ()), Command("b", ())]


def test_blocks_in_lists_are_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("1. Do:\n\n   ```python\n   if a:\n       b\n   ```\n")
    [block] = blocks_of(page)
    assert (block.language, block.text, block.line) == ("python", "if a:\n    b\n", 3)


def test_units_and_environments(tmp_path: Path) -> None:
    unit, environ = tmp_path / "x.service", tmp_path / "x.env"
    unit.write_text("[Service]\nExecStart=/bin/true %%h\n")
    environ.write_text("# a comment\nA=b=c\n")
    assert unit_in(unit)["Service"]["ExecStart"] == "/bin/true %%h"
    assert environment_in(environ) == {"A": "b=c"}
