"""What a waiting task shows: enough for its readers, and nothing that is a secret."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from framelane_celery.monitoring import progress_meta, shown_args, shown_kwargs
from framelane_celery.records import Record, Until
from framelane_celery.watching.step import sends_task_events

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


LETTER = {"at": 1.0, "queue": "n.dead", "route": {}, "keep_waiting": True, "announced": False}
BROKE = {"code": "internal", "message": f"it broke at {SIGNED}"}
SPENT = {"code": "quota_exceeded", "message": "spent"}


@pytest.mark.parametrize(
    ("fields", "description"),
    [
        ({"until": "slot"}, "queued for a submit slot"),
        ({"until": "slot", "failure": BROKE}, "queued for a submit slot"),
        ({"until": "job", "job": {"status": "queued"}}, "queued"),
        ({"until": "job", "job": {"status": "processing", "progress_stage": "encoding"}}, "processing: encoding"),
        ({"until": "job", "job": {"status": "queued"}, "failure": BROKE, "attempt": 2}, "queued"),
        ({"until": "instant"}, "waits for its time"),
        ({"until": "instant", "failure": BROKE, "attempt": 2}, "attempt 2 after internal"),
        ({"until": "release", "failure": SPENT}, "on hold: quota_exceeded"),
        ({"until": "release", "failure": BROKE, "letter": LETTER}, "dead letter, kept waiting: internal"),
    ],
)
def test_what_is_waited_for_is_said_in_one_line(fields: dict[str, object], description: str) -> None:
    record = Record(id="t", task="framelane.render", call="", digest="", **fields)
    meta = progress_meta(record)
    assert (meta["description"], meta["until"], meta["pending"]) == (description, fields["until"], False)
    assert "sesame" not in str(meta)


@pytest.mark.parametrize(
    ("until", "next_look_at"), [("instant", 30.0), ("job", 12.0), ("release", 12.0), ("slot", 12.0)]
)
def test_the_next_look_is_an_instant_of_the_clock_or_of_the_watchers(until: Until, next_look_at: float) -> None:
    record = Record(id="t", task="framelane.render", call="", digest="", until=until, due_at=30.0)
    assert progress_meta(record, 12.0)["next_look_at"] == next_look_at


def test_a_new_attempt_shows_nothing_of_the_old_job() -> None:
    record = Record(id="t", task="x", call="", digest="", until="instant", attempt=2, failure=BROKE, job_kind="render")
    meta = progress_meta(record)
    assert (meta["job_id"], meta["status"], meta["percent"], meta["submitted_at"]) == (None, None, 0, None)
    assert (meta["attempt"], meta["job_kind"]) == (2, "render")


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


@pytest.mark.parametrize(
    ("dispatcher", "sends"),
    [
        (None, False),
        (SimpleNamespace(enabled=False, groups=set()), False),
        (SimpleNamespace(enabled=True, groups={"worker"}), False),  # a worker without -E: heartbeats, gossip
        (SimpleNamespace(enabled=True, groups={"worker", "task"}), True),  # a monitor has enabled them
        (SimpleNamespace(enabled=True, groups=set()), True),  # -E
    ],
)
def test_task_events_are_sent_only_if_somebody_asked(dispatcher: object, sends: bool) -> None:
    """Celery's worker (worker/consumer/events.py) enables its dispatcher for heartbeats too."""
    assert sends_task_events(dispatcher) is sends
