"""docs/client.md is run from top to bottom, against the local server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from framelane_celery import FramelaneClient
from framelane_celery.testing import FramelaneServer
from tests.docs.pages import texts

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"film" * 50_000)
    monkeypatch.chdir(tmp_path)
    snippets = texts("docs/client.md", "python")
    assert len(snippets) > 8
    with FramelaneServer(job_seconds=0) as server:
        monkeypatch.setenv("FRAMELANE_API_KEY", server.api_key)
        names: dict[str, Any] = {}
        for snippet in snippets:
            code = snippet.replace(
                'os.environ["FRAMELANE_API_KEY"])', f'os.environ["FRAMELANE_API_KEY"], {server.base_url!r})'
            )
            exec(compile(code, "docs/client.md", "exec"), names)
        names["client"].close()
    assert names["copied"].is_completed
    assert (tmp_path / "product-42.mp4").stat().st_size == names["size"] == names["job"].output.size_bytes
    assert [step.task for step in names["film"].tasks] == ["framelane.render", "framelane.download"]
    assert [step.task for step in names["captions"].tasks] == ["framelane.import_media", "framelane.transcribe"]
    assert names["secret"].startswith("whsec_")
    assert len(names["clips"]) == 2
    assert capsys.readouterr().out.splitlines()[-1] == "100%"


def test_the_table_names_every_method_and_no_other() -> None:
    table = PAGE.split("## Everything else")[1].split("```")[0]
    named = set(re.findall(r"`(\w+)`", table))
    has = {
        name for name in dir(FramelaneClient) if not name.startswith("_") and callable(getattr(FramelaneClient, name))
    }
    plumbing = {"close", "from_settings", "submit", "get_job", "list_jobs"}
    assert named == has - plumbing
