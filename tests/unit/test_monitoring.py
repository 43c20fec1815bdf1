"""What a waiting task shows: enough for its readers, and nothing that is a secret."""

from __future__ import annotations

import pytest

from framelane_celery.monitoring import has_news, progress_meta, shown_args, shown_kwargs
from framelane_celery.records import Record

SIGNED = "https://cdn.example.com/out.mp4?signature=sesame&expires=1"


def test_the_meta_has_the_keys_that_the_design_promises() -> None:
    record = Record(
        id="t", task="framelane.render", call="", digest="", until="job", job_id="render_1", job_kind="render",
        job={"status": "processing", "progress_percent": 40, "progress_stage": "encoding"}, accepted_at=10.0,
    )  # fmt: skip
    assert progress_meta(record, 12.0) == {
        "job_id": "render_1",
        "job_kind": "render",
        "status": "processing",
        "until": "job",
        "percent": 40,
        "current": 40,
        "total": 100,
        "pending": False,
        "description": "processing: encoding",
        "stage": "encoding",
        "attempt": 1,
        "submitted_at": 10.0,
        "next_look_at": 12.0,
    }


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        (None, {"status": "queued"}, True),
        ({"status": "queued"}, {"status": "queued", "updated_at": "later"}, False),
        ({"progress_percent": 1}, {"progress_percent": 2}, True),
        ({"progress_stage": "encoding"}, {"progress_stage": "uploading"}, True),
    ],
)
def test_only_what_changed_is_news(before: dict[str, object] | None, after: dict[str, object], news: bool) -> None:
    assert has_news(before, after) is news


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ([{"elements": [{"text": "secret"}], "width": 16}], "(<elements, width>)"),
        ([{"id": "render_1", "status": "completed", "output": {"url": SIGNED}}], "(<job render_1>)"),
        ([[{"id": "render_1", "output": {"url": SIGNED}}]], "(<1 items>)"),
        ([42, "product-7", None], "(42, 'product-7', None)"),
    ],
)
def test_arguments_are_shown_without_bodies(args: list[object], shown: str) -> None:
    assert shown_args(args) == shown


def test_no_signed_url_is_shown() -> None:
    assert "sesame" not in shown_args([SIGNED]) + shown_kwargs({"source": SIGNED})
    assert shown_kwargs({"language": "de"}) == "{'language': 'de'}"
