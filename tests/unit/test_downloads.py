"""Downloads over a real socket: whole or not at all, cut or not; and the task that makes them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

import framelane_celery as framelane
from framelane_celery import errors
from framelane_celery.client import FramelaneClient, fetching
from framelane_celery.models import RenderRequest
from framelane_celery.testing import Completed, Fault, FramelaneServer
from framelane_celery.testing.artefacts import make_artefact
from framelane_celery.testing.files import Content
from framelane_celery.testing.jobs import Submission

SIZE = 1_000_000
REQUEST = RenderRequest.model_validate({"elements": [{"type": "text", "text": "hello", "duration": 2}]})
WHOLE = b"".join(Content(make_artefact(Submission("render", None, {}, None, 1)).data, SIZE).pieces(0))
STORAGE = {"method": "GET", "path": "/storage/*"}


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=0, outcome=lambda _: Completed(file_bytes=SIZE)) as server:
        yield server


@pytest.fixture
def client(server: FramelaneServer) -> Iterator[FramelaneClient]:
    with FramelaneClient(server.api_key, server.base_url) as client:
        yield client


@pytest.fixture
def job_id(client: FramelaneClient) -> str:
    return client.create_render(REQUEST, "k-1").job.id


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE_MAX_S", 0.01)


def fetched(server: FramelaneServer) -> list[tuple[int | None, str | None]]:
    return [(entry.status, entry.note) for entry in server.ledger if entry.path.startswith("/storage/")]


def test_a_file_comes_whole_and_its_progress_is_told(client: FramelaneClient, job_id: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    target = tmp_path / "a.mp4"
    size = client.download(
        "render", job_id, target, size_bytes=SIZE, progress=lambda done, total: told.append((done, total))
    )
    assert (size, target.read_bytes() == WHOLE) == (SIZE, True)
    assert told[-1] == (SIZE, SIZE)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_cut_is_resumed_where_it_was(server: FramelaneServer, client: Any, job_id: str, tmp_path: Path) -> None:
    server.faults.add(Fault("cut", **STORAGE, times=2, at_bytes=300_000))
    assert client.download("render", job_id, tmp_path / "a.mp4") == SIZE
    assert (tmp_path / "a.mp4").read_bytes() == WHOLE
    tries = fetched(server)
    assert [status for status, _ in tries] == [200, 206, 206]
    assert all(note.startswith("from ") for _, note in tries[1:])


def test_what_has_changed_meanwhile_begins_anew(server, client, job_id, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """`If-Range` asks for the rest of the same file only. Storage that has another one sends that whole."""
    from framelane_celery.testing import files

    seen = iter([b"\x01" * 16, files.md5_of(Content(WHOLE[:400], SIZE))])
    real = files.md5_of
    monkeypatch.setattr(files, "md5_of", lambda stored: next(seen, None) or real(stored))
    server.faults.add(Fault("cut", **STORAGE, times=1, at_bytes=300_000))
    with io.BytesIO() as target:
        target.write(b"before")
        # the second answer's checksum is wrong too, so a third is asked for, which is right
        assert client.download("render", job_id, target) == SIZE
        assert target.getvalue() == b"before" + WHOLE
    assert [status for status, _ in fetched(server)] == [200, 200, 200]


def test_a_cut_that_never_ends_leaves_nothing_and_keeps_what_was_there(server, client, job_id, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a.mp4").write_bytes(b"the film of yesterday")
    server.faults.add(Fault("cut", **STORAGE, at_bytes=0))
    with pytest.raises(errors.TransportError, match="broke off"):
        client.download("render", job_id, tmp_path / "a.mp4")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.mp4", b"the film of yesterday")]
    assert len(fetched(server)) == fetching.TRIES


def test_a_stream_that_cannot_go_back_is_resumed_or_given_up(server, client, job_id) -> None:  # type: ignore[no-untyped-def]
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe()
    server.faults.add(Fault("cut", **STORAGE, times=1, at_bytes=300_000))
    assert client.download("render", job_id, pipe) == SIZE
    assert pipe.getvalue() == WHOLE


@pytest.mark.parametrize("promised", [SIZE - 1, SIZE + 1])
def test_a_size_that_is_not_the_jobs_is_no_success(client, job_id, tmp_path, promised) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(errors.TransportError, match=f"has {SIZE} bytes, and should have {promised}"):
        client.download("render", job_id, tmp_path / "a.mp4", size_bytes=promised)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum_is_no_success(client, job_id, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from framelane_celery.testing import files

    monkeypatch.setattr(files, "md5_of", lambda stored: b"\x01" * 16)
    with pytest.raises(errors.TransportError, match="checksum"):
        client.download("render", job_id, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_has_expired_is_asked_for_again(server, client, job_id, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server.faults.add(Fault("status", **STORAGE, times=1, status=403))
    assert client.download("render", job_id, tmp_path / "a.mp4") == SIZE
    links = [entry for entry in server.ledger if entry.path.endswith("/download")]
    assert len(links) == 2


def test_storage_that_has_no_such_file_is_asked_once(server, client, job_id, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server.faults.add(Fault("status", **STORAGE, status=404))
    with pytest.raises(errors.TransportError, match="storage answered 404"):
        client.download("render", job_id, tmp_path / "a.mp4")
    assert len(fetched(server)) == 1


def test_neither_key_nor_signature_is_told(server, client, job_id, tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    server.faults.add(Fault("cut", **STORAGE, times=1, at_bytes=0))
    with caplog.at_level(logging.DEBUG):
        client.download("render", job_id, tmp_path / "a.mp4")
        server.faults.add(Fault("status", **STORAGE, status=500))
        with pytest.raises(errors.TransportError) as caught:
            client.download("render", job_id, tmp_path / "b.mp4")
    told = caplog.text + repr(caught.value) + repr(caught.value.__context__)
    assert "/storage/" in caplog.text
    assert "signature" not in told
    assert server.api_key not in told
    assert not [entry for entry in server.ledger if entry.note == "authorization_sent_to_storage"]


def test_what_a_killed_process_left_is_cleared_when_it_is_old(client, job_id, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os

    old, young = tmp_path / ".a.mp4.1-2.part", tmp_path / ".a.mp4.3-4.part"
    old.touch(), young.touch()
    os.utime(old, (1, 1))
    client.download("render", job_id, tmp_path / "a.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.mp4.3-4.part", "a.mp4"]


# -- the task, in place; in a worker: tests/worker/test_files.py


@pytest.fixture
def app(server: FramelaneServer) -> Celery:
    app = Celery("files", set_as_current=False)
    app.conf.framelane = {"api_key": server.api_key, "base_url": server.base_url, "namespace": "files"}
    return app


def test_the_task_writes_the_file_and_says_where(app: Celery, tmp_path: Path) -> None:
    job = app.tasks["framelane.render"].apply((REQUEST.to_json(),)).get()
    path = str(tmp_path / "new folder" / "a.mp4")
    result = app.tasks["framelane.download"].apply((job, path)).get()
    assert Path(path).read_bytes() == WHOLE
    assert result == {"job_id": job["id"], "job_kind": "render", "path": path, "storage": None, "size_bytes": SIZE}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (({"id": "a", "status": "completed", "kind": "render"}, "a.mp4"), "path"),
        (({"id": "a", "status": "completed", "kind": "render"},), "path"),
        (("https://x.example/a.mp4", "/a.mp4"), "job"),
        (({"id": "a", "status": "completed", "kind": "import"}, "/a.mp4"), "job"),
    ],
)
def test_what_is_surely_wrong_is_told_to_the_caller(app: Celery, given: Any, field: str) -> None:
    with pytest.raises(framelane.InvalidArguments) as caught:
        app.tasks["framelane.download"].check_call(given, {})
    assert caught.value.field == field
