"""Small real files, one per output format, so that a downloaded result can be opened.

They are 16 by 16 pixels (the GIF a single one) whatever the request asked for; the job's `output` repeats the size
that was asked for.
"""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from framelane_celery.testing.files import Content
from framelane_celery.testing.jobs import Completed, StoredJob, Submission

_SIDE_PX = 16
_JPEG = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/wAALCAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAAAAX/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oACAEBAAA/AJ4D/9k="
)
_VP8_FRAME = b64decode("MAEAnQEqEAAQAAdAliWkAANwAP7cEAAA")
_GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

_TYPES = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "gif": "image/gif",
    "png": "image/png",
    "jpg": "image/jpeg",
    "json": "application/json",
}
_WORDS = ("Made", "on", "this", "machine", "by", "the", "local", "server.")


@dataclass(frozen=True)
class Artefact:
    """A finished file."""

    extension: str
    data: bytes

    @property
    def content_type(self) -> str:
        """The MIME type it is served with."""
        return _TYPES[self.extension]


def make_artefact(submission: Submission) -> Artefact:
    """Make the file of a completed job.

    Source: formats of renders from the reference page; those of media tasks are not stated (INFER: a transcript is
    JSON, a background removed from a picture gives PNG, from a video WebM, the rest give MP4).
    """
    body = submission.body
    if submission.kind == "render":
        return _file(str(body.get("output_format") or "mp4"))
    if submission.task_type == "transcribe":
        return Artefact("json", json.dumps(transcript(body), indent=1).encode())
    if submission.task_type == "remove_background":
        path = str(body.get("source_url", "")).partition("?")[0].lower()
        return _file("png" if path.endswith((".png", ".jpg", ".jpeg", ".webp", ".gif")) else "webm")
    return _file("mp4")


def content_of(job: StoredJob) -> Content:
    """The bytes of a completed job's file."""
    data, outcome = make_artefact(job.submission).data, job.life.outcome
    wanted = outcome.file_bytes if isinstance(outcome, Completed) else None
    return Content(data, max(len(data), wanted or 0))


def transcript(body: Mapping[str, Any]) -> dict[str, Any]:
    """Make a transcript in AssemblyAI's shape.

    Units:  start, end are milliseconds (INFER from the sample: `end: 650` for one word).
    Source: docs.framelane.io/tasks/transcribe.
    """
    speaker = "A" if body.get("speaker_labels") else None
    words = [
        {"text": word, "start": at * 400, "end": at * 400 + 350, "confidence": 0.98, "speaker": speaker}
        for at, word in enumerate(_WORDS)
    ]
    text, end = " ".join(_WORDS), len(_WORDS) * 400 - 50
    spoken = [{"speaker": speaker, "text": text, "start": 0, "end": end}] if speaker else []
    kept = words if body.get("word_timings", True) else []
    return {"text": text, "words": kept, "utterances": spoken, "language_code": body.get("language") or "en"}


@cache
def _file(extension: str) -> Artefact:
    if extension in ("mp4", "mov"):
        return Artefact(extension, _iso_media(b"isom" if extension == "mp4" else b"qt  "))
    if extension in ("png", "webm"):
        return Artefact(extension, _png() if extension == "png" else _webm())
    return Artefact(extension, {"gif": _GIF, "jpg": _JPEG}[extension])


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 6, 0, 0, 0)
    rows = (b"\0" + b"\x60\x60\x60\x80" * _SIDE_PX) * _SIDE_PX
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def _iso_media(brand: bytes) -> bytes:
    """One second of one Motion JPEG frame in an ISO base media file (ISO/IEC 14496-12)."""
    start = _box(b"ftyp", brand, struct.pack(">I", 512), brand, b"mp41")
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    movie = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, 1000, 0x10000, 0x100) + matrix + bytes(24) + struct.pack(">I", 2)
    track = struct.pack(">IIIIII8xhhhH", 3, 0, 0, 1, 0, 1000, 0, 0, 0, 0) + matrix
    track += struct.pack(">II", _SIDE_PX << 16, _SIDE_PX << 16)
    media = _box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 1000, 1000, 0x55C4, 0))
    media += _box(b"hdlr", bytes(8), b"vide", bytes(12), b"framelane\0")
    sizes = struct.pack(">HHIIIH", _SIDE_PX, _SIDE_PX, 0x480000, 0x480000, 0, 1) + bytes(32)
    entry = _box(b"jpeg", struct.pack(">6xH16x", 1), sizes, struct.pack(">Hh", 24, -1))
    data_reference = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", struct.pack(">I", 1))))

    def moov(offset: int) -> bytes:
        samples = _box(
            b"stbl",
            _box(b"stsd", struct.pack(">II", 0, 1), entry),
            _box(b"stts", struct.pack(">IIII", 0, 1, 1, 1000)),
            _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1)),
            _box(b"stsz", struct.pack(">IIII", 0, 0, 1, len(_JPEG))),
            _box(b"stco", struct.pack(">III", 0, 1, offset)),
        )
        information = _box(b"minf", _box(b"vmhd", struct.pack(">I8x", 1)), data_reference, samples)
        return _box(
            b"moov", _box(b"mvhd", movie), _box(b"trak", _box(b"tkhd", track), _box(b"mdia", media, information))
        )

    return start + moov(len(start) + len(moov(0)) + 8) + _box(b"mdat", _JPEG)


def _element(identifier: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (len(data) | 1 << 56).to_bytes(8, "big") + data


def _webm() -> bytes:
    """One VP8 key frame in a WebM file (EBML, RFC 8794; Matroska, RFC 9559)."""
    header = _element(
        0x1A45DFA3,
        *(_element(name, bytes([value])) for name, value in ((0x4286, 1), (0x42F7, 1), (0x42F2, 4), (0x42F3, 8))),
        _element(0x4282, b"webm"),
        *(_element(name, bytes([value])) for name, value in ((0x4287, 2), (0x4285, 2))),
    )
    information = _element(
        0x1549A966,
        _element(0x2AD7B1, (1_000_000).to_bytes(3, "big")),
        _element(0x4489, struct.pack(">d", 1000.0)),
        _element(0x4D80, b"framelane-celery"),
        _element(0x5741, b"framelane-celery"),
    )
    picture = _element(0xE0, _element(0xB0, bytes([_SIDE_PX])), _element(0xBA, bytes([_SIDE_PX])))
    numbers = (_element(name, b"\x01") for name in (0xD7, 0x73C5, 0x83))
    tracks = _element(0x1654AE6B, _element(0xAE, *numbers, _element(0x86, b"V_VP8"), picture))
    cluster = _element(0x1F43B675, _element(0xE7, b"\0"), _element(0xA3, b"\x81\0\0\x80", _VP8_FRAME))
    return header + _element(0x18538067, information, tracks, cluster)
