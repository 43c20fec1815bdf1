"""A file on its way out, as `requests` reads it: block by block, of a size that is told beforehand."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Final

from framelane_celery.errors import InvalidArguments

BLOCK_BYTES: Final = 1 << 16

Progress = Callable[[int, int], None]
"""Is told of bytes done, and of how many there are in all."""


class Outgoing:
    """Reads a file from where it stands to where it ends now. Raises: InvalidArguments; see `left_in`."""

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        self._file, self._progress = file, progress
        self.total_bytes, self.done_bytes = left_in(file), 0

    def __len__(self) -> int:
        return self.total_bytes

    def read(self, _size: int = -1) -> bytes:
        """The next block, whatever is asked for: small ones would cost a call each, and all of it memory.

        What a file has gained meanwhile is not sent: its length is on the wire already.
        """
        block = self._file.read(min(BLOCK_BYTES, self.total_bytes - self.done_bytes))
        self.done_bytes += len(block)
        if block and self._progress is not None:
            self._progress(self.done_bytes, self.total_bytes)
        return block


def left_in(file: IO[bytes]) -> int:
    """How many bytes a file has from where it stands.

    Raises: InvalidArguments, if there are none, or that cannot be told: `requests` would send it in chunks then, and
    signed URLs take no such thing (INFER, of Google's: Content-Length is required).
    """
    if not file.seekable():
        raise InvalidArguments("the file to upload must be seekable: its size has to be told beforehand", "source")
    at = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(at)
    if end <= at:
        raise InvalidArguments("the file to upload is empty", "source")
    return end - at
