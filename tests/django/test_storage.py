"""`download` into a Django storage, by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from framelane_celery.client import fetching
from framelane_celery.errors import TransportError
from framelane_celery.testing import Completed, Fault, FramelaneServer

SIZE = 300_000


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=0, outcome=lambda _: Completed(file_bytes=SIZE)) as server:
        yield server


@pytest.fixture
def files(server: FramelaneServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Celery:
    """An app whose project has a storage of the name "films". Django keeps what its settings said at first."""
    from django.core.files import storage

    films = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path / "films")}}
    monkeypatch.setattr(storage, "storages", storage.storages.__class__({"films": films}))
    app = Celery("files", set_as_current=False)
    app.conf.framelane = {"api_key": server.api_key, "base_url": server.base_url, "namespace": "files"}
    return app


def rendered(app: Celery) -> dict[str, Any]:
    composition = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}
    job: dict[str, Any] = app.tasks["framelane.render"].apply((composition,)).get()
    return job


def test_a_file_is_kept_under_its_name_however_often_it_is_made(files: Celery, tmp_path: Path) -> None:
    job = rendered(files)
    for _ in range(2):  # as after a worker's death
        told = files.tasks["framelane.download"].apply((job, "2026/a.mp4"), {"storage": "films"}).get()
        assert (told["path"], told["storage"], told["size_bytes"]) == ("2026/a.mp4", "films", SIZE)
    (kept,) = [path for path in (tmp_path / "films").rglob("*") if path.is_file()]
    assert (kept.name, kept.stat().st_size) == ("a.mp4", SIZE)


def test_a_cut_reaches_no_storage(
    files: Celery, server: FramelaneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSE_MAX_S", 0.01)
    monkeypatch.setattr(files.tasks["framelane.download"], "max_retries", 0)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"the film of yesterday")
    job = rendered(files)
    server.faults.add(Fault("cut", "GET", "/storage/*", at_bytes=0))
    with pytest.raises(TransportError):
        files.tasks["framelane.download"].apply((job, "a.mp4", "films")).get()
    assert (tmp_path / "films" / "a.mp4").read_bytes() == b"the film of yesterday"
