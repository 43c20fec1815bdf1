"""docs/dependencies.md against the wheel's metadata, resolved with what is installed here."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import wheel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()
DIRECT, ALONG, RICH, EXTRAS = (part.split("\n## ")[0] for part in re.split(r"\n## .*\n", PAGE))


@pytest.fixture(scope="module")
def requires(tmp_path_factory: pytest.TempPathFactory) -> list[Requirement]:
    """What the wheel says that it requires."""
    with zipfile.ZipFile(wheel.the_wheel(tmp_path_factory.mktemp("dist"))) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return [
            Requirement(line) for line in email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
        ]


def is_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def plain(requires: list[Requirement]) -> list[Requirement]:
    return [one for one in requires if is_for(one, "")]


def resolved(requires: list[Requirement]) -> dict[str, Distribution]:
    """Everything that pip would install, by name."""
    found: dict[str, Distribution] = {}
    todo = [one.name for one in requires]
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found[name] = distribution(name)
            todo += [one.name for one in map(Requirement, found[name].requires or ()) if is_for(one, "")]
    return found


def size_mb(found: dict[str, Distribution]) -> float:
    files = [file for one in found.values() for file in one.files or () if file.suffix != ".pyc"]
    return sum(file.size or 0 for file in files) / 1e6


def rows(part: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| `")
    ]


def test_what_is_required_is_explained(requires: list[Requirement]) -> None:
    told = {row[0].strip("`"): row[1].removesuffix(", before 6") for row in rows(DIRECT)}
    oldest = {
        one.name: next(bound.version for bound in one.specifier if bound.operator == ">=") for one in plain(requires)
    }
    assert told == oldest
    assert "5.5, before 6" in DIRECT
    assert "<6" in str(next(one.specifier for one in requires if one.name == "celery"))


def test_what_comes_along_is_named(requires: list[Requirement]) -> None:
    along = set(re.findall(r"`([\w-]+)`", ALONG))
    direct = {one.name for one in plain(requires)}
    assert resolved(plain(requires)).keys() - direct == along
    assert f"{len(along | direct)} packages" in DIRECT


def test_the_sizes_are_about_right(requires: list[Requirement]) -> None:
    """Versions differ by a few percent: more than a fifth would be another story."""
    everything, of_celery = resolved(plain(requires)), resolved([Requirement("celery")])
    total, celery = map(float, re.findall(r"about\s+(\d+) MB", DIRECT))
    assert size_mb(everything) == pytest.approx(total, rel=0.2)
    assert size_mb(of_celery) == pytest.approx(celery, rel=0.2)
    assert f"is {len(of_celery)} packages" in DIRECT
    with_celery = {row[0].strip("`") for row in rows(DIRECT) if row[3] == "yes"}
    assert with_celery == {one.name for one in plain(requires)} & of_celery.keys()
    rich = {name: everything[name] for name in resolved([Requirement("rich")])}
    assert size_mb(rich) == pytest.approx(float(re.findall(r"It is (\d+) MB", PAGE)[0]), rel=0.2)


def test_extras_are_explained(requires: list[Requirement]) -> None:
    told = {row[0].strip("`"): set(re.findall(r"`([^`]+)`", row[1])) for row in rows(EXTRAS)}
    names = {match for one in requires for match in re.findall(r'extra == "(\w+)"', str(one.marker or ""))}
    there = {
        name: {str(one).partition(">")[0] for one in requires if one.marker is not None and is_for(one, name)}
        for name in names
    }
    assert told == there


def test_no_worker_and_no_web_process_imports_rich() -> None:
    code = (
        "import sys; import framelane_celery, framelane_celery.watching.step, framelane_celery.watching.watcher\n"
        "from framelane_celery import FramelaneClient; import framelane_celery.webhooks\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('rich', 'pygments', 'werkzeug')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n", ran.stderr
