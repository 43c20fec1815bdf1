"""Saving a download: beside its place, and moved there once it is whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import requests

from framelane_celery.client.sending import reason_of
from framelane_celery.errors import TransportError

CHUNK_BYTES = 1 << 16


def save(answer: requests.Response, target: str | os.PathLike[str] | IO[bytes], max_s: float) -> int:
    if not isinstance(target, (str, os.PathLike)):
        return _copy(answer, target, max_s)
    path = Path(target)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            size = _copy(answer, file, max_s)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _copy(answer: requests.Response, file: IO[bytes], max_s: float) -> int:
    size, deadline = 0, time.monotonic() + max_s
    for chunk in _chunks(answer):
        file.write(chunk)
        size += len(chunk)
        if time.monotonic() > deadline:
            raise TransportError(f"the download did not end within {max_s:g} s")
    expected = length_of(answer)
    if expected is not None and expected != size and "Content-Encoding" not in answer.headers:
        raise TransportError(f"the download broke off after {size} of {expected} bytes")
    return size


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(CHUNK_BYTES)
    except requests.RequestException as error:
        raise TransportError(f"the download broke off: {reason_of(error)}") from None


def length_of(answer: requests.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None
