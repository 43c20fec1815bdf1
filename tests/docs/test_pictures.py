"""The README's pictures are what the scripts make, and its figures are those of docs/performance.md."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from scripts import flow, recording
from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()


def test_the_picture_is_drawn_by_its_script() -> None:
    assert flow.PICTURE.read_text() == flow.picture(), "run: make pictures"


def test_the_recording_shows_the_demo_to_its_end() -> None:
    """It is made of a run, so no two are the same: what is held is that it is whole, and says what the README says."""
    svg = recording.PICTURE.read_text()
    ET.fromstring(svg)
    shown = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert "$ make demo" in shown
    assert "Jobs        10 on the server, by 10 POSTs; paid twice: 0" in shown
    assert any(line.startswith("Slots held  0 of 1") for line in shown)
    assert any("processing: " in line for line in shown)


def test_a_recording_is_made_of_what_stood_on_the_screen() -> None:
    empty = [()] * recording.LINES
    one, other = ((0, "one", "default", False),), ((2, "other", "green", True),)
    screens = [(0.0, empty), (1.0, [one, *empty[1:]]), (2.0, [other, one, *empty[2:]]), (3.0, [other, one, *empty[2:]])]
    shown = recording.spans(screens)
    assert [(span.row, span.line[0][1], span.from_s, span.to_s) for span in shown] == [
        (0, "one", 1.0, 2.0),
        (0, "other", 2.0, None),
        (1, "one", 2.0, None),
    ]
    svg = recording.picture(shown, 9.0)
    begins = [float(begin) for begin in re.findall(r't\.begin\+([\d.]+)s" dur="1\.00s"', svg)]
    assert begins == [1.0]
    assert svg.count('to="hidden" begin="t.begin" dur="2.00s"') == 2


FIGURES = README.split("\n## Figures\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("row", re.findall(r"^\| [^|]+ \| .*\d.* \|$", FIGURES, re.MULTILINE))
def test_a_figure_of_the_readme_is_measured(row: str) -> None:
    figures = re.findall(r"\d+\.\d+ s / [\d.]+ s|\d\.\d+|\d+ MB", row)
    assert len(figures) >= 2
    assert [figure for figure in figures if figure not in PERFORMANCE] == []


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 220
