"""The pages, and the blocks of code in them. A block has a class, by its language, which says how it is held true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]

PAGES: Final = tuple(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/*.md", "docs/[a-z]*/**/*.md", "examples/**/README.md", "tests/suite/README.md")
    for path in sorted(ROOT.glob(pattern))
)

RUN_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "README.md": "tests/demo/test_readme.py",
        "docs/accounts.md": "tests/unit/test_accounts_page.py",
        "docs/client.md": "tests/unit/test_client_docs.py",
        "docs/compositions.md": "tests/unit/test_compositions_page.py",
        "docs/django.md": "tests/django/test_docs.py",
        "docs/monitoring.md": "tests/unit/test_monitoring_docs.py",
        "docs/pipelines.md": "tests/unit/test_pipelines_page.py",
        "docs/testing.md": "tests/plugin/test_plugin.py",
    }
)
"""Pages with a test of their own, which runs all their blocks of Python and says what comes of them. Those of every
other page are a story of `stories`."""


FOLLOWED: Final = frozenset(page for page in PAGES if page == "docs/tutorial.md" or page.startswith("docs/guides/"))
"""Pages that tests/docs_followed follows literally: their files are written, their commands typed."""


class Block(NamedTuple):
    page: str
    line: int
    language: str
    """The word after the fence, without braces; "" where there is none, or the block is merely indented."""
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Every block of code of a page, as a reader of Markdown sees it: fenced or indented, in lists too."""
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text()):
        if token.type in ("fence", "code_block"):
            words = token.info.split()
            yield Block(page, (token.map or [0])[0] + 1, words[0] if words else "", token.content)


def texts(page: str, language: str) -> list[str]:
    """The blocks of one language, in their order."""
    return [block.text for block in blocks(page) if block.language == language]
