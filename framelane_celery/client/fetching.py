"""Fetching one file from storage: in pieces if need be, and never a wrong one.

A transfer that breaks off is resumed where it stood, if storage can say that the file is still the same one, else
begun anew. Each try asks for a fresh link: the old one may have expired meanwhile. The key is in none of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

import requests

from framelane_celery.client.checking import Receipt, resumes_at
from framelane_celery.client.saving import Restartable
from framelane_celery.client.sending import NO_AUTH, new_session, reason_of, send_unseen
from framelane_celery.errors import TransportError, clean_text

CHUNK_BYTES: Final = 1 << 16

TRIES: Final = 4
"""How often in a row a transfer may gain nothing, before it is given up."""

PAUSE_MAX_S: Final = 1.0

Progress = Callable[[int, "int | None"], None]
"""Is told of bytes done, and of how many there are in all, if that is known."""


class Fetch:
    """One file on its way."""

    def __init__(
        self,
        target: Restartable,
        *,
        timeout: tuple[float, float],
        max_s: float,
        size_bytes: int | None,
        progress: Progress | None,
    ) -> None:
        self._target, self._timeout, self._progress = target, timeout, progress
        self._max_s, self._give_up_at = max_s, time.monotonic() + max_s
        self._receipt = Receipt(size_bytes)
        self._etag: str | None = None

    def from_answer(self, answer: requests.Response) -> int:
        """Take the file out of an answer that is already there."""
        self._receipt.expect(answer)
        self._copy(answer)
        self._receipt.check()
        return self._receipt.done_bytes

    def from_links(self, fresh_link: Callable[[], str], first: str) -> int:
        """Fetch it by signed links, `first` first. Raises: TransportError; what `fresh_link` raises."""
        link, idle, furthest = first, 0, 0
        while True:
            try:
                self._from_link(link)
                self._receipt.check()
                return self._receipt.done_bytes
            except TransportError as error:
                gained, furthest = self._receipt.done_bytes > furthest, max(furthest, self._receipt.done_bytes)
                idle = 0 if gained and not self._receipt.is_wrong else idle + 1
                if idle >= TRIES or isinstance(error, _Refused) or time.monotonic() >= self._give_up_at:
                    raise
                if self._receipt.is_wrong:
                    self._etag = None  # so that it is not resumed
            time.sleep(min(PAUSE_MAX_S, 0.1 * 2**idle) * random.uniform(0.5, 1))
            link = fresh_link()

    def _from_link(self, link: str) -> None:
        with new_session(NO_AUTH) as storage:  # the key is not in it, so no redirect can carry it along
            headers = self._range() or {}
            options = {"headers": headers, "stream": True, "allow_redirects": True}
            with send_unseen(storage, "GET", link, "storage", timeout=self._timeout, **options) as answer:
                if answer.status_code not in (200, 206):
                    raise _refusal(answer)
                if not (headers and resumes_at(answer, self._receipt.done_bytes)):
                    self._start(answer)
                self._copy(answer)

    def _range(self) -> dict[str, str] | None:
        """Ask for the rest, if this is still the same file: what has changed comes whole (RFC 9110 §13.1.5)."""
        done = self._receipt.done_bytes
        if not done or self._etag is None or self._receipt.is_encoded:
            return None
        return {"Range": f"bytes={done}-", "If-Range": self._etag}

    def _start(self, answer: requests.Response) -> None:
        if answer.status_code == 206:
            raise TransportError("storage sent another part than the one that is missing")
        if self._receipt.done_bytes:
            self._target.restart()
        self._receipt.restart()
        self._receipt.expect(answer)
        etag = answer.headers.get("ETag", "")
        self._etag = etag if etag.startswith('"') else None  # a weak one (W/) does not promise the same bytes

    def _copy(self, answer: requests.Response) -> None:
        try:
            for chunk in answer.iter_content(CHUNK_BYTES):
                self._target.write(chunk)
                self._receipt.take(chunk)
                if self._progress is not None:
                    self._progress(self._receipt.done_bytes, self._receipt.total_bytes)
                if time.monotonic() > self._give_up_at:
                    raise TransportError(f"the download did not end within {self._max_s:g} s")
        except requests.RequestException as error:
            raise TransportError(f"the download broke off: {reason_of(error)}") from None


class _Refused(TransportError):
    """Storage answered, and will not change its mind."""


def _refusal(answer: requests.Response) -> TransportError:
    """Its reason, and nothing of its body or address: both may quote the signed URL.

    401 and 403 may be a link that has expired, 5xx and 429 pass: a fresh link is worth a try.
    """
    message = f"storage answered {answer.status_code} {clean_text(answer.reason or '', 60)}"
    passes = answer.status_code in (401, 403, 408, 416, 429) or answer.status_code >= 500
    return TransportError(message) if passes else _Refused(message)
