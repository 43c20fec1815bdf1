"""Media that is brought in: upload places, the files that were put there, imports, and the assets they become."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from framelane_celery.testing.clock import Clock, iso
from framelane_celery.testing.files import Uploaded

MIME_TYPES: Final = {
    **dict.fromkeys(("video/mp4", "video/quicktime", "video/webm", "video/x-msvideo", "video/x-matroska"), "video"),
    "video/mpeg": "video",
    **dict.fromkeys(("audio/mpeg", "audio/mp4", "audio/wav", "audio/x-wav", "audio/aac", "audio/flac"), "audio"),
    "audio/ogg": "audio",
    **dict.fromkeys(("image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff"), "image"),
    **dict.fromkeys(("font/ttf", "font/otf", "font/woff", "font/woff2"), "font"),
}
"""The allow-list of docs.framelane.io/introduction/uploads."""


@dataclass
class Place:
    """Where one file may be put; what was put there."""

    id: str
    path: str
    content_type: str
    expires_at: float
    file: Uploaded | None = None
    put_at: float = 0.0


@dataclass(frozen=True)
class StoredImport:
    """One import. It is `processing` until `ready_at`; then it has failed if `error` says why."""

    id: str
    url: str
    source_url: str
    made_at: float
    ready_at: float
    error: dict[str, str] | None

    def view(self, now: float) -> dict[str, Any]:
        """As GET shows it: docs.framelane.io/introduction/imports. How a failed one looks is INFER."""
        is_over = now >= self.ready_at
        ended = "ready" if self.error is None else "failed"
        return {
            "id": self.id,
            "status": ended if is_over else "processing",
            "source_url": self.source_url if is_over and self.error is None else None,
            "error": self.error if is_over else None,
            "created_at": iso(self.made_at),
        }


class Media:
    """All of it, behind one lock. Files are kept in a folder that is made with the first, and removed in the end."""

    def __init__(self, clock: Clock) -> None:
        self.import_seconds: float = 0.2
        self.import_error: Callable[[str], dict[str, str] | None] = lambda url: None
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}
        self._imports: dict[str, StoredImport] = {}
        self._keys: dict[str, tuple[bytes, str]] = {}
        self._folder: Path | None = None

    def reserve(self, place: Place) -> None:
        """Remember a place, by its path."""
        with self._lock:
            self._places[place.path] = place

    def place(self, path: str) -> Place | None:
        """The place of this path, if one was reserved."""
        with self._lock:
            return self._places.get(path)

    def new_file(self, place: Place) -> Path:
        """A file on this machine for what is being put."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="framelane-server-"))
            return self._folder / f"{hashlib.sha256(place.path.encode()).hexdigest()[:16]}-{threading.get_ident()}"

    def put(self, place: Place, file: Uploaded) -> None:
        """The file is there whole."""
        with self._lock:
            place.file, place.put_at = file, self._clock.now()

    def add_import(self, made: StoredImport, key: str | None, body: bytes) -> StoredImport | None:
        """Remember an import; the earlier one, if its key was used before, and None for a key with another body."""
        with self._lock:
            if key is not None and key in self._keys:
                known, import_id = self._keys[key]
                return self._imports[import_id] if known == body else None
            self._imports[made.id] = made
            if key is not None:
                self._keys[key] = (body, made.id)
            return made

    def find_import(self, import_id: str) -> StoredImport | None:
        """One import."""
        with self._lock:
            return self._imports.get(import_id)

    def assets(self) -> list[dict[str, Any]]:
        """The video and audio that is ready, newest first (INFER); measures are never known here, so null.

        Source: site src/lib/api.ts.
        """
        now = self._clock.now()
        with self._lock:
            found = [
                (place.put_at, f"asset_{place.id.partition('_')[2]}", place.path, kind)
                for place in self._places.values()
                if place.file is not None and (kind := MIME_TYPES[place.content_type]) in ("video", "audio")
            ]
            copies = [made for made in self._imports.values() if made.error is None and now >= made.ready_at]
        found += [(made.ready_at, f"asset_{made.id.partition('_')[2]}", made.source_url, "video") for made in copies]
        unknown = {"duration": None, "width": None, "height": None}
        return [
            {"id": asset_id, "source_url": url, "kind": kind, **unknown, "created_at": iso(at)}
            for at, asset_id, url, kind in sorted(found, reverse=True)
        ]

    def close(self) -> None:
        """Remove the files."""
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
