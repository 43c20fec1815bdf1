"""A project on a SQLite room, and one record in each state."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery, chain, signature

from framelane_celery.records import Record
from framelane_celery.room import Room
from framelane_celery.wakeups import Call, digest_of

ID = "0b5ed2a6-6f7c-4f6a-9f0a-00000000000"
ODD = "product-42 ü/✓"

SECRET = "X-Signature=s3cr3t"
SOURCE = f"https://files.example/shoe.mp4?{SECRET}"
COMPOSITION = {"width": 1280, "height": 720, "duration": 12.5, "elements": [
    {"type": "video", "id": "v", "source_url": SOURCE, "out_point": 4}]}  # fmt: skip


def make_app(folder: Path, **settings: Any) -> Celery:
    """An app whose broker is down, and whose room is a file."""
    app = Celery("shop", broker="amqp://nobody.invalid//", backend="cache+memory://", set_as_current=False)
    app.conf.broker_transport_options = {"max_retries": 0}
    app.conf.framelane = {"room_url": f"sqlite:///{folder}/room.db", "api_key": "fl_test_key", **settings}
    app.finalize(auto=True)
    return app


def make_record(
    id: str, until: Any, task: str = "framelane.render", args: Any = (COMPOSITION,), **changes: Any
) -> Record:
    options = changes.pop("options", {})
    call = Call(task, list(args), changes.pop("kwargs", {}), options)
    now = time.time()
    record = Record(
        id=id,
        task=task,
        call=call.to_text(),
        digest=digest_of(call),
        until=until,
        created_at=now - 200,
        due_at=now + 30,
    )
    return replace(record, **changes)


def make_letter(id: str, code: str = "source_not_found", *, keeps_waiting: bool = False, **changes: Any) -> Record:
    now = time.time()
    times = {"at": now - 100, "accepted_at": now - 150}
    history = ({"attempt": 1, "job_id": "render_1", "outcome": "failed", "code": code, **times},)
    letter = {
        "at": now - 90,
        "queue": "shop.dead",
        "route": {"code": "source_*", "action": "dead_letter"},
        "keep_waiting": keeps_waiting,
        "announced": True,
    }
    known = {
        "failure": {"code": code, "message": f"cannot read {SOURCE}: 404"},
        "letter": letter,
        "due_at": now - 90,
        "job_id": "render_1",
        "job_kind": "render",
        "outcome": "outcome_unknown" if code == "outcome_unknown" else "failed",
        "finished_at": None if keeps_waiting else now - 90,
        "history": history,
    }
    return make_record(id, "release" if keeps_waiting else "dead", **{**known, **changes})


def canvas_options() -> dict[str, Any]:
    """Options of a step that has a tail, links, errbacks and a chord."""
    after = [dict(signature("shop.publish", args=(7,))), dict(signature("framelane.transcribe"))]
    return {
        "chain": json.loads(json.dumps(after)),
        "link": [json.loads(json.dumps(signature("shop.note")))],
        "link_error": [json.loads(json.dumps(chain(signature("shop.alarm"), signature("shop.mail"))))],
        "chord": json.loads(json.dumps(signature("shop.all_done"))),
        "group_id": "group-1",
    }


def fill(room: Room) -> None:
    """One record in each state, and what an operator finds in it."""
    now = time.time()
    quota = {"code": "quota_exceeded", "message": "the plan's minutes are spent"}
    job = {"status": "processing", "progress_percent": 40, "progress_stage": "encoding"}
    accepted = {"job": job, "job_id": "render_5", "job_kind": "render", "accepted_at": now - 75}
    failed = {"failure": {"code": "internal", "message": "oops"}, "begun": True}
    posted = {"pauses": 2, "first_post_at": now - 60}
    transcribe = {"task": "framelane.transcribe", "args": (SOURCE,), "job_kind": "task"}
    records = [
        make_record(ID + "1", "start"),
        make_record(ID + "2", "start", resends=2, outcome="failed", begun=True),
        make_record(ID + "3", "slot", queued_at=now - 41, due_at=now - 41),
        make_record(ID + "4", "slot", queued_at=now - 40, due_at=now - 40),
        make_record(ID + "5", "job", **accepted, deadline_at=now + 20000, due_at=now + 12),
        make_record(ID + "6", "instant", attempt=3, due_at=now + 95, **failed),
        make_record(ID + "7", "instant", **posted),
        make_record(ID + "8", "release", failure=quota, held_at=now - 3000, due_at=now + 3e6),
        make_letter(ID + "9", keeps_waiting=True, options=canvas_options()),
        make_record(ID + "a", "running", run_id="r", run_node="w1@host", begun=True),
        make_record(ID + "b", "replacing"),
        make_record(ID + "c", "done", due_at=None, call="", outcome="completed", finished_at=now),
        make_letter(ID + "d", options=canvas_options()),
        make_letter(ODD, "outcome_unknown", task="shop.promo"),
        make_letter(ID + "e", "codec_unsupported", **transcribe),
    ]
    for record in records:
        assert room.create(record) is None
    room.hold("default", "quota_exceeded", f"the plan's minutes are spent, see {SOURCE}", now + 86400 * 3)
