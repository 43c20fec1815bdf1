"""The endpoints that bring media in: uploads, the PUT to storage, imports; and the list of assets."""

from __future__ import annotations

import contextlib
from pathlib import PurePosixPath
from typing import Any

from werkzeug.wrappers import Response

from framelane_celery.testing.api import Api
from framelane_celery.testing.calls import Call, Dropped, answer_json
from framelane_celery.testing.clock import iso
from framelane_celery.testing.files import PIECE_BYTES, Uploaded, serve_file
from framelane_celery.testing.media import MIME_TYPES, Place, StoredImport
from framelane_celery.testing.paging import page_of
from framelane_celery.testing.refusals import Problem, Refusal, refuse_invalid
from framelane_celery.testing.workspace import make_id

UPLOAD_LIVES_S = 3600.0
_EXTENSIONS = {"video/quicktime": "mov", "audio/mpeg": "mp3", "image/jpeg": "jpg"}


def reserve_upload(api: Api, call: Call) -> Response:
    """Give a place to put a file: 201.

    Shape:  {"content_type": …, "filename": … | null} -> {"upload_url", "source_url", "expires_at"}
    Source: docs.framelane.io/introduction/uploads; the console's `duration`, `width`, `height` are taken and ignored.
    """
    body = call.json_object()
    content_type = body.get("content_type")
    if not isinstance(content_type, str) or not content_type:
        raise refuse_invalid([Problem(("content_type",), "is required")], api.switches)
    if content_type not in MIME_TYPES:
        raise Refusal(422, "unsupported_content_type", f"{content_type} is not supported.")
    filename = body.get("filename")
    if filename is not None and not isinstance(filename, str):
        raise refuse_invalid([Problem(("filename",), "must be a string or null")], api.switches)
    now = api.clock.now()
    upload_id = make_id("upload", now)
    suffix = PurePosixPath(filename or "").suffix.lstrip(".")
    extension = suffix or _EXTENSIONS.get(content_type) or content_type.rpartition("/")[2].removeprefix("x-")
    path = f"/storage/uploads/{api.workspace.id}/{upload_id.partition('_')[2]}.{extension}"
    expires_at = now + UPLOAD_LIVES_S
    api.media.reserve(Place(upload_id, path, content_type, expires_at))
    return answer_json(
        {
            "upload_url": api.storage.sign_put(path, expires_at),
            "source_url": api.storage.base_url + path,
            "expires_at": iso(expires_at),
        },
        201,
    )


def put_file(api: Api, call: Call, **_: str) -> Response:
    """Take the whole file of one upload, as it comes; no part of the API.

    Source: "PUT the whole file in one request with the same Content-Type; no Framelane auth header, no multipart",
            docs.framelane.io/introduction/uploads. The refusals of storage are Google's (INFER).
    """
    has_authorization = "Authorization" in call.request.headers
    if has_authorization:
        call.note = "authorization_sent_to_storage"
    api.storage.check(call.path, call.query, has_authorization, method="PUT")
    place = api.media.place(call.path)
    if place is None:
        raise Refusal(404, "not_found", "No such upload.")
    if call.request.headers.get("Content-Type") != place.content_type:
        raise Refusal(400, "invalid_request", f"Content-Type must be {place.content_type}, as it was reserved.")
    if call.request.content_length is None:
        raise Refusal(411, "invalid_request", "Content-Length is required.")
    if place.file is None:
        api.media.put(place, _receive(api, call, place))
    return Response(status=200)


def _receive(api: Api, call: Call, place: Place) -> Uploaded:
    path, done, wanted = api.media.new_file(place), 0, call.request.content_length or 0
    with path.open("wb") as file:
        while done < wanted:
            limit = PIECE_BYTES if call.cut_at_bytes is None else min(PIECE_BYTES, call.cut_at_bytes - done)
            piece = call.request.stream.read(limit) if limit > 0 else b""
            if not piece:  # cut by a fault, or by the client
                with contextlib.suppress(OSError):
                    path.unlink()
                raise Dropped(is_reset=True)
            file.write(piece)
            done += len(piece)
    call.note = f"{done} bytes"
    return Uploaded(path, done)


def uploaded_file(api: Api, call: Call, **_: str) -> Response:
    """Serve a file that was put: `source_url` is not signed in the docs' sample."""
    place = api.media.place(call.path)
    if place is None or place.file is None:
        raise Refusal(404, "not_found", "No such file.")
    return serve_file(call, place.file, place.content_type)


def create_import(api: Api, call: Call) -> Response:
    """Begin to copy a remote file: 202. Nothing is fetched here; `server.import_error` says which fail.

    Shape:  {"url", "filename"?} -> {"id", "status": "processing", "source_url": null, "created_at"}
    Source: docs.framelane.io/introduction/imports. That an idempotency key is honoured is INFER (switch).
    """
    body = call.json_object()
    problems = []
    url, filename = body.get("url"), body.get("filename")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        problems.append(Problem(("url",), "must be a URL", "invalid_source"))
    if filename is not None and not isinstance(filename, str):
        problems.append(Problem(("filename",), "must be a string"))
    if problems:
        raise refuse_invalid(problems, api.switches)
    now = api.clock.now()
    import_id = make_id("import", now)
    suffix = PurePosixPath(filename or str(url).partition("?")[0]).suffix or ".mp4"
    source_url = f"{api.storage.base_url}/storage/uploads/{api.workspace.id}/{import_id.partition('_')[2]}{suffix}"
    made = StoredImport(
        import_id, str(url), source_url, now, now + api.media.import_seconds, api.media.import_error(str(url))
    )
    kept = api.media.add_import(made, call.idempotency_key if api.switches.imports_take_keys else None, call.body)
    if kept is None:
        raise Refusal(409, "conflict", "Idempotency-Key was already used with a different request body.")
    call.is_replay, call.job_id = kept is not made, kept.id
    view: dict[str, Any] = kept.view(kept.made_at if kept is made else now)
    view.pop("error")
    return answer_json(view, 200 if call.is_replay else 202)


def get_import(api: Api, call: Call, import_id: str) -> Response:
    """Read one import; `?wait` is not documented for them, and ignored."""
    made = api.media.find_import(import_id)
    if made is None:
        raise Refusal(404, "not_found", "Import not found.")
    api.count_read(call)
    call.job_id = import_id
    return answer_json(made.view(api.clock.now()))


def list_assets(api: Api, call: Call) -> Response:
    """List the assets: `?limit=` is all that the console sends; the envelope and a cursor are INFER."""
    api.count_read(call)
    return answer_json(page_of(api.media.assets(), call, api.switches))
