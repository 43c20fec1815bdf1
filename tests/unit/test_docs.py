"""The docs name tests and files: each of them must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import framelane_celery
from tests.docs.pages import PAGES

ROOT = Path(__file__).parents[2]
PACKAGE = Path(framelane_celery.__file__).parent  # elsewhere, where the wheel is tested
HOW = (ROOT / "docs" / "how-it-works.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()


def test_every_test_that_a_guarantee_names_is_there() -> None:
    table = GUARANTEES.split("## What is not")[0]
    named = re.findall(r"`((?:tests/\w+/)?test_\w+\.py)?(?:::(test_\w+))?`", table)
    assert len(named) > 20
    folder, file = "", ""
    for path, test in named:
        if "/" in path:
            folder = path.rpartition("/")[0]
        file = path.rpartition("/")[2] or file
        source = (ROOT / folder / file).read_text()
        assert not test or f"def {test}(" in source, f"{folder}/{file}::{test}"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    """Files only: `make docs` checks the anchors too."""
    for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)", (ROOT / page).read_text()):
        target = ((ROOT / page).parent / link).resolve()
        assert target.exists() or (PACKAGE.parent / target.relative_to(ROOT)).exists(), link


def test_the_files_of_the_tour_are_there() -> None:
    tour = HOW.split("## One render")[1].split("## How jobs")[0]
    for name in re.findall(r"`([\w/]+\.py)`", tour):
        assert any(candidate.as_posix().endswith(f"/{name}") for candidate in PACKAGE.rglob("*.py")), name
