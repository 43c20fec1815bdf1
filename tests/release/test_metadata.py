"""What the wheel says of itself, and that the tests run what they say they run."""

from __future__ import annotations

import email
import email.message
import re
import site
import zipfile
from pathlib import Path

import pytest

import framelane_celery
from scripts import wheel

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
UNOFFICIAL = "not affiliated with, endorsed or supported by Framelane"


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> email.message.Message:
    with zipfile.ZipFile(wheel.the_wheel(tmp_path_factory.mktemp("dist"))) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_package_under_test_is_the_wheel_where_there_is_no_source() -> None:
    there = Path(framelane_celery.__file__).parent.parent
    if (ROOT / "framelane_celery").exists():
        assert there == ROOT
    else:
        assert str(there) in site.getsitepackages()
        assert ROOT.is_relative_to(there.parents[3])  # build/wheel: beside the checkout, in an environment of its own


def test_one_version(metadata: email.message.Message) -> None:
    assert metadata["Version"] == framelane_celery.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)[0]
    assert newest in ("Unreleased", framelane_celery.__version__)


def test_it_says_that_it_is_no_official_project(metadata: email.message.Message) -> None:
    assert UNOFFICIAL in metadata["Summary"]
    assert UNOFFICIAL in README
    assert UNOFFICIAL in (ROOT / "docs" / "index.md").read_text()
    assert "unofficial" in str(framelane_celery.__doc__)


def test_its_licence(metadata: email.message.Message) -> None:
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["License-File"] == "LICENSE"
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")


def test_the_versions_of_the_readme_are_those_of_the_pins() -> None:
    table = README.split("## Versions")[1]
    for file, name in (("test", "celery"), ("celery55", "celery")):
        pins = (ROOT / "requirements" / f"{file}.txt").read_text()
        assert re.findall(rf"^{name}==(.+)$", pins, re.MULTILINE)[0] in table
    for file in ("django42", "test", "django6"):
        pins = (ROOT / "requirements" / f"{file}.txt").read_text()
        (version,) = re.findall(r"^Django==(\d+\.\d+)", pins, re.MULTILINE)
        assert version in table
