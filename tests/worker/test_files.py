"""Files in pipelines: `download` as a step of a chain, `import_media` as its beginning; workers that die in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord

from framelane_celery import JobFailed
from framelane_celery.testing import Fault, FramelaneServer
from tests.worker.project import composition
from tests.worker.stacks import Stack, make_server, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.parametrize("stack", ["redis", "rabbitmq"], indirect=True)]


def is_whole(path: Path, result: dict[str, Any]) -> bool:
    return path.stat().st_size == result["size_bytes"] and path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.celery55
def test_a_render_is_downloaded_by_the_next_step(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "films" / "a.mp4"
    result = chain(
        stack.sig("framelane.render", composition()), stack.sig("framelane.download", str(path))
    ).apply_async()
    told = result.get(timeout=20)
    assert (told["path"], told["job_kind"], is_whole(path, told)) == (str(path), "render", True)
    stack.until(result.id, "done")


def test_in_a_chord_each_has_its_own_file(stack: Stack, tmp_path: Path) -> None:
    render, download = "framelane.render", "framelane.download"
    header = [
        chain(stack.sig(render, composition()), stack.sig(download, str(tmp_path / f"{n}.mp4"))) for n in range(3)
    ]
    told = chord(header, stack.sig("note")).apply_async().get(timeout=30)
    assert sorted(one["path"] for one in told) == [str(tmp_path / f"{n}.mp4") for n in range(3)]


def test_storage_that_is_away_for_long_costs_new_runs_only(
    stack: Stack, server: FramelaneServer, tmp_path: Path
) -> None:
    fault = server.faults.add(Fault("status", "GET", "/storage/*", times=6, status=503))
    path = tmp_path / "a.mp4"
    result = chain(
        stack.sig("framelane.render", composition()), stack.sig("framelane.download", str(path))
    ).apply_async()
    assert is_whole(path, result.get(timeout=60))
    assert server.faults.struck(fault) == 6


def test_an_import_is_waited_for_and_is_the_next_steps_source(stack: Stack, server: FramelaneServer) -> None:
    url = "https://www.dropbox.com/s/1/clip.mp4"
    result = chain(stack.sig("framelane.import_media", url), stack.sig("framelane.transcribe")).apply_async()
    job = result.get(timeout=30)
    copy = result.parent.get(timeout=5)
    assert (copy["kind"], copy["status"], job["kind"], job["task_type"]) == (
        "import",
        "completed",
        "task",
        "transcribe",
    )
    (body,) = [entry.body for entry in server.ledger if job["id"] == entry.job_id and entry.method == "POST"]
    assert copy["output"]["url"].encode() in body
    record = stack.until(result.parent.id, "done")
    assert record.job_kind == "import"


def test_an_import_that_fails_is_told(stack: Stack, server: FramelaneServer) -> None:
    server.media.import_error = lambda url: {"code": "source_not_found", "message": "404."} if "gone" in url else None
    result = stack.sig("framelane.import_media", "https://x.example/gone.mp4").apply_async()
    with pytest.raises(JobFailed) as caught:
        result.get(timeout=20)
    assert caught.value.code == "source_not_found"


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_a_worker_killed_in_the_middle_of_a_file_leaves_none_and_the_next_one_makes_it(
    stack: Stack, make_stack: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    with make_server() as server:
        own = make_stack(stack.name, server)
        fault = server.faults.add(Fault("slow", "GET", "/storage/*", times=1, seconds=600))
        with own.worker("-c", "1") as first:
            steps = (own.sig("framelane.render", composition()), own.sig("framelane.download", str(path)))
            result = chain(*steps).apply_async()
            wait_for(lambda: server.faults.struck(fault), 30)
            wait_for(lambda: list(tmp_path.glob(".a.mp4.*.part")))
            first.kill()
        assert not path.exists()
        with own.worker("-c", "1", name="w2"):
            assert is_whole(path, result.get(timeout=90))
