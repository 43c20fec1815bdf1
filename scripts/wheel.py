"""Build the wheel, install it, and lay out a checkout without the package: what tests there import is the wheel's.

    build/wheel/dist/      the wheel
    build/wheel/checkout/  the checkout, without framelane_celery and its two top-level modules
    build/wheel/venv…/     for each virtual environment that is named: all that is in it, and the wheel in place of the
                           checkout

A virtual environment of the second kind is made of links in a second; making one from the index takes minutes.
`tests/release` uses the parts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / "build" / "wheel"

CHECKOUT = (
    "benchmarks", "docs", "examples", "requirements", "scripts", "tests",
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml",
)  # fmt: skip
"""What the source distribution has beside the package: `[tool.hatch.build.targets.sdist]` in pyproject.toml."""

OURS = ("framelane_celery", "_editable_impl_framelane_celery")


def build(folder: Path, *, source: Path = ROOT, kind: str = "wheel") -> Path:
    """Build a wheel or an sdist with the pinned backend, looking nothing up; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder], cwd=source, check=True,
        capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def the_wheel(folder: Path) -> Path:
    """The wheel under test: built into a folder, or, where there is no source any more, the one beside the checkout."""
    if (ROOT / "framelane_celery").exists():
        return build(folder)
    (wheel,) = (ROOT.parent / "dist").glob("*.whl")
    return wheel


def lay_out(folder: Path, source: Path = ROOT) -> None:
    """Copy the checkout without the package."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in CHECKOUT:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source / name, folder / name)


def make_venv(folder: Path, python: Path) -> Path:
    """Make a virtual environment with everything that another one has, but for this package; its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    there, here = site_packages(python.parent.parent), site_packages(folder)
    for path in there.iterdir():
        if not path.name.startswith(OURS) and path.name != "__pycache__":
            (here / path.name).symlink_to(path)
    for script in python.parent.iterdir():
        _copy_script(script, folder / "bin" / script.name, folder)
    return folder / "bin" / "python"


def site_packages(venv: Path) -> Path:
    (found,) = venv.glob("lib/python3.*/site-packages")
    return found


def _copy_script(script: Path, to: Path, venv: Path) -> None:
    """A script names its Python in its first line; ours come with the wheel."""
    if script.is_symlink() or to.exists() or script.name == "framelane-celery":
        return
    content = script.read_bytes()
    if content.startswith(b"#!") and b"python" in content.partition(b"\n")[0]:
        content = b"#!" + os.fsencode(venv / "bin" / "python") + b"\n" + content.partition(b"\n")[2]
    to.write_bytes(content)
    to.chmod(0o755)


def install(python: Path, wheel: Path) -> None:
    """Install the wheel, and nothing else."""
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-qq", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--force-reinstall", wheel], check=True)


def main(venvs: list[str]) -> None:
    shutil.rmtree(HOME / "dist", ignore_errors=True)
    wheel = build(HOME / "dist")
    lay_out(HOME / "checkout")
    for name in venvs:
        install(make_venv(HOME / name.lstrip("."), ROOT / name / "bin" / "python"), wheel)
    print(f"built and installed {wheel.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
