"""Uploads: a place is reserved, and a file is put there as a stream. And the assets of the workspace."""

from __future__ import annotations

import mimetypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from framelane_celery.client.resource import Calls, iter_pages
from framelane_celery.client.sending import NO_AUTH, new_session, send_unseen
from framelane_celery.client.streaming import Outgoing, Progress, left_in
from framelane_celery.errors import InvalidArguments, TransportError, clean_text
from framelane_celery.models import Asset, Upload

TRIES: Final = 3
PAUSE_MAX_S: Final = 1.0

# What `mimetypes` of one machine or another does not know, or knows otherwise; the API's words (§14).
_TYPES: Final = {
    ".avi": "video/x-msvideo", ".mkv": "video/x-matroska", ".webm": "video/webm", ".wav": "audio/wav",
    ".aac": "audio/aac", ".flac": "audio/flac", ".m4a": "audio/mp4", ".ogg": "audio/ogg", ".webp": "image/webp",
    ".otf": "font/otf", ".ttf": "font/ttf", ".woff": "font/woff", ".woff2": "font/woff2",
}  # fmt: skip


class Uploaded(NamedTuple):
    """A file that is there. `source_url` goes into elements and media tasks."""

    source_url: str
    size_bytes: int


class UploadCalls(Calls):
    """Uploads and assets."""

    def create_upload(self, content_type: str, filename: str | None = None) -> Upload:
        """Reserve a place for one file; `put_upload` sends it. `filename` only sets the extension.

        Raises: UnsupportedContentType, ApiError, RateLimited, TransportError.
        Resend: safe; a place that is not used is forgotten after an hour.
        Source: POST /v1/uploads, docs.framelane.io/api-reference/uploads/request-a-file-upload-url.
        """
        return self._send(Upload, "POST", "/v1/uploads", {"content_type": content_type, "filename": filename})

    def put_upload(self, upload: Upload, file: IO[bytes], content_type: str, progress: Progress | None = None) -> int:
        """Send a file to its place, as a stream, in one request and once; returns its size in bytes.

        Units:  progress(done, total) is called for every block that is read.
        Raises: InvalidArguments for a file that is empty, or whose size cannot be told; TransportError.
        Resend: reserve a new place; what came of the old one is not known.
        Source: "PUT the whole file in one request with the same Content-Type; no auth header", the uploads guide.
        """
        outgoing = Outgoing(file, progress)
        with new_session(NO_AUTH) as storage:  # the key is not in it
            answer = send_unseen(
                storage,
                "PUT",
                upload.upload_url,
                "storage",
                timeout=(self._connect_timeout_s, self._read_timeout_s),
                data=outgoing,
                headers={"Content-Type": content_type},
                allow_redirects=False,
            )
        with answer:
            if not 200 <= answer.status_code < 300:
                raise TransportError(f"storage answered {answer.status_code} {clean_text(answer.reason or '', 60)}")
        return outgoing.done_bytes

    def upload_file(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        content_type: str | None = None,
        filename: str | None = None,
        progress: Progress | None = None,
    ) -> Uploaded:
        """Reserve a place and put a file there; a transfer that breaks off begins anew at a new place.

        Memory is the same for every size. The content type is told by the name, unless it is given.

        Raises: InvalidArguments, UnsupportedContentType, ApiError, RateLimited, TransportError.
        Resend: safe; it makes another copy.
        """
        if isinstance(source, (str, os.PathLike)):
            with Path(source).open("rb") as file:
                name = filename or Path(source).name
                return self.upload_file(file, content_type=content_type, filename=name, progress=progress)
        kind = content_type or content_type_of(filename or getattr(source, "name", ""))
        left_in(source)  # before a place is reserved in vain
        start = source.tell()
        for number in range(1, TRIES + 1):
            upload = self.create_upload(kind, filename)
            try:
                return Uploaded(upload.source_url, self.put_upload(upload, source, kind, progress))
            except TransportError:
                if number == TRIES:
                    raise
            time.sleep(min(PAUSE_MAX_S, 0.2 * 2**number))
            source.seek(start)
        raise AssertionError("unreachable")

    def iter_assets(self, *, limit: int | None = None) -> Iterator[Asset]:
        """Read the workspace's video and audio that is ready; `limit` is the size of a page.

        Raises: ApiError, RateLimited, TransportError.
        Source: GET /v1/workspace/assets?limit=, site src/lib/api.ts. A cursor is followed where there is one (INFER).
        """
        return iter_pages(lambda cursor: self._page(Asset, "/v1/workspace/assets", limit=limit, cursor=cursor))


def content_type_of(name: object) -> str:
    """The content type of a file's name. Raises: InvalidArguments, if it tells none."""
    suffix = Path(name).suffix.lower() if isinstance(name, str) else ""
    found = _TYPES.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0]
    if not suffix or found is None:
        raise InvalidArguments("content_type: is needed, for the file's name does not tell it", "content_type")
    return found
