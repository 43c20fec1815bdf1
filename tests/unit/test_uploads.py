"""Uploads and imports over a real socket: what storage gets, and what it never gets."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from framelane_celery import errors
from framelane_celery.client import FramelaneClient, uploads
from framelane_celery.models import Import, ImportRequest
from framelane_celery.testing import Fault, FramelaneServer, Switches

FILM = bytes(range(256)) * 4000
PUT = {"method": "PUT", "path": "/storage/*"}


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(virtual_time=True) as server:
        yield server


@pytest.fixture
def client(server: FramelaneServer) -> Iterator[FramelaneClient]:
    with FramelaneClient(server.api_key, server.base_url) as client:
        yield client


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PAUSE_MAX_S", 0.01)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    (tmp_path / "clip.mov").write_bytes(FILM)
    return tmp_path / "clip.mov"


def puts(server: FramelaneServer) -> list[tuple[int | None, str | None]]:
    return [(entry.status, entry.note) for entry in server.ledger if entry.method == "PUT"]


def test_a_file_is_put_whole_and_can_be_used(server, client, film) -> None:  # type: ignore[no-untyped-def]
    told: list[tuple[int, int]] = []
    done = client.upload_file(film, progress=lambda *now: told.append(now))
    assert done.size_bytes == len(FILM)
    assert done.source_url.endswith(".mov")
    assert requests.get(done.source_url, timeout=30).content == FILM
    assert told[-1] == (len(FILM), len(FILM))
    assert len(told) == -(-len(FILM) // 65536)
    (asset,) = client.iter_assets()
    assert (asset.kind, asset.source_url is not None) == ("video", True)


def test_a_file_object_is_put_from_where_it_stands(client) -> None:  # type: ignore[no-untyped-def]
    with io.BytesIO(b"skipped" + FILM) as file:
        file.seek(7)
        done = client.upload_file(file, content_type="audio/flac")
    assert requests.get(done.source_url, timeout=30).content == FILM
    assert done.source_url.endswith(".flac")


def test_a_cut_begins_anew_at_a_new_place(server, client, film) -> None:  # type: ignore[no-untyped-def]
    server.faults.add(Fault("cut", **PUT, times=2, at_bytes=300_000))
    done = client.upload_file(film)
    assert requests.get(done.source_url, timeout=30).content == FILM
    assert [status for status, _ in puts(server)] == [None, None, 200]
    assert len(list(client.iter_assets())) == 1


def test_a_cut_that_never_ends_is_an_error_and_no_asset(server, client, film) -> None:  # type: ignore[no-untyped-def]
    server.faults.add(Fault("cut", **PUT, at_bytes=300_000))
    with pytest.raises(errors.TransportError, match="storage"):
        client.upload_file(film)
    assert len(puts(server)) == uploads.TRIES
    assert list(client.iter_assets()) == []


def test_neither_key_nor_signature_is_told(server, client, film, caplog) -> None:  # type: ignore[no-untyped-def]
    with caplog.at_level(logging.DEBUG):
        client.upload_file(film)
        upload = client.create_upload("video/mp4")
        server.clock.advance(3601)
        with film.open("rb") as file, pytest.raises(errors.TransportError, match="storage answered 403") as caught:
            client.put_upload(upload, file, "video/mp4")
    told = caplog.text + repr(upload) + str(upload) + repr(caught.value) + repr(caught.value.__context__)
    assert '"PUT /storage/uploads/' in caplog.text
    assert "signature=" in upload.upload_url
    assert "signature" not in told
    assert server.api_key not in told
    assert [note for _, note in puts(server) if note == "authorization_sent_to_storage"] == []


def test_a_key_that_reached_storage_would_be_noticed(server, client) -> None:  # type: ignore[no-untyped-def]
    upload = client.create_upload("video/mp4")
    headers = {"Authorization": f"Bearer {server.api_key}", "Content-Type": "video/mp4"}
    assert requests.put(upload.upload_url, data=b"film", headers=headers, timeout=30).status_code == 400
    assert puts(server)[0][1] == "authorization_sent_to_storage"


def test_the_content_type_is_that_which_was_reserved(client) -> None:  # type: ignore[no-untyped-def]
    upload = client.create_upload("video/mp4")
    with pytest.raises(errors.TransportError, match="storage answered 400"):
        client.put_upload(upload, io.BytesIO(FILM), "video/webm")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("a.mp4", "video/mp4"), ("A.MKV", "video/x-matroska"), ("a.m4a", "audio/mp4"), ("a.otf", "font/otf")],
)
def test_the_content_type_is_told_by_the_name(name: str, content_type: str) -> None:
    assert uploads.content_type_of(name) == content_type


@pytest.mark.parametrize("name", ["film", "", "a.unheard-of", 3])
def test_a_name_that_tells_none_has_to_be_helped(name: object) -> None:
    with pytest.raises(errors.InvalidArguments, match="content_type"):
        uploads.content_type_of(name)


def test_an_empty_file_and_a_pipe_are_refused_before_anything_is_sent(server, client) -> None:  # type: ignore[no-untyped-def]
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for file, why in ((io.BytesIO(), "empty"), (Pipe(FILM), "seekable")):
        with pytest.raises(errors.InvalidArguments, match=why):
            client.upload_file(file, content_type="video/mp4")
    assert list(server.ledger) == []


@pytest.mark.parametrize(
    ("kind", "cls"), [("application/pdf", errors.UnsupportedContentType), ("", errors.InvalidRequest)]
)
def test_what_may_not_be_uploaded_is_a_typed_error(client, kind, cls) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(cls):
        client.create_upload(kind)


# -- imports


def make_import(url: str = "https://www.dropbox.com/s/1/clip.mp4", **fields: str) -> ImportRequest:
    return ImportRequest.model_validate({"url": url, **fields})


def test_an_import_is_read_until_it_is_ready(server, client) -> None:  # type: ignore[no-untyped-def]
    made = client.create_import(make_import(filename="clip.mov"), "k-1")
    assert (made.status, made.source_url) == ("processing", None)
    server.clock.advance(1)
    ready = client.get_import(made.id)
    assert (ready.status, (ready.source_url or "")[-4:]) == ("ready", ".mov")
    job = client.get_job("import", made.id)
    assert (job.kind, job.is_completed, job.output.url) == ("import", True, ready.source_url)
    assert [asset.source_url for asset in client.iter_assets()] == [ready.source_url]


def test_an_import_that_fails_is_a_failed_job(server, client) -> None:  # type: ignore[no-untyped-def]
    server.media.import_error = lambda url: {"code": "source_not_found", "message": "Source URL returned 404."}
    made = client.create_import(make_import())
    server.clock.advance(1)
    job = client.get_job("import", made.id)
    assert (job.is_failed, job.error.code) == (True, "source_not_found")
    assert list(client.iter_assets()) == []


def test_waiting_for_an_import_reads_it_again(client) -> None:  # type: ignore[no-untyped-def]
    with FramelaneServer() as server, FramelaneClient(server.api_key, server.base_url) as client:
        made = client.create_import(make_import())
        assert client.get_job("import", made.id, wait_s=20).is_completed
        assert not [entry for entry in server.ledger if "wait" in entry.query]


@pytest.mark.parametrize(("takes_keys", "made"), [(True, 1), (False, 2)])
def test_whether_keys_are_honoured_is_open(takes_keys: bool, made: int) -> None:
    with FramelaneServer(switches=Switches(imports_take_keys=takes_keys)) as server:
        with FramelaneClient(server.api_key, server.base_url) as client:
            request = make_import()
            first, again = (client.submit(request.path, request.body({"celery_task_id": "1"}), "k") for _ in range(2))
        assert len({first.job.id, again.job.id}) == made
        assert (first.is_replay, again.is_replay, first.job.kind) == (False, made == 1, "import")
        assert b"metadata" not in next(iter(server.ledger)).body


def test_the_error_answers_of_imports(server, client) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(errors.NotFound):
        client.get_import("import_1")
    with pytest.raises(errors.InvalidRequest, match="url: must be a URL"):
        client.submit("/v1/imports", b"{}", "k-2")
    client.create_import(make_import(), "k-3")
    with pytest.raises(errors.Conflict):
        client.create_import(make_import("https://x.example/b.mp4"), "k-3")
    with pytest.raises(errors.UnsupportedFeature):
        client.cancel_job("import", "import_1")
    assert client.list_jobs("import").data == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"status": "processing"}, "processing"),
        ({"status": "ready", "source_url": "https://cdn.example/a.mp4"}, "completed"),
        ({"status": "failed", "error": {"code": "source_not_found", "message": "404"}}, "failed"),
        ({"status": "failed", "error": None}, "failed"),
        ({"status": "rejected", "error": "no such file"}, "failed"),  # a word that no page has, beside an error
        ({"status": "processing", "error": {"code": "slow"}}, "processing"),
        ({"status": "scanning"}, "scanning"),  # nor this one: it goes on until the deadline
        ({}, "processing"),
    ],
)
def test_how_an_import_stands_is_read_leniently(answer: dict[str, object], status: str) -> None:
    job = Import.model_validate({"id": "import_1", **answer}).as_job()
    assert (job.status, job.kind, job.is_terminal) == (status, "import", status in ("completed", "failed"))
