"""`gather` without a worker: what canvas it makes, what a failure looks like, and runs driven by hand.

Real workers gather in tests/worker/test_gather.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group, states
from celery.app.task import Context
from celery.exceptions import Ignore

from framelane_celery import (
    DuplicateTask,
    FramelaneTask,
    Gathered,
    InvalidArguments,
    JobFailed,
    RenderRequest,
    TaskFailure,
    gather,
)
from framelane_celery.errors import (
    FramelaneError,
    JobCancelled,
    JobTimedOut,
    SourceNotFound,
    TransportError,
    error_for,
)
from framelane_celery.monitoring import PROGRESS
from framelane_celery.records import Record
from framelane_celery.room import Room, room_of
from framelane_celery.settings import settings_of
from framelane_celery.tasks import mending
from framelane_celery.tasks.gathered import GATHERED, failure_value, passed_on
from framelane_celery.testing import Completed, Failed, FramelaneServer, Submission
from framelane_celery.wakeups import call_of

COMPOSITION: dict[str, Any] = {"elements": [{"type": "text", "text": "hello", "duration": 2}]}
FAILS: dict[str, Any] = {**COMPOSITION, "metadata": {"outcome": "fail"}}
REFUSED = {"elements": [{"type": "text", "id": "a", "text": "hello", "duration": 2}] * 2}  # by the server
FAILED = {"code": "internal", "message": "oops", "job_id": None, "task_id": "t", "task": "shop.promo"}
MARK = {GATHERED: True}


def outcome(submission: Submission) -> Any:
    return Failed("source_gone") if submission.metadata.get("outcome") == "fail" else Completed()


@pytest.fixture
def server() -> Iterator[FramelaneServer]:
    with FramelaneServer(job_seconds=0.1, outcome=outcome) as running:
        yield running


@pytest.fixture
def app(server: FramelaneServer, tmp_path: Path) -> Iterator[Celery]:
    with Celery("shop", set_as_current=False, broker="memory://", backend="cache+memory://") as app:
        app.conf.framelane = {
            "api_key": server.api_key, "base_url": server.base_url, "renders_per_minute": 1,
            "room_url": f"sqlite:///{tmp_path}/room.sqlite", "routes": [{"code": "*", "action": "fail"}],
        }  # fmt: skip
        yield app
        room_of(app, settings_of(app)).close()


@pytest.fixture
def room(app: Celery) -> Room:
    return room_of(app, settings_of(app))


def steps(app: Celery) -> Any:
    return chain(app.tasks["framelane.render"].s(COMPOSITION), app.tasks["framelane.transcribe"].s())


# --- the canvas --------------------------------------------------------------------------------------------------


def test_the_mark_is_on_copies(app: Celery) -> None:
    render, alone = steps(app), app.tasks["framelane.render"].s(COMPOSITION)
    made = gather([render, alone], app.tasks["framelane.transcribe"].s())
    first, second = made.tasks
    assert all(step.options["headers"][GATHERED] for step in (*first.tasks, second))
    assert not any(GATHERED in step.options["headers"] for step in (*render.tasks, alone, made.body))


def test_nothing_to_gather_is_an_error(app: Celery) -> None:
    with pytest.raises(InvalidArguments, match="there are no tasks"):
        gather(iter(()), app.tasks["framelane.transcribe"].s())


@pytest.mark.parametrize("shape", [group, lambda tasks: chord(tasks, tasks[0]), lambda tasks: chain(tasks[0], *tasks)])
def test_a_group_or_a_chord_inside_is_refused(app: Celery, shape: Any) -> None:
    render = app.tasks["framelane.render"].s(COMPOSITION)
    made = shape([render, render])
    if isinstance(made, (group, chord)):
        for one in (made, chain(render, made)):
            with pytest.raises(InvalidArguments, match="a task or a chain of tasks"):
                gather([render, one])
    else:
        assert len(gather([render, made]).tasks) == 2


def test_what_would_run_after_a_failure_is_refused(app: Celery) -> None:
    render = app.tasks["framelane.render"]
    with pytest.raises(InvalidArguments, match=r"framelane\.render is immutable \(\.si\)"):
        gather([chain(render.s(COMPOSITION), render.si(COMPOSITION))])
    gather([chain(render.si(COMPOSITION), app.tasks["framelane.transcribe"].s())])


def test_a_task_id_that_is_taken_never_leaves_a_second_chord_waiting(app: Celery, room: Room) -> None:
    """Nothing new happens for it, so the second chord would never hear of it."""
    render = app.tasks["framelane.render"]
    app.backend.ensure_chords_allowed = lambda: None

    def call(task_id: str, canvas: Any) -> Any:
        return gather([canvas(render.s(COMPOSITION).set(task_id=task_id))]).apply_async()

    for task_id, canvas in (
        ("alone", lambda step: step),
        ("first", lambda step: step | app.tasks["framelane.transcribe"].s()),
    ):
        call(task_id, canvas)
        with pytest.raises(DuplicateTask, match="this chord would never hear of it"):
            call(task_id, canvas)
    record, _ = room.read("alone")
    assert record is not None
    assert room.save(record, replace(record, until="done", call="", due_at=None)) == "saved"
    with pytest.raises(DuplicateTask, match="this chord would never hear of it"):
        call("alone", lambda step: step)
    for _ in range(2):  # in a group there is nobody who counts
        group([render.s(COMPOSITION).set(task_id="in a group")]).apply_async()


# --- the value ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result",
    [
        None, 7, "failed", {"id": "render_1", "failed": FAILED}, {"failed": None}, {"failed": {"code": "internal"}},
        {"failed": {**FAILED, "more": 1}}, [{"failed": FAILED}],
    ],
)  # fmt: skip
def test_a_result_is_no_failure(result: Any) -> None:
    assert TaskFailure.of(result) is None


def test_a_list_is_split_in_its_order() -> None:
    other = {**FAILED, "code": "timed_out"}
    finished, failed = Gathered.of([{"failed": FAILED}, 1, {"failed": other}, 2])
    assert finished == [1, 2]
    assert failed == [TaskFailure(**FAILED), TaskFailure(**other)]
    assert failed[0].to_json() == {"failed": FAILED}


@pytest.mark.parametrize(
    ("error", "code", "job_id"),
    [
        (JobFailed("m", "render_1", "source_gone"), "source_gone", "render_1"),
        (JobFailed("m", None, None), "unknown", None),
        (JobCancelled("m", "render_1"), "cancelled", "render_1"),
        (JobTimedOut("m", "render_1"), "timed_out", "render_1"),
        (SourceNotFound("m", 422), "source_not_found", None),
        (error_for(418, None, "m"), "http_418", None),
        (InvalidArguments("m", "elements"), "invalid_request", None),
        (TransportError("m"), "outcome_unknown", None),
    ],
)
def test_every_failure_has_the_code_that_its_route_has(error: FramelaneError, code: str, job_id: str | None) -> None:
    request = Context(id="t", task="shop.promo", headers=MARK)
    assert failure_value(request, error) == {
        "failed": {"code": code, "message": "m", "job_id": job_id, "task_id": "t", "task": "shop.promo"}
    }


def test_a_failure_tells_no_signed_url() -> None:
    error = JobFailed("cannot read https://files.example/a.mp4?signature=s3cr3t", "render_1", "source_gone")
    assert "s3cr3t" not in str(failure_value(Context(id="t", task="shop.promo", headers=MARK), error))


@pytest.mark.parametrize(
    ("headers", "args", "is_passed_on"),
    [
        (MARK, [{"failed": FAILED}, 7], True),
        ({}, [{"failed": FAILED}], False),
        (MARK, [7, {"failed": FAILED}], False),
        (MARK, [COMPOSITION], False),
        (MARK, [], False),
    ],
)
def test_what_is_passed_on(headers: dict[str, Any], args: list[Any], is_passed_on: bool) -> None:
    assert (passed_on(Context(headers=headers, args=args)) is not None) == is_passed_on


# --- in place ----------------------------------------------------------------------------------------------------


def test_in_eager_mode_it_gathers_too(app: Celery, server: FramelaneServer) -> None:
    app.conf.task_always_eager = True
    render, transcribe = app.tasks["framelane.render"], app.tasks["framelane.transcribe"]

    @app.task(name="shop.note", shared=False)
    def note(got: Any) -> Any:
        return got

    @app.task(base=FramelaneTask, name="shop.endless", shared=False)
    def endless() -> RenderRequest:
        return RenderRequest(elements=[{"type": "text", "text": "hello"}])

    tasks = [chain(render.s(FAILS), transcribe.s()), render.s(REFUSED), endless.s(), render.s(COMPOSITION)]
    codes = [failure and failure.code for failure in map(TaskFailure.of, gather(tasks, note.s()).delay().get())]
    assert codes == ["source_gone", "invalid_request", "invalid_request", None]
    [item] = (gather([render.s(FAILS)]) | note.s()).delay().get()  # Celery makes no list of a group of one
    assert TaskFailure.of(item) is not None
    assert server.ledger.counts()["jobs"] == 3


# --- a run, driven by hand ---------------------------------------------------------------------------------------


def run(app: Celery, room: Room, name: str, args: list[Any], link: Any = None, **request: Any) -> Any:
    """What a message's run in a worker returns, and its request afterwards."""
    task = app.tasks[name]
    room.create(Record(id="t", task=name, call=call_of(task, args, {}, {"link": link}).to_text(), digest=""))
    headers = {"framelane": {"step": 0}, **MARK}
    task.push_request(id="t", task=name, args=args, headers=headers, hostname="w", called_directly=False, **request)
    try:
        return task(*args), task.request
    finally:
        task.pop_request()


def test_passing_on_takes_no_slot(app: Celery, room: Room, server: FramelaneServer) -> None:
    room.hold("default", "quota_exceeded", "spent")
    got, _ = run(app, room, "framelane.render", [{"failed": FAILED}])
    assert got == {"failed": FAILED}
    assert len(server.ledger) == 0


def test_the_same_task_with_work_to_do_is_held(app: Celery, room: Room) -> None:
    room.hold("default", "quota_exceeded", "spent")
    with pytest.raises(Ignore, match="hold"):
        run(app, room, "framelane.render", [COMPOSITION])


@pytest.mark.parametrize("given", [REFUSED, {"failed": FAILED}])
def test_the_chords_body_shows_no_member_when_the_last_one_fails(app: Celery, room: Room, given: Any) -> None:
    """The member that ends last publishes the body, with the other members' signed URLs."""
    body = dict(app.tasks["framelane.transcribe"].s())
    _, request = run(app, room, "framelane.render", [given], chord=body, link=[dict(body)])
    assert request.chord["options"]["argsrepr"] == "(<results>)"
    assert request.callbacks is None  # links are for a success


def test_a_late_progress_over_a_gathered_failure_is_mended(app: Celery, room: Room) -> None:
    failure = {"code": "internal", "message": "oops"}
    room.create(
        Record(id="t", task="framelane.render", call="", digest="", until="done", outcome="failed", failure=failure)
    )
    app.backend.store_result("t", {"percent": 3}, PROGRESS)
    task = app.tasks["framelane.render"]
    request = Context(id="t", task=task.name, args=[], kwargs={}, framelane={"step": -1, "mend": 1}, **MARK)
    with pytest.raises(Ignore):
        mending.mend(task, request, [], {})
    result = app.AsyncResult("t")
    told = TaskFailure.of(result.result)
    assert (result.state, told and told.code) == (states.SUCCESS, "internal")
