"""Saving a file that comes: beside its place, and moved there once it is whole."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from framelane_celery.errors import TransportError

_ABANDONED_AFTER_S = 24 * 3600.0


@contextmanager
def beside(path: Path) -> Iterator[IO[bytes]]:
    """A file beside ``path`` that takes its place if all goes well, and is gone if not.

    What a killed process has left beside it is cleared a day later, when nobody can be writing it any more.
    """
    _clear_abandoned(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name with half of the bytes
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _clear_abandoned(path: Path) -> None:
    opening = f".{path.name}."
    for other in path.parent.iterdir() if path.parent.is_dir() else ():
        if other.name.startswith(opening) and other.name.endswith(".part"):
            with contextlib.suppress(OSError):  # another process may be as tidy
                if time.time() - other.stat().st_mtime > _ABANDONED_AFTER_S:
                    other.unlink()


class Restartable:
    """A target that can be begun anew, from where it stood: needed when a transfer cannot be resumed.

    Raises: TransportError from `restart`, if what was written cannot be taken back.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell() if _is_seekable(file) else None

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def restart(self) -> None:
        if self._start is None:
            raise TransportError(
                "the download broke off, and what was written cannot be taken back: the target is a stream"
            )
        self._file.seek(self._start)
        self._file.truncate()


def _is_seekable(file: IO[bytes]) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable and seekable())
