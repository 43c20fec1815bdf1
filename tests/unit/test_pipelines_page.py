"""docs/pipelines.md is run from top to bottom, eagerly, against the local server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state

from framelane_celery import TaskFailure
from framelane_celery.testing import FramelaneServer

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=0) as running:
        yield running


@pytest.fixture
def app(server: FramelaneServer) -> Iterator[Celery]:
    before = _state._tls.current_app
    with Celery("page", broker="memory://", backend="cache+memory://") as app:
        app.conf.framelane = {"api_key": server.api_key, "base_url": server.base_url}
        app.conf.task_always_eager = True
        yield app
    _state._set_current_app(before)


@pytest.mark.usefixtures("app")
def test_the_page_runs(server: FramelaneServer) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "docs/pipelines.md", "exec"), names)
    assert names["transcribed"].delay().get()["task_type"] == "transcribe"
    assert len(names["every_size"].delay().get()) == 2
    server.fail_next("source_not_found")
    got = names["partial"].delay().get()
    assert (len(got["finished"]), got["failed"]) == (1, ["source_not_found"])
    results = names["submit"]("2026-11-27", ["hat"])
    assert [result.id for result in results] == ["nightly-2026-11-27-hat"]
    [shown] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    item = json.loads(shown)
    assert TaskFailure.of(item) is not None
    lines = list(names["lines"](["hat", "boot"], [{"id": "render_1"}, item]))
    assert lines == ["hat: render_1", "boot: source_not_found"]
