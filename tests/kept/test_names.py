"""None of the names that others hold on to changes by accident, and none is removed in silence."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tests.kept.collect import PARTS, names
from tests.kept.file import GONE, merged, read, untold

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def test_no_name_has_changed() -> None:
    kept = [line for line in read() if not line.startswith(GONE)]
    found = names()
    if found != kept:
        diff = "\n".join(line for line in difflib.unified_diff(kept, found, "kept", "now", n=0, lineterm=""))
        pytest.fail(
            f"{diff}\n\nIf that is intended: make kept, read its diff, and commit it. What is removed or changed stays "
            "in the file behind '- ' and needs a line in CHANGELOG.md that names it in backticks.",
            pytrace=False,
        )


def test_what_was_removed_or_changed_is_in_the_changelog() -> None:
    missing = untold(read(), CHANGELOG.read_text("utf-8"))
    assert not missing, "CHANGELOG.md names none of these in backticks: " + "; ".join(missing)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__.strip("_"))
def test_each_part_finds_something(part: object) -> None:
    assert len(set(part())) >= 2  # type: ignore[operator]


# --- the file itself ---------------------------------------------------------------------------------------------

KEPT = ["setting a = 1", "setting b = 2", "task framelane.x(job)"]


def test_a_new_name_is_added_and_needs_no_word() -> None:
    kept = merged(KEPT, [*KEPT, "setting c = 3"])
    assert kept == [*KEPT[:2], "setting c = 3", KEPT[2]]
    assert untold(kept, "") == []


def test_a_removed_or_changed_one_stays_until_it_is_told() -> None:
    kept = merged(KEPT, ["setting a = 1", "setting b = 7"])
    assert kept == ["setting a = 1", "setting b = 7", "- setting b = 2", "- task framelane.x(job)"]
    assert merged(kept, ["setting a = 1", "setting b = 7"]) == kept
    assert untold(kept, "`framelane.x` is gone") == ["- setting b = 2"]
    assert untold(kept, "b is 7; `framelane.x` is gone") == ["- setting b = 2"]
    assert untold(kept, "`b` is 7 now; `framelane.x` is gone") == []


def test_one_that_comes_back_is_kept_again() -> None:
    assert merged(["- setting b = 2"], KEPT) == KEPT
