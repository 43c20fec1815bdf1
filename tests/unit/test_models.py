"""What we read is read leniently; what we send is checked, and only what was set goes on the wire."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from framelane_celery.errors import InvalidArguments
from framelane_celery.models import (
    GazeRedirectRequest,
    ImageElement,
    Job,
    JobPage,
    Preview,
    RemoveBackgroundRequest,
    RenderRequest,
    SuperResolutionRequest,
    TextElement,
    TranscribeRequest,
    Usage,
    VideoElement,
    invalid_arguments,
    parse_request,
)

SAMPLES = Path(__file__).parent.parent / "samples"
VIDEO = {"type": "video", "source_url": "https://x.io/a.mp4"}
TEXT = {"type": "text", "text": "Hello", "duration": 3}
IMAGE = {"type": "image", "source_url": "https://x.io/a.png", "duration": 1}
SIGNED = "https://x.io/a.mp4?X-Sig=hunter2"


def sample(name: str):
    return json.loads((SAMPLES / f"{name}.json").read_text())


# -- jobs


def test_the_documented_job_is_read_whole_and_written_as_it_was():
    job = Job.model_validate(sample("get_a_task"))
    assert job.created_at == datetime(2023, 11, 7, 5, 31, 56, tzinfo=timezone.utc)
    assert (job.kind, job.task_type, job.status) == ("render", "transcribe", "queued")
    assert (job.output.width, job.output.duration, job.output.size_bytes) == (1920, 15.3, 12582912)
    assert (job.error.code, job.error.message) == ("invalid_source", "Source URL returned 404.")
    assert job.to_json() == sample("get_a_task")
    assert Job.model_validate(json.loads(json.dumps(job.to_json()))) == job


def test_a_short_body_is_a_job():
    job = Job.parse(sample("short_job"))
    assert (job.id, job.status, job.kind, job.metadata) == ("rnd_01J8QR2K5VKDGN2T4FBM3CZYX7", "queued", None, {})
    assert Job.parse(sample("short_job"), kind="task").kind == "task"
    assert Job.parse(sample("get_a_task"), kind="task").kind == "render"


@pytest.mark.parametrize(
    ("status", "true"),
    [
        ("ingesting", set()),
        ("queued", set()),
        ("processing", set()),
        ("completed", {"is_terminal", "is_completed"}),
        ("done", {"is_terminal", "is_completed"}),
        ("failed", {"is_terminal", "is_failed"}),
        ("cancelled", {"is_terminal", "is_cancelled"}),
        ("paused_by_moon", set()),
    ],
)
def test_what_each_status_means(status, true):
    job = Job(id="render_1", status=status)
    assert job.status == status
    assert {name for name in dir(Job) if name.startswith("is_") and getattr(job, name)} == true


@pytest.mark.parametrize(
    ("field", "given", "read"),
    [
        ("progress_percent", 41.9, 41),
        ("progress_percent", None, 0),
        ("progress_percent", 250, 100),
        ("progress_percent", -3, 0),
        ("progress_percent", "half", 0),
        ("progress_stage", "polishing", "polishing"),
        ("progress_stage", 7, None),
        ("kind", "hologram", "hologram"),
        ("output", None, None),
        ("output", "https://x.io/a.mp4", None),
        ("error", None, None),
        ("metadata", None, {}),
        ("metadata", {"a": 1, "b": "x"}, {"a": "1", "b": "x"}),
        ("completed_at", "soon", None),
        ("completed_at", "2023-11-07T05:31:56", datetime(2023, 11, 7, 5, 31, 56, tzinfo=timezone.utc)),
        ("completed_at", "2023-11-07T06:31:56.5+01:00", datetime(2023, 11, 7, 5, 31, 56, 500000, tzinfo=timezone.utc)),
        ("status", None, "queued"),
        ("workspace_id", None, None),
    ],
)
def test_a_job_is_read_leniently(field, given, read):
    job = Job.model_validate(sample("get_a_task") | {field: given})
    assert getattr(job, field) == read


def test_parts_of_a_job_are_read_leniently():
    job = Job.model_validate(
        {"id": "task_1", "output": {"url": "https://x.io", "width": None, "height": 10.7, "size_bytes": "big"}}
    )
    assert job.output.model_dump() == {
        "url": "https://x.io",
        "width": None,
        "height": 10,
        "duration": None,
        "size_bytes": None,
    }
    assert Job.model_validate({"id": "task_1", "error": {"code": None}}).error.message == ""
    assert Job.model_validate({"id": "task_1", "error": "boom"}).error.message == "boom"


def test_a_new_field_is_kept():
    assert Job.model_validate({"id": "task_1", "duration_ms": 5}).to_json()["duration_ms"] == 5


@pytest.mark.parametrize("body", [{}, {"id": ""}, {"id": 7}, [], "job", None])
def test_what_has_no_id_is_no_job(body):
    with pytest.raises(ValidationError):
        Job.model_validate(body)


def test_a_signed_url_is_not_in_the_repr():
    assert "hunter2" not in repr(Job.model_validate({"id": "render_1", "output": {"url": SIGNED}}))


def test_a_page_leaves_out_what_is_no_job():
    page = JobPage.model_validate({"data": [{"id": "task_1"}, {"status": "queued"}, None], "next_cursor": "c"})
    assert [job.id for job in page.data] == ["task_1"]
    assert JobPage.model_validate([{"id": "task_1"}]).data[0].id == "task_1"
    assert JobPage.model_validate({"data": None, "has_more": None}).data == []


@pytest.mark.parametrize(
    ("body", "is_last"),
    [
        ({"next_cursor": "c", "has_more": True}, False),
        ({"next_cursor": "c"}, False),
        ({"next_cursor": "c", "has_more": False}, True),
        ({"next_cursor": None, "has_more": True}, True),
        ({}, True),
    ],
)
def test_where_a_list_ends(body, is_last):
    assert JobPage.model_validate(body).is_last is is_last


@pytest.mark.parametrize("name", ["usage", "usage_console"])
def test_usage_is_read_in_both_spellings(name):
    usage = Usage.model_validate(sample(name))
    assert (usage.render_minutes, usage.task_count) == (12.5, 40)
    assert usage.period_start == datetime(2026, 7, 1, tzinfo=timezone.utc)
    assert usage.period_end == datetime(2026, 8, 1, tzinfo=timezone.utc)
    assert usage.render_minutes_limit == (25 if name == "usage_console" else None)


@pytest.mark.parametrize(
    ("body", "field", "read"),
    [
        ({}, "render_minutes", None),
        ({}, "period_end", None),
        ({"period_end": None}, "period_end", None),
        ({"period_end": "the first"}, "period_end", None),
        ({"period_end": {"at": 1}}, "period_end", None),
        ({"period_end": "9999-12-31T23:59:59-01:00"}, "period_end", None),
        ({"period_end": "2026-08-01"}, "period_end", datetime(2026, 8, 1, tzinfo=timezone.utc)),
        ({"period_end": "2026-08-01T02:00:00+02:00"}, "period_end", datetime(2026, 8, 1, tzinfo=timezone.utc)),
        ({"render_minutes": "12"}, "render_minutes", None),
        ({"render_minutes": 10**400}, "render_minutes", None),
        ({"render_minutes": None, "render_minutes_used": 3}, "render_minutes", 3),
        ({"render_minutes": "?", "render_minutes_used": 3}, "render_minutes", 3),
        ({"render_minutes": 0, "render_minutes_used": 3}, "render_minutes", 0),
        ({"render_minutes_limit": None}, "render_minutes_limit", None),
        ({"tasks_count": 4.0}, "task_count", 4),
        ({"task_count": 1, "tasks_count": 2}, "task_count", 1),
    ],
)
def test_usage_is_read_leniently(body, field, read):
    assert getattr(Usage.model_validate(body), field) == read


# -- previews


def test_the_answer_to_a_dry_run_is_read():
    preview = Preview.model_validate(sample("preview_dry_run"))
    assert preview.ok is False
    assert [(found.code, found.is_error, found.path) for found in preview.violations] == [
        ("DUPLICATE_ELEMENT_ID", True, "elements[1].id"),
        ("EMPTY_TIMELINE", False, None),
    ]
    assert Preview.model_validate_json(preview.model_dump_json()) == preview


@pytest.mark.parametrize(
    ("body", "ok", "count"),
    [
        ({"ok": True}, True, 0),
        ({"ok": True, "violations": None, "frame_url": SIGNED}, True, 0),
        ({"ok": False}, False, 0),
        ({"violations": []}, True, 0),
        ({"ok": None, "violations": [{"severity": "error"}]}, False, 1),
        ({"ok": True, "violations": [{"severity": "error"}]}, False, 1),
        ({"ok": True, "violations": [{"severity": "warning"}, {"severity": "hint"}]}, True, 2),
        ({"ok": "yes", "violations": [{"code": 7, "message": None, "severity": None}]}, False, 1),
        ({"ok": True, "violations": ["odd", None, {"severity": "warning", "message": "x", "new": 1}]}, True, 1),
        ({"ok": True, "violations": {"severity": "error"}}, True, 0),
    ],
)
def test_a_preview_is_read_leniently(body, ok, count):
    preview = Preview.model_validate(body)
    assert (preview.ok, len(preview.violations)) == (ok, count)
    assert "hunter2" not in repr(preview)
    assert all(isinstance(found.message, str) and not found.model_extra for found in preview.violations)


@pytest.mark.parametrize("body", [{}, {"ok": "yes"}, {"ok": 1, "violations": None}, [], None, {"status": "queued"}])
def test_what_says_nothing_about_the_composition_is_no_preview(body):
    with pytest.raises(ValidationError):
        Preview.model_validate(body)


# -- requests: what is sent


def test_only_what_was_set_goes_on_the_wire_as_canonical_bytes():
    request = RenderRequest(
        width=1280, height=720, elements=[VideoElement(source_url="https://x.io/ä.mp4", volume=50.0)]
    )
    assert request.body({}) == (
        '{"elements":[{"source_url":"https://x.io/ä.mp4","type":"video","volume":50}],"height":720,"width":1280}'.encode()
    )


def test_equal_requests_are_equal_bytes_whatever_the_order():
    one = parse_request(
        RenderRequest, {"duration": 5.0, "elements": [VIDEO | {"time": 1, "x": 7}], "metadata": {"b": "1"}}
    )
    two = parse_request(
        RenderRequest, {"metadata": {"b": "1"}, "elements": [{"time": 1.0, "x": 7.0} | VIDEO], "duration": 5}
    )
    assert one.body({"a": "2"}) == two.body({"a": "2"})


def test_the_given_metadata_wins():
    request = TranscribeRequest(source_url="https://x.io/a", metadata={"celery_task_id": "forged", "order": "7"})
    assert json.loads(request.body({"celery_task_id": "id-1"}))["metadata"] == {"celery_task_id": "id-1", "order": "7"}
    assert request.metadata["celery_task_id"] == "forged"


def test_extra_is_merged_on_every_level_and_wins():
    request = parse_request(
        RenderRequest,
        {
            "elements": [VIDEO | {"extra": {"glow": 1}, "effects": [{"type": "vhs", "extra": {"seed": 2}}]}],
            "output_format": "mp4",
            "extra": {"output_format": "av1", "priority": "high"},
        },
    )
    body = json.loads(request.body({}))
    assert body == {
        "elements": [VIDEO | {"glow": 1, "effects": [{"type": "vhs", "seed": 2}]}],
        "output_format": "av1",
        "priority": "high",
    }


def test_a_request_travels_as_json_and_is_the_same_again():
    request = parse_request(RenderRequest, {"elements": [VIDEO | {"extra": {"glow": 1}}, TEXT], "extra": {"new": [1]}})
    again = parse_request(RenderRequest, json.loads(json.dumps(request.to_json())))
    assert again == request
    assert again.body({}) == request.body({})


def test_a_source_put_in_later_goes_on_the_wire():
    request = GazeRedirectRequest(source_url="https://x.io/a.mp4").model_copy(
        update={"source_url": "https://y.io/b.mp4"}
    )
    assert json.loads(request.body({})) == {"source_url": "https://y.io/b.mp4"}


@pytest.mark.parametrize(
    ("cls", "kind", "path", "task_type"),
    [
        (RenderRequest, "render", "/v1/renders", None),
        (TranscribeRequest, "task", "/v1/tasks/transcribe", "transcribe"),
        (RemoveBackgroundRequest, "task", "/v1/tasks/remove-background", "remove_background"),
        (GazeRedirectRequest, "task", "/v1/tasks/gaze-redirect", "gaze_redirect"),
        (SuperResolutionRequest, "task", "/v1/tasks/super-resolution", "super_resolution"),
    ],
)
def test_where_each_request_goes(cls, kind, path, task_type):
    assert (cls.kind, cls.path, cls.task_type) == (kind, path, task_type)


# -- requests: how long the output will be


CUT = VIDEO | {"out_point": 10}
SOUND = {"type": "audio", "source_url": "https://x.io/a.mp3"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ({"duration": 7.5}, 7.5),
        ({"duration": 2, "elements": [TEXT | {"time": 5}]}, 2),
        ({"elements": [TEXT]}, 3),
        ({"elements": [TEXT | {"time": 1.5}, IMAGE | {"id": "i"}]}, 4.5),
        ({"elements": [CUT]}, 10),
        ({"elements": [CUT | {"in_point": 4}]}, 6),
        ({"elements": [CUT | {"in_point": 4, "speed": 2, "time": 1}]}, 4),
        ({"elements": [SOUND | {"out_point": 20, "speed": 0.5}]}, 40),
        ({"elements": [CUT | {"visible": False}]}, 10),
        ({"elements": [VIDEO, TEXT]}, 3),
        ({"elements": [VIDEO]}, None),
        ({"elements": [VIDEO | {"in_point": 3, "time": 9}, SOUND]}, None),
        ({"elements": []}, None),
        ({}, None),
        ({"output_format": "gif", "elements": [TEXT]}, 3),
        ({"output_format": "png", "duration": 60, "elements": [TEXT]}, 0),
        ({"output_format": "jpg"}, 0),
        ({"elements": [TEXT | {"id": "a", "motion": [{"type": "fade", "time": 50, "duration": 9}]}],
          "transitions": [{"type": "fade", "duration": 8, "from_id": "a"}]}, 3),
    ],
)  # fmt: skip
def test_how_long_the_output_will_be(value, seconds):
    assert parse_request(RenderRequest, value).estimated_output_s() == seconds


@pytest.mark.parametrize(
    ("extra", "seconds"),
    [
        ({"duration": 90}, 90),
        ({"duration": "long"}, 3),
        ({"duration": True}, 3),
        ({"duration": 10**400}, 3),
        ({"output_format": "png"}, 0),
        ({"output_format": ["png"]}, 3),
        ({"elements": [{"type": "composition", "time": 2, "duration": 5}, {"type": "hologram"}, "odd", None]}, 7),
        ({"elements": [{"type": "video", "duration": 5}]}, None),
        ({"elements": [{"type": "video", "out_point": 5, "in_point": 9, "speed": "fast", "time": []}]}, None),
        ({"elements": "none"}, None),
    ],
)
def test_the_estimate_reads_what_goes_on_the_wire(extra, seconds):
    request = parse_request(RenderRequest, {"elements": [TEXT], "extra": extra})
    assert request.estimated_output_s() == seconds


# -- requests: what passes


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"elements": []},
        {"alpha": True, "output_format": "webm"},
        {"alpha": True, "extra": {"output_format": "apng"}},
        {"background_color": "#A0b1C2"},
        {"elements": [VIDEO | {"source_url": SIGNED}]},
        {"elements": [VIDEO | {"effects": [{"type": "brand_new"}], "motion": [{"type": "also_new"}]}]},
        {"elements": [TEXT | {"x": "50%", "y": 10, "z_rotation": "90deg", "shadow": True}]},
        {"elements": [TEXT | {"id": "t1"}, TEXT | {"id": "t1"}]},
        {"elements": [{"type": "audio", "source_url": "https://x.io/a"}]},
        {"elements": [TEXT | {"id": "a"}, TEXT | {"id": "b"}],
         "transitions": [{"type": "fade", "duration": 1, "from_id": "a", "to_id": "b"}]},
        {"transitions": [{"type": "fade", "duration": 1, "to_id": "c"}], "extra": {"elements": [{"id": "c"}]}},
        {"webhook_url": None, "ingest_external": True},
    ],
)  # fmt: skip
def test_what_the_api_may_take_passes(value):
    assert isinstance(parse_request(RenderRequest, value), RenderRequest)


def test_a_model_is_taken_as_it_is():
    request = RenderRequest()
    assert parse_request(RenderRequest, request) is request


# -- requests: what is refused


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        ({"width": 1280}, "height", "width and height go together"),
        ({"height": 720, "width": None}, "width", "width and height go together"),
        ({"width": 15, "height": 720}, "width", "16"),
        ({"width": 8193, "height": 720}, "width", "8192"),
        ({"duration": 0}, "duration", "greater than 0"),
        ({"duration": float("nan")}, "duration", "finite"),
        ({"frame_rate": 241}, "frame_rate", "240"),
        ({"output_format": "avi"}, "output_format", "'mp4', 'webm'"),
        ({"background_color": "red"}, "background_color", "#rrggbb"),
        ({"background_color": "#12345"}, "background_color", "#rrggbb"),
        ({"background_image_url": "a.png"}, "background_image_url", "https://"),
        ({"webhook_url": "https://x.io/" + "a" * 2083}, "webhook_url", "2083"),
        ({"alpha": True}, "alpha", "'webm' or 'mov'"),
        ({"alpha": True, "output_format": "gif"}, "alpha", "'webm' or 'mov'"),
        ({"metadata": {"a": 1}}, "metadata.a", "string"),
        ({"extra": {"a": float("nan")}}, "extra", "JSON"),
        ({"extra": {"a": object()}}, "extra", "JSON"),
        ({"extra": {"a": "\ud800"}}, "extra", "JSON"),
        ({"widht": 1280}, "widht", "widht: unknown field, did you mean 'width'?"),
        ({"colour": 1, "qqq": 2}, "colour", "qqq: unknown field (if the API has gained it, write extra={'qqq': …})"),
        ({"elements": [VIDEO, TEXT | {"colour_overlay": 1}]}, "elements[1].colour_overlay", "mean 'color_overlay'?"),
        ({"elements": [VIDEO | {"duration": 3}]}, "elements[0].duration", "set 'out_point'"),
        ({"elements": [VIDEO | {"effects": [{"typ": "vhs"}]}]}, "elements[0].effects[0].typ", "mean 'type'?"),
        ({"elements": [{"type": "hologram"}]}, "elements[0].type", "'video', 'audio', 'text' or 'image'"),
        ({"elements": [{"text": "x"}]}, "elements[0].type", "'video', 'audio', 'text' or 'image'"),
        ({"elements": [{"type": "video"}]}, "elements[0].source_url", "is required"),
        ({"elements": [VIDEO | {"source_url": "https://x.io/a.avi?x=.mp4"}]}, "elements[0].source_url", ".webm"),
        ({"elements": [VIDEO | {"in_point": 3, "out_point": 3}]}, "elements[0].out_point", "greater than in_point"),
        ({"elements": [VIDEO | {"speed": 5}]}, "elements[0].speed", "4"),
        ({"elements": [VIDEO | {"volume": 101}]}, "elements[0].volume", "100"),
        ({"elements": [VIDEO | {"track": 256}]}, "elements[0].track", "255"),
        ({"elements": [VIDEO | {"time": -1}]}, "elements[0].time", "0"),
        ({"elements": [VIDEO | {"opacity": 101}]}, "elements[0].opacity", "100"),
        ({"elements": [VIDEO | {"blend_mode": "burn"}]}, "elements[0].blend_mode", "'color_burn'"),
        ({"elements": [VIDEO | {"crop_top": 2}]}, "elements[0].crop_top", "1"),
        ({"elements": [VIDEO | {"x": [1]}]}, "elements[0].x", "'50%'"),
        ({"elements": [VIDEO | {"effects": [{"type": "vhs", "intensity": 101}]}]},
         "elements[0].effects[0].intensity", "100"),
        ({"elements": [{"type": "audio", "source_url": "https://x.io/a", "volume": 0}]}, "elements[0].volume", "0"),
        ({"elements": [{"type": "text", "text": "x"}]}, "elements[0].duration", "is required"),
        ({"elements": [TEXT | {"text": ""}]}, "elements[0].text", "must not be empty"),
        ({"elements": [TEXT | {"font_weight": 50}]}, "elements[0].font_weight", "100"),
        ({"elements": [TEXT | {"stroke": True, "shadow": True}]}, "elements[0].shadow", "only one of"),
        ({"elements": [TEXT | {"word_animation": {"style": "glow", "words": []}}]},
         "elements[0].word_animation.words", "must not be empty"),
        ({"elements": [IMAGE]}, "elements[0].id", "is required"),
        ({"elements": [IMAGE | {"id": ""}]}, "elements[0].id", "must not be empty"),
        ({"transitions": [{"type": "fade"}]}, "transitions[0].duration", "is required"),
        ({"elements": [TEXT | {"id": "a"}],
          "transitions": [{"type": "f", "duration": 1, "from_id": "a", "to_id": "a"}]},
         "transitions[0].to_id", "must be another element"),
        ({"elements": [TEXT | {"id": "a"}],
          "transitions": [{"type": "f", "duration": 1, "from_id": "a", "to_id": "b"}]},
         "transitions[0].to_id", "names no element"),
    ],
)  # fmt: skip
def test_what_is_surely_a_422_is_refused_by_field(value, field, said):
    with pytest.raises(InvalidArguments) as caught:
        parse_request(RenderRequest, value)
    assert caught.value.field == field
    assert said in str(caught.value)
    assert str(caught.value).startswith("RenderRequest: ")


@pytest.mark.parametrize(
    ("cls", "value", "field"),
    [
        (TranscribeRequest, {}, "source_url"),
        (TranscribeRequest, {"source_url": "a.mp4"}, "source_url"),
        (TranscribeRequest, {"source_url": "https://x.io", "speech_model": "best"}, "speech_model"),
        (TranscribeRequest, {"source_url": "https://x.io", "speakers_expected": 11}, "speakers_expected"),
        (TranscribeRequest, {"source_url": "https://x.io", "word_boost": ["a"] * 201}, "word_boost"),
        (GazeRedirectRequest, {"source_url": "https://x.io", "intensity": 1.1}, "intensity"),
        (SuperResolutionRequest, {"source_url": "https://x.io", "scale": 2}, "scale"),
        (RemoveBackgroundRequest, {"source_url": ""}, "source_url"),
    ],
)
def test_media_requests_are_checked(cls, value, field):
    with pytest.raises(InvalidArguments) as caught:
        parse_request(cls, value)
    assert caught.value.field == field


def test_no_value_is_quoted_and_a_long_list_of_errors_is_cut():
    bad = {"elements": [{"type": "text", "text": 7, "duration": SIGNED, SIGNED: 1} for _ in range(20)]}
    with pytest.raises(InvalidArguments) as caught:
        parse_request(RenderRequest, bad)
    assert "hunter2" not in str(caught.value)
    assert "; and 15 more" in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("value", [None, [], "https://x.io/a.mp4", TranscribeRequest(source_url="https://x.io/a")])
def test_what_is_neither_model_nor_dict_is_refused(value):
    with pytest.raises(InvalidArguments, match=f"must be a RenderRequest or a dict, not {type(value).__name__}"):
        parse_request(RenderRequest, value)


def test_a_model_built_by_hand_quotes_no_value_either():
    with pytest.raises(ValidationError) as caught:
        TextElement(text="x", duration=1, color_overlay=["hunter2"])
    assert "hunter2" not in str(caught.value)
    error = invalid_arguments(caught.value)
    assert (error.field, str(error)) == ("color_overlay", "TextElement: color_overlay: must be a string")


def test_requests_are_frozen():
    with pytest.raises(ValidationError):
        ImageElement(id="a", duration=1, source_url="https://x.io/a.png").duration = 2
