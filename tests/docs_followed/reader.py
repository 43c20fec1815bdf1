"""A reader who follows a page literally: makes the files it names, types its commands, sees what it shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.wheel import the_wheel
from tests.docs_followed.pages import ROOT, Block, blocks_of, sections_of
from tests.docs_followed.terminals import Command, Terminal, commands_in

_OURS = ("FRAMELANE", "DJANGO", "CELERY", "PYTHON", "VIRTUAL_ENV", "PIP", "COLUMNS")


def fresh_environ(**more: str) -> dict[str, str]:
    """That of a reader's shell: this Python as `python3`, and nothing of the test's own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    path = os.pathsep.join([str(Path(sys.base_prefix, "bin")), environ.get("PATH", os.defpath), "/usr/sbin"])
    return {**environ, "PATH": path, "PYTHONUNBUFFERED": "1", **more}


def build_wheel(folder: Path) -> dict[str, str]:
    """The wheel under test; the variables by which pip takes it, and else what the suite is pinned to."""
    wheel = the_wheel(folder)
    pins = (ROOT / "requirements" / "test.txt").read_text()
    constraints = folder / "constraints.txt"
    constraints.write_text(f"framelane-celery=={wheel.name.split('-')[1]}\n{pins}")
    return {
        "PIP_CONSTRAINT": str(constraints),
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


class Reader:
    """Follows one page in one folder. `instead` says what this machine has in place of what the page names."""

    def __init__(self, page: Path, folder: Path, environ: Mapping[str, str], instead: Mapping[str, str]) -> None:
        text = page.read_text()
        unnamed = [name for name in instead if name not in text]
        assert not unnamed, f"{page.name} does not name {unnamed}"
        self.folder, self.project = folder, folder
        self._environ, self._instead = dict(environ), dict(instead)
        self._blocks = blocks_of(page)
        self._left = sections_of(page)
        self._terminals: dict[str, Terminal] = {}
        self.others: dict[str, Callable[[Command], None]] = {}
        """What commands that begin so are given to, in place of the shell."""
        self.languages: dict[str, Callable[[str], None]] = {}
        """What blocks in a language are given to that has no place to be typed."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for terminal in reversed(self._terminals.values()):
            terminal.stop()

    def terminal(self, name: str) -> Terminal:
        """One that is opened when it is named first: in the project's folder."""
        if name not in self._terminals:
            log = self.folder / f"{name}-terminal.log"
            self._terminals[name] = Terminal(name, self.project, self._environ, log)
        return self._terminals[name]

    def follow(self, section: str) -> None:
        """Do all that the next section says."""
        self.pass_over(section)
        for block in self._blocks:
            if block.section == section:
                self._do(block)

    @property
    def is_through(self) -> bool:
        """Whether no section is left."""
        return not self._left

    def pass_over(self, section: str) -> None:
        """The next section, which is not for here."""
        assert self._left[:1] == [section], f"the next section is {self._left[:1]}, not {section!r}"
        del self._left[0]

    def _do(self, block: Block) -> None:
        if block.language == "console":
            terminal = self.terminal(block.terminal)
            for command in commands_in(self._here(block.text)):
                other = next((self.others[head] for head in self.others if command.text.startswith(head)), None)
                if other is not None:
                    other(command)
                else:
                    terminal.type(command)
        elif block.edit is not None:
            self._write(block)
        elif block.language == "text":
            self.terminal(block.terminal).see(*self._here(block.text).splitlines())
        elif block.language in self.languages:
            self.languages[block.language](block.text)
        else:
            raise AssertionError(f"line {block.line}: what to do with this block? Its lead: {block.lead!r}")

    def _write(self, block: Block) -> None:
        assert block.edit is not None
        path, how = self.project / self._here(block.edit.path), block.edit.how
        text = self._here(block.text)
        if how == "a new file":
            assert not path.exists(), f"{path} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            assert path.exists(), f"{path} is not there"
        before = path.read_text() if how == "at the end" else ""
        path.write_text(before + ("\n" if before else "") + text)

    def _here(self, text: str) -> str:
        for name, ours in self._instead.items():
            text = text.replace(name, ours)
        return text
