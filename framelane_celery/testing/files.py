"""What storage keeps, and how it is read: in pieces, with an ETag and Google's checksum, or from the middle on."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from werkzeug.wrappers import Response

from framelane_celery.testing.calls import Call

PIECE_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Content:
    """A small file, or one that is made large: `data`, then blocks that differ, so that a shifted byte is noticed."""

    data: bytes
    size_bytes: int

    def pieces(self, start: int) -> Iterator[bytes]:
        """The bytes from `start` on."""
        if start < len(self.data):
            yield self.data[start:]
        at = max(start, len(self.data))
        while at < self.size_bytes:
            number, offset = divmod(at - len(self.data), PIECE_BYTES)
            piece = _block(number)[offset : offset + self.size_bytes - at]
            at += len(piece)
            yield piece


@dataclass(frozen=True)
class Uploaded:
    """A file that was put there."""

    path: Path
    size_bytes: int

    def pieces(self, start: int) -> Iterator[bytes]:
        """The bytes from `start` on."""
        with self.path.open("rb") as file:
            file.seek(start)
            while piece := file.read(PIECE_BYTES):
                yield piece


def serve_file(call: Call, stored: Content | Uploaded, content_type: str) -> Response:
    """Answer a GET for a file, or for the rest of it (`Range: bytes=100-`, RFC 9110 §14).

    INFER: storage is Google's (marketing: "signed GCS URL"), so it has `ETag`, `If-Range` and `x-goog-hash`.
    """
    digest = md5_of(stored)
    headers = {
        "ETag": f'"{digest.hex()}"',
        "Accept-Ranges": "bytes",
        "x-goog-hash": f"crc32c=AAAAAA==, md5={base64.b64encode(digest).decode()}",
    }
    start, wanted = 0, re.fullmatch(r"bytes=(\d+)-", call.request.headers.get("Range", ""))
    if wanted is not None and call.request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
        start = int(wanted[1])
        if start >= stored.size_bytes:
            return Response(status=416, headers={"Content-Range": f"bytes */{stored.size_bytes}"})
        headers["Content-Range"] = f"bytes {start}-{stored.size_bytes - 1}/{stored.size_bytes}"
        call.note = f"from {start}"
    headers["Content-Length"] = str(stored.size_bytes - start)
    status = 206 if "Content-Range" in headers else 200
    return Response(stored.pieces(start), status, headers, content_type=content_type)


@cache
def md5_of(stored: Content | Uploaded) -> bytes:
    """Its checksum, in constant memory."""
    made = hashlib.md5(usedforsecurity=False)
    for piece in stored.pieces(0):
        made.update(piece)
    return made.digest()


def _block(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest() * (PIECE_BYTES // 32)
