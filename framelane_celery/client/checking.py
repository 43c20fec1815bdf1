"""Whether a file that came is the one that was sent: its size, and its checksum where the storage tells one."""

from __future__ import annotations

import base64
import hashlib
import re

import requests

from framelane_celery.errors import TransportError


class Receipt:
    """Counts and hashes what is written, and compares it with what was announced."""

    def __init__(self, size_bytes: int | None) -> None:
        self._promised = size_bytes
        self.restart()

    def restart(self) -> None:
        self.done_bytes = 0
        self.total_bytes = self._promised
        self.is_encoded = self.is_wrong = False
        self._md5: bytes | None = None
        self._hash = hashlib.md5(usedforsecurity=False)

    def expect(self, answer: requests.Response) -> None:
        """Take what the headers of an answer with the whole file announce.

        Source: `x-goog-hash` and `Content-MD5` are Google's and RFC 1864's; that artefacts are on GCS is marketing's
                word (framelane_api.md §2), so both are read where they are, and missed by nobody.
        """
        self.is_encoded = "Content-Encoding" in answer.headers  # then sizes and sums are of other bytes than ours
        if self.is_encoded:
            return
        told = length_of(answer)
        self.total_bytes = self._promised if told is None else told
        self._md5 = _md5_of(answer.headers.get("x-goog-hash"), answer.headers.get("Content-MD5"))

    def take(self, chunk: bytes) -> None:
        self.done_bytes += len(chunk)
        if self._md5 is not None:
            self._hash.update(chunk)

    def check(self) -> None:
        """Raises: TransportError, if this is not the file that was announced."""
        done, total = self.done_bytes, None if self.is_encoded else self.total_bytes
        if total is not None and done < total:  # more of it may come
            raise TransportError(f"the download broke off after {done} of {total} bytes")
        self.is_wrong = True
        if not self.is_encoded and self._promised not in (None, done):
            raise TransportError(f"the file has {done} bytes, and should have {self._promised}")
        if self._md5 is not None and self._md5 != self._hash.digest():
            raise TransportError("the file's checksum is not the one that storage tells")
        self.is_wrong = False


def length_of(answer: requests.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _md5_of(google: str | None, plain: str | None) -> bytes | None:
    named = re.search(r"\bmd5=([A-Za-z0-9+/]{22}==)", google or "")
    text = named[1] if named else plain or ""
    try:
        digest = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


def resumes_at(answer: requests.Response, done_bytes: int) -> bool:
    """Whether an answer goes on exactly where the last one broke off: `Content-Range: bytes 100-199/200`."""
    ranged = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return answer.status_code == 206 and ranged is not None and int(ranged[1]) == done_bytes
