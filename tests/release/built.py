"""The wheel and the sdist against the checkout that they are built from: run by `make wheel`, as it needs the source.

(Where `make test` runs the rest, there is no source: so this is no `test_….py`.)
"""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts import wheel

ROOT = Path(__file__).parents[2]
MODULES = ("framelane_celery_command.py", "framelane_celery_pytest.py")
NOT_IN_THE_SDIST = {".ci/run"}
"""What only this repository's own CI needs."""


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: there is nothing to compare with")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with zipfile.ZipFile(wheel.build(tmp_path_factory.mktemp("wheel"))) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(wheel.build(folder, kind="sdist")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def is_the_package(name: str) -> bool:
    return name.startswith("framelane_celery/") or name in MODULES


def test_the_wheel_is_the_package_and_nothing_else(tracked: set[str], packed: set[str]) -> None:
    info = {name for name in packed if name.partition("/")[0].endswith(".dist-info")}
    assert packed - info == {name for name in tracked if is_the_package(name)}
    assert {name.partition("/")[2] for name in info} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", [".lua", "alerts.yml", "grafana-dashboard.json", ".html", ".css", ".js", "0001_initial.py", "py.typed"]
)
def test_its_data_is_in_it(packed: set[str], kind: str) -> None:
    assert any(name.endswith(kind) for name in packed)


def test_the_sdist_is_complete(tracked: set[str], sdist: Path) -> None:
    there = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    assert there - tracked == {"PKG-INFO"}
    assert tracked - there == NOT_IN_THE_SDIST


def test_the_sdist_makes_the_same_wheel(sdist: Path, packed: set[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel.build(tmp_path, source=sdist)) as archive:
        assert set(archive.namelist()) == packed


def test_the_tests_are_laid_out_without_the_package(tracked: set[str], tmp_path: Path) -> None:
    wheel.lay_out(tmp_path / "checkout")
    there = {str(path.relative_to(tmp_path / "checkout")) for path in (tmp_path / "checkout").rglob("*")}
    assert not [name for name in there if is_the_package(name)]
    wanted = {name for name in tracked if not is_the_package(name)} - NOT_IN_THE_SDIST - {".gitignore"}
    assert wanted <= there
